package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/sidecar/authz"
)

// evalConfig is what `postern eval` runs with.
type evalConfig struct {
	question questionConfig

	remote          remoteConfig
	accessTokenFile string // goes along with the question to it
	local           evalLocal

	explain, exitCode bool
	format            string
}

// evalLocal is what a question is asked of without a sidecar.
type evalLocal struct {
	policies      []string
	catalog       string
	claimsFile    string
	onIncomplete  string
	decision      string
	allowBuiltins []string
	timeout       time.Duration
}

func (c *evalConfig) settings() []setting {
	l := &c.local
	return slices.Concat(c.question.settings(), []setting{
		{
			name: "policy", repeat: true, set: values(&l.policies),
			help: "policies to ask: a directory, a bundle file (.tar.gz), a .rego file, or builtin; repeatable, and joined (default builtin)",
		},
		catalogSetting(&l.catalog),
		{
			name: "token-claims", set: text(&l.claimsFile),
			help: "file with the claims of a good access token, as JSON: policies see them as input.token",
		},
		{
			name: "on-incomplete", initial: "deny", set: oneOf(&l.onIncomplete, "deny", "defer"),
			help: "what policies see as data.postern.settings.on_incomplete: deny or defer",
		},
		decisionSetting(&l.decision),
		allowBuiltinSetting(&l.allowBuiltins),
		{
			name: "evaluation-timeout", initial: "10s", set: duration(&l.timeout),
			help: "longest evaluation of the question, its explanation included",
		},
	}, c.remote.settings("running sidecar to ask, with its policies and its catalog: its decision API, http://host:port or unix:///path.sock; --explain needs its --allow-explain"), []setting{
		{
			name: "access-token-file", set: text(&c.accessTokenFile),
			help: "file with the access token that goes along with the question to --from",
		},
		{
			name: "explain", initial: "false", bare: true, set: boolean(&c.explain),
			help: "tell why: which rule decided, which conditions failed, with values, file and line",
		},
		{
			name: "format", initial: "text", set: oneOf(&c.format, "text", "json"),
			help: "how --explain tells it: text, or json, which is the whole answer",
		},
		{
			name: "exit-code", initial: "false", bare: true, set: boolean(&c.exitCode),
			help: "exit 1 when the decision is deny; otherwise any decision exits 0",
		},
	})
}

// values stores the values of a repeated setting as they are.
func values(into *[]string) func([]string) error {
	return func(given []string) error {
		*into = nil
		for _, value := range given {
			if value == "" {
				return errors.New("want a value that isn't empty")
			}
			*into = append(*into, value)
		}
		return nil
	}
}

// errDenied makes the exit status of --exit-code.
var errDenied = errors.New("eval: the decision is deny (--exit-code)")

// run is the verb.
func (c *evalConfig) run(ctx context.Context, _ []string, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	body, err := c.question.read(std.stdin)
	if err != nil {
		return err
	}
	ask := c.askLocal
	if c.remote.from != "" {
		ask = c.askRemote
	}
	answer, err := ask(ctx, body)
	if err != nil {
		return usagef("%v", err) // a status of 1 says that there is a decision, a deny
	}
	var told struct {
		Decision bool
		Context  struct{ Explanation struct{ Text string } }
	}
	if err := json.Unmarshal(answer, &told); err != nil {
		return fmt.Errorf("eval: reading the answer: %w", err)
	}
	if c.explain && c.format == "text" {
		if told.Context.Explanation.Text == "" {
			return errors.New("--explain: the answer has no explanation; is the sidecar of --from an older one?")
		}
		answer = []byte(printableLines(told.Context.Explanation.Text))
	}
	if _, err := std.stdout.Write(answer); err != nil {
		return err
	}
	if c.exitCode && !told.Decision {
		return errDenied
	}
	return nil
}

// check looks at what the settings mean together. What `postern run` has, too, may be set for
// it in the environment or the file: that is no mistake here.
func (c *evalConfig) check() error {
	switch {
	case c.remote.from == "" && c.accessTokenFile != "":
		return usagef("--access-token-file: want --from with it, got none; --token-claims stands in for a token without a sidecar")
	case c.remote.from != "" && c.local.catalog != "":
		return usagef("--from, --catalog: want one of them, got both: a running sidecar has a catalog of its own")
	case c.remote.from != "" && c.local.claimsFile != "":
		return usagef("--from, --token-claims: want one of them, got both: a running sidecar wants the token itself (--access-token-file)")
	}
	return nil
}

// localToken stands for the token whose claims were given.
const localToken = "claims"

// goodClaims finds every token good.
type goodClaims struct{ claims ast.Value }

// Verify returns the claims.
func (g goodClaims) Verify(context.Context, string) (ast.Value, string) { return g.claims, "" }

// askLocal asks the engine of the sidecar, with the policies and the catalog of files.
func (c *evalConfig) askLocal(ctx context.Context, body []byte) (answer []byte, err error) {
	o := authz.Options{Timeout: c.local.timeout, MaxInFlight: 1, AllowExplain: true}
	token := ""
	if c.local.claimsFile != "" {
		claims, err := readClaims(c.local.claimsFile)
		if err != nil {
			return nil, usagef("--token-claims: %v", err)
		}
		o.Tokens, token = goodClaims{claims}, localToken
	}
	engine := authz.NewEngine(o)
	opened, err := openCatalogFile(ctx, c.local.catalog)
	if err != nil {
		return nil, usagef("--catalog: %v", err)
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if err := c.local.use(ctx, engine, opened); err != nil {
		return nil, usagef("%v", err)
	}
	ask := engine.Decide
	if c.explain {
		ask = engine.Explain
	}
	decision, err := ask(ctx, body, token)
	var malformed *authz.MalformedError
	if errors.As(err, &malformed) {
		return nil, c.question.mistake(body, err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("eval: %w", err)
	}
	return decision.AppendJSON(nil)
}

func readClaims(path string) (ast.Value, error) {
	content, err := readSmallFile(path, authz.MaxQuestion)
	if err != nil {
		return nil, err
	}
	claims, err := authz.ParseClaims(content)
	if err != nil {
		return nil, errors.New(located(path, content, err.Error()))
	}
	return claims, nil
}

// use compiles the policies as the sidecar does, and gives them to the engine.
func (l *evalLocal) use(ctx context.Context, engine *authz.Engine, from *catalogFile) error {
	loaded, err := loadPolicies(ctx, l.policies)
	if err != nil {
		return fmt.Errorf("--policy: %w", err)
	}
	policy, err := compilePolicy(loaded, l.allowBuiltins, l.decision, l.onIncomplete)
	if err != nil {
		return err
	}
	return engine.Use(ctx, policyOver(policy, from.catalog))
}
