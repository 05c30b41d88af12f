package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/token"
)

const (
	rememberedTokens = 10_000  // verified ones, by their hash
	rememberedBytes  = 8 << 20 // of their text; with claims of 5 bytes for each of it that is 40 MiB
	keysCacheName    = "keys.json"
	longestLeeway    = 5 * time.Minute
)

// tokenConfig is how access tokens are verified.
type tokenConfig struct {
	issuer     string
	audiences  []string
	algorithms []string
	keysURL    string
	keysFile   string
	leeway     time.Duration
	required   string // "true" or "false", "" for what follows from the issuer
}

func (c *tokenConfig) settings() []setting {
	return []setting{
		{
			name: "issuer", secret: true, set: issuerURL(&c.issuer),
			help: "issuer of the access tokens that questions may carry: the URL of the Scalekit environment, exactly as tokens say it",
		},
		{
			name: "audience", repeat: true, set: list(&c.audiences),
			help: "audience that an access token must be for; repeatable, one of them is enough; required with --issuer",
		},
		{
			name: "jwks-url", secret: true, set: issuerURL(&c.keysURL),
			help: "where the issuer's keys are, instead of asking its discovery document",
		},
		{
			name: "jwks-file", set: text(&c.keysFile),
			help: "file with the issuer's keys, instead of fetching them; its changes are followed",
		},
		{
			name: "token-algorithm", repeat: true, set: list(&c.algorithms),
			help: "signature algorithm to accept, repeatable: " + strings.Join(token.Algorithms(), ", ") + " (default RS256)",
		},
		{
			name: "token-leeway", initial: "30s", set: leeway(&c.leeway),
			help: "how far this machine's clock and the issuer's may differ, up to 5m",
		},
		{
			name: "require-token", bare: true, set: oneOf(&c.required, "true", "false"),
			help: "deny a question without an access token that is good, whatever the policy says (default true with --issuer)",
		},
	}
}

// verifies reports whether access tokens can be verified.
func (c *tokenConfig) verifies() bool { return c.issuer != "" }

// requires reports whether a question needs one.
func (c *tokenConfig) requires() bool { return c.verifies() && c.required != "false" }

// check looks at what the settings mean together.
func (c *tokenConfig) check() error {
	switch {
	case !c.verifies() && (len(c.audiences) > 0 || c.keysURL != "" || c.keysFile != "" || len(c.algorithms) > 0):
		return usagef("--audience, --jwks-url, --jwks-file, --token-algorithm: want --issuer with them, got none")
	case !c.verifies() && c.required == "true":
		return usagef("--require-token: want --issuer with it, got none; no token could ever be good")
	case c.verifies() && len(c.audiences) == 0:
		return usagef("--audience: want the audience that access tokens are for, got none; tokens for other apps of the issuer would be taken otherwise")
	case c.keysURL != "" && c.keysFile != "":
		return usagef("--jwks-url, --jwks-file: want one of them, got both")
	}
	for _, name := range c.algorithms {
		if !slices.Contains(token.Algorithms(), name) {
			return usagef("--token-algorithm: want some of %s, got %.40q", strings.Join(token.Algorithms(), ", "), name)
		}
	}
	return nil
}

// leeway is a duration that may be nothing.
func leeway(into *time.Duration) func([]string) error {
	return single(func(value string) error {
		parsed, err := time.ParseDuration(value)
		if err != nil || parsed < 0 || parsed > longestLeeway {
			return errors.New("want a time from 0s to 5m")
		}
		*into = parsed
		return nil
	})
}

// issuerURL takes https, and http on loopback. It doesn't normalize: an issuer is compared to the byte.
func issuerURL(into *string) func([]string) error {
	return single(func(value string) error {
		parsed, err := url.Parse(value)
		switch {
		case err != nil || parsed.Hostname() == "" || parsed.Opaque != "":
			return errors.New("want an absolute URL such as https://NAME.scalekit.com")
		case parsed.User != nil || strings.ContainsAny(value, "?#"):
			return errors.New("want no user, query or fragment in it")
		case parsed.Scheme != "https" && (parsed.Scheme != "http" || !listener.IsLoopbackHost(parsed.Hostname())):
			return errors.New("want https (http on a loopback address alone)")
		}
		*into = value
		return nil
	})
}

// newTokenVerifier makes what verifies access tokens. It fetches nothing yet.
func (s *sidecar) newTokenVerifier() (*token.Verifier[ast.Value], error) {
	c := s.config.token
	verifier, err := token.New(token.Config[ast.Value]{
		Issuer: c.issuer, Audiences: c.audiences, Algorithms: c.algorithms, Leeway: c.leeway,
		KeysURL: c.keysURL, KeysFile: c.keysFile, CacheFile: filepath.Join(s.config.dataDir, keysCacheName),
		Remember: rememberedTokens, RememberBytes: rememberedBytes, Decode: authz.ParseClaims,
		Now: time.Now, Logger: s.logger.With("room", "token"), Meter: s.telemetry.Meter(),
	})
	if err != nil {
		return nil, usagef("--issuer, --audience, --jwks-url, --jwks-file: %v", err)
	}
	return verifier, nil
}

// refreshKeys fetches the issuer's keys now.
func (s *sidecar) refreshKeys(ctx context.Context) {
	if s.tokens == nil {
		return
	}
	if err := s.tokens.Refresh(ctx); err != nil {
		s.logger.Warn("the issuer's keys could not be fetched; those that are known stay", "error", err)
	}
}

// tokenCheck says how the issuer's keys stand.
func (s *sidecar) tokenCheck() check {
	at := s.tokens.Status()
	detail := strconv.Itoa(at.Keys) + " keys"
	if !at.FetchedAt.IsZero() {
		detail += ", fetched " + at.FetchedAt.UTC().Format(time.RFC3339)
	}
	if at.Failure != nil {
		detail += fmt.Sprintf(", FAILING: %v", at.Failure)
	}
	return check{"token_keys", true, detail}
}
