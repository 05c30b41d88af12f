package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// rememberedTokens is how many verified tokens Postern remembers (sidecar/tokens.go). OPA's
	// cache gets as much room where it is on.
	rememberedTokens = 10_000
	// underLoad are the new tokens of the questions that many connections ask, and aloneTokens
	// those of the questions that are asked one at a time. They are used one after the other;
	// when the first one comes again, it was forgotten: Postern's own counters confirm that.
	underLoad   = 3 * rememberedTokens
	aloneTokens = rememberedTokens
)

// opaTokenCache turns on OPA's cache of verified tokens, which is off as shipped (OPA's
// configuration, caching.inter_query_builtin_value_cache).
var opaTokenCache = fmt.Sprintf("--set=caching.inter_query_builtin_value_cache.named.io_jwt.max_num_entries=%d", rememberedTokens)

// tokenKind is which access token the questions carry.
type tokenKind int

const (
	withoutToken  tokenKind = iota
	repeatedToken           // the same one in each question
	newToken                // one that the server has never seen, or has forgotten
	tokenKinds
)

func (k tokenKind) String() string {
	return [tokenKinds]string{"without", "repeated", "new"}[k]
}

// tokens is the suite of questions that carry an access token.
type tokens struct {
	*field
	traces tokenTraces

	sidecars       [tokenKinds]*sidecar
	postern, opa   [tokenKinds]*contender
	opaRemembering *contender // with its cache, asked with the repeated token

	alone   map[*contender]*lone
	counted [tokenKinds]verifications // of Postern, in the rounds
}

// runTokens measures questions with and without an access token, beside OPA's builtin.
func runTokens(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	t := &tokens{field: f, alone: map[*contender]*lone{}}
	if err := t.prepare(ctx); err != nil {
		return told, err
	}
	if err := t.refuseForged(ctx); err != nil {
		return told, err
	}
	if err := t.warmUp(ctx, t.contenders()); err != nil {
		return told, err
	}
	before, err := t.verifications(ctx)
	if err != nil {
		return told, err
	}
	for round := range o.rounds {
		if err := t.round(ctx, round, t.contenders()); err != nil {
			return told, err
		}
		if err := t.askAlone(ctx); err != nil {
			return told, fmt.Errorf("asking one question at a time: %w", err)
		}
	}
	if err := t.count(ctx, before); err != nil {
		return told, err
	}
	return t.report()
}

// contenders returns the servers in the order of a round: what is compared stands close.
func (t *tokens) contenders() []*contender {
	return []*contender{
		t.opa[newToken], t.postern[newToken], t.postern[withoutToken], t.postern[repeatedToken],
		t.opaRemembering, t.opa[repeatedToken], t.opa[withoutToken],
	}
}

// prepare signs the tokens, builds the servers and starts all of them.
func (t *tokens) prepare(ctx context.Context) error {
	if err := errors.Join(t.buildPostern(ctx), t.buildOPA(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(t.progress, "signing %d tokens\n", underLoad+aloneTokens)
	m, err := newMint(t.catalog.firstHeld())
	if err != nil {
		return err
	}
	if t.traces, err = m.traces(underLoad, aloneTokens); err != nil {
		return err
	}
	keys, err := m.keySet()
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.path("jwks.json"), keys, 0o600); err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	if err := judgeTokensIn(t.path("policies"), keys); err != nil {
		return err
	}
	return t.start(ctx)
}

// start starts a server of each make for each kind of question.
func (t *tokens) start(ctx context.Context) (err error) {
	for kind := range tokenKinds {
		name := "postern-" + kind.String()
		flags := []string{"--issuer", tokenIssuer, "--audience", tokenAudience, "--jwks-file", t.path("jwks.json")}
		if kind == withoutToken {
			flags = append(flags, "--require-token=false")
		}
		s, err := t.startPostern(ctx, posternSetup{name: name, dataDir: t.path(name), flags: flags})
		if err != nil {
			return err
		}
		t.sidecars[kind] = s
		t.postern[kind] = t.contender(name, s.server, posternTarget, kind)
		if t.opa[kind], err = t.startAccess(ctx, "opa-"+kind.String(), kind); err != nil {
			return err
		}
	}
	t.opaRemembering, err = t.startAccess(ctx, "opa-remembering", repeatedToken, opaTokenCache)
	return err
}

func (t *tokens) startAccess(ctx context.Context, name string, kind tokenKind, flags ...string) (*contender, error) {
	s, err := t.startOPA(ctx, name, nil, append(flags, "--log-level", "error")...)
	if err != nil {
		return nil, err
	}
	return t.contender(name, s, opaTarget, kind), nil
}

func (t *tokens) contender(name string, s *server, ask func(addr string, trace []question) *target, kind tokenKind) *contender {
	c := &contender{name: name, server: s, target: ask(s.addr, t.traces.loaded[kind])}
	t.alone[c] = &lone{target: ask(s.addr, t.traces.alone[kind])}
	return c
}

// refuseForged makes sure that servers look at tokens: each denies one that another key
// signed.
func (t *tokens) refuseForged(ctx context.Context) error {
	var errs []error
	for _, c := range []*contender{t.postern[repeatedToken], t.postern[newToken]} {
		errs = append(errs, posternTarget(c.server.addr, t.traces.forged).askEach(ctx, 1))
	}
	for _, c := range []*contender{t.opa[repeatedToken], t.opa[newToken], t.opaRemembering} {
		errs = append(errs, opaTarget(c.server.addr, t.traces.forged).askEach(ctx, 1))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("asking with a forged token: %w", err)
	}
	return nil
}

func (t *tokens) verifications(ctx context.Context) (counted [tokenKinds]verifications, err error) {
	for kind, s := range t.sidecars {
		if counted[kind], err = s.verifications(ctx); err != nil {
			return counted, err
		}
	}
	return counted, nil
}

// count takes what Postern counted since before, and makes sure that new tokens were new,
// and repeated ones repeated.
func (t *tokens) count(ctx context.Context, before [tokenKinds]verifications) error {
	after, err := t.verifications(ctx)
	if err != nil {
		return err
	}
	for kind := range tokenKinds {
		t.counted[kind] = after[kind].since(before[kind])
		if err := t.counted[kind].check(kind); err != nil {
			return err
		}
	}
	return nil
}
