package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/source"
)

const (
	// lookEvery is how often policy directories and files are looked at. A change has to be
	// still for one look, and compiled, and all that within two seconds.
	lookEvery = 400 * time.Millisecond
	// keptPolicies is where below --data-dir the last good downloads are.
	keptPolicies = "policies"
)

// policyConfig is where policies come from, and what they may do.
type policyConfig struct {
	places        []source.Place
	opaConfig     string
	tokenFile     string
	interval      time.Duration
	verification  verificationConfig
	allowRollback bool
	allowBuiltins []string
	decision      string
}

const builtinPolicy = "builtin"

func (c *policyConfig) settings() []setting {
	return slices.Concat([]setting{
		{
			name: "policy", repeat: true, secret: true, set: places(&c.places),
			help: "policy directory, bundle file (.tar.gz), https URL of a bundle, or builtin; repeatable, and joined; changes are followed; replaces the built-in policies (default builtin)",
		},
		{
			name: "policy-token-file", set: text(&c.tokenFile),
			help: "file with the bearer token for the bundle URLs of --policy; its changes are followed",
		},
		{
			name: "policy-interval", initial: "1m", set: duration(&c.interval),
			help: "time between two requests for a bundle URL of --policy, give or take a tenth, unless its server can hold requests until there is something new",
		},
		{
			name: "opa-config", set: text(&c.opaConfig),
			help: "OPA configuration file, of which services, bundles, keys and decision_logs are taken; its bundles are joined with those of --policy, and replace the built-in policies",
		},
	}, c.verification.settings(), []setting{
		{
			name: "allow-rollback", initial: "false", bare: true, set: boolean(&c.allowRollback),
			help: "take a policy whose revision is older than the one in use",
		},
		allowBuiltinSetting(&c.allowBuiltins),
		decisionSetting(&c.decision),
	})
}

// check looks at what the settings mean together.
func (c *policyConfig) check() error {
	if c.tokenFile != "" && !slices.ContainsFunc(c.places, source.Place.IsURL) {
		return usagef("--policy-token-file: want a bundle URL in --policy with it, got none")
	}
	return c.verification.check()
}

func builtinPlace() source.Place { return source.Embedded(builtinPolicy, policies.FS()) }

func places(into *[]source.Place) func([]string) error {
	return func(values []string) error {
		*into = nil
		for _, value := range values {
			place, err := source.ParsePlace(value)
			if err != nil {
				return err
			}
			if value == builtinPolicy {
				place = builtinPlace()
			}
			*into = append(*into, place)
		}
		return nil
	}
}

// openPolicy reads the policies that the settings name and puts them to use, but for those
// that have to be awaited.
func (s *sidecar) openPolicy(ctx context.Context) (err error) {
	c := s.config.policy
	places := c.places
	if c.opaConfig != "" {
		configured, err := s.readOPAConfig(ctx, c.opaConfig)
		if err != nil {
			return usagef("--opa-config: %v", err)
		}
		places = append(places[:len(places):len(places)], configured...)
	}
	if len(places) == 0 {
		places = []source.Place{builtinPlace()}
	}
	configured := source.Config{
		Places: places, Use: s.usePolicy, AllowRollback: c.allowRollback, Keep: filepath.Join(s.config.dataDir, keptPolicies),
		PollEvery: lookEvery, Interval: c.interval, UserAgent: "postern/" + version,
		Logger: s.logger, Meter: s.telemetry.Meter(),
	}
	if s.verification != nil {
		configured.Verification = s.verification.get
	}
	if s.policyToken != nil {
		configured.Token = s.policyToken.get
	}
	if s.policies, err = source.New(configured); err != nil {
		return usagef("%v", err)
	}
	return s.policies.Load(ctx)
}

// readOPAConfig returns the sources that a standard OPA configuration names, and starts the
// decision log that it asks for.
func (s *sidecar) readOPAConfig(ctx context.Context, path string) ([]source.Place, error) {
	content, err := readSmallFile(path, source.LargestOPAConfig)
	if err != nil {
		return nil, err
	}
	read, err := source.ReadOPAConfig(content, path)
	for _, warning := range read.Warnings {
		s.logger.Warn("OPA configuration", "warning", warning)
	}
	if err != nil {
		return nil, err
	}
	if err := s.openDecisionLog(ctx, read); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return read.Places, nil
}

// usePolicy compiles a bundle and makes it the policy of the questions to come. Each gets a
// data document of its own, so that a question in flight keeps policy and data of the bundle
// that it began with.
func (s *sidecar) usePolicy(ctx context.Context, loaded *bundle.Bundle) error {
	c := s.config.policy
	policy, err := compilePolicy(loaded, c.allowBuiltins, c.decision, s.config.onIncomplete)
	if err != nil {
		return err
	}
	if s.decisions != nil { // first: no decision of this policy is logged without its mask
		if err := s.decisions.Use(ctx, policy.Compiler, maps.Clone(policy.Data)); err != nil {
			return err
		}
	}
	return s.engine.Use(ctx, policyOver(policy, s.catalog))
}

// compilePolicy compiles a bundle as what the sidecar decides by: its data has data.postern.
func compilePolicy(loaded *bundle.Bundle, allowBuiltins []string, decision, onIncomplete string) (*bundle.Policy, error) {
	policy, err := loaded.Compile(bundle.Options{Schemas: policies.Schemas(), AllowBuiltins: allowBuiltins, Decision: decision})
	if err != nil {
		return nil, err
	}
	policy.Data["postern"] = posternData(onIncomplete)
	return policy, nil
}

// posternData is data.postern, what policies see of the settings.
func posternData(onIncomplete string) map[string]any {
	return map[string]any{"settings": map[string]any{"on_incomplete": onIncomplete}}
}

// policyOver is a policy with the catalog that it is asked about.
func policyOver(policy *bundle.Policy, about *catalog.Catalog) authz.Policy {
	return authz.Policy{
		Compiler: policy.Compiler,
		Store:    about.Document(inmem.NewFromObject(policy.Data)),
		Decision: policy.Decision,
		Revision: policy.Revision,
	}
}

// parseHeaderToken takes what can stand in a header.
func parseHeaderToken(contents [][]byte) (string, error) {
	token := strings.TrimSpace(string(contents[0]))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("want one token of printable characters, without spaces")
	}
	return token, nil
}

// policyCheck says whether there is a policy, and what is awaited.
func (s *sidecar) policyCheck() check {
	revision, loaded := s.engine.PolicyRevision()
	if loaded {
		return check{"policy", true, "revision " + revision}
	}
	detail := "there is none yet"
	for _, from := range s.policies.Status().Sources {
		if !from.Loaded {
			detail += "; " + from.Name + " is awaited"
		}
	}
	return check{"policy", false, detail}
}

// policyNotes say how the policies' sources stand.
func (s *sidecar) policyNotes() []check {
	at := s.policies.Status()
	notes := []check{{"policy_reload", true, "the last load succeeded"}}
	switch {
	case at.Failure != nil && at.Used:
		notes[0].detail = "FAILED, the previous policy stays: " + firstLineOf(at.Failure)
	case at.Failure != nil:
		notes[0].detail = "FAILED, and there is no policy yet: " + firstLineOf(at.Failure)
	case !at.Used:
		notes[0].detail = "awaited"
	}
	for _, from := range at.Sources {
		if from.Remote {
			notes = append(notes, check{"policy_source", true, sourceDetail(from)})
		}
	}
	return notes
}

func sourceDetail(from source.OriginStatus) string {
	detail := from.Name
	if from.Loaded {
		detail += fmt.Sprintf(", revision %s", from.Revision)
	}
	switch {
	case !from.Answered.IsZero():
		detail += ", last answer " + from.Answered.UTC().Format(time.RFC3339)
	case from.Loaded:
		detail += ", KEPT from an earlier run: its URL hasn't answered since"
	default:
		detail += ", awaited"
	}
	if from.Failure != nil {
		detail += ", FAILING: " + firstLineOf(from.Failure)
	}
	return detail
}

// firstLineOf leaves out what follows: it quotes the policy, which is the log's.
func firstLineOf(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
