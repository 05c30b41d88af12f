package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// firstHeld are the permissions that the subject of all tokens holds.
func (c *catalog) firstHeld() []string {
	held := make([]string, heldCount)
	for i := range held {
		held[i] = c.live[i].Name
	}
	return held
}

// Members of a question's context: where servers look for a token, and one of the same length
// that nobody reads.
const (
	accessToken = "access_token"
	unreadToken = "unread_token"
)

// tokenTraces are what is asked. It is the same for each kind, but for the token, and all of
// it is allowed. Where questions are asked one at a time, those without a token carry one that
// nobody reads, so that a token doesn't add its bytes.
type tokenTraces struct {
	loaded [tokenKinds][]question // over many connections
	alone  [tokenKinds][]question // one at a time
	forged []question             // with a token that another key signed; denied
}

// traces signs so many new tokens for the questions over many connections, and so many for
// those that are asked one at a time.
func (m *mint) traces(loaded, alone int) (t tokenTraces, err error) {
	signed, err := m.issueAll(loaded + alone + 1)
	if err != nil {
		return t, err
	}
	same := func(int) string { return signed[loaded+alone] }
	without, err1 := m.trace(heldCount, accessToken, nil)
	unread, err2 := m.trace(heldCount, unreadToken, same)
	repeated, err3 := m.trace(heldCount, accessToken, same)
	freshLoaded, err4 := m.trace(loaded, accessToken, func(i int) string { return signed[i] })
	freshAlone, err5 := m.trace(alone, accessToken, func(i int) string { return signed[loaded+i] })
	forged, err6 := m.forgedTrace()
	return tokenTraces{
		loaded: [tokenKinds][]question{without, repeated, freshLoaded},
		alone:  [tokenKinds][]question{unread, repeated, freshAlone},
		forged: forged,
	}, errors.Join(err1, err2, err3, err4, err5, err6)
}

// forgedTrace is a question whose token another key signed, in the name of the right one.
func (m *mint) forgedTrace() ([]question, error) {
	forger, err := newMint(m.held)
	if err != nil {
		return nil, err
	}
	forged, err := forger.issue(0, time.Now())
	if err != nil {
		return nil, err
	}
	trace, err := m.trace(1, accessToken, func(int) string { return forged })
	for i := range trace {
		trace[i].allow, trace[i].reason = false, "token_invalid"
	}
	return trace, err
}

// trace asks for what the subject holds, one permission after the other, with a token in a
// member of the context; nil: without one.
func (m *mint) trace(length int, member string, token func(i int) string) ([]question, error) {
	trace := make([]question, length)
	for i := range trace {
		name := m.held[i%len(m.held)]
		carried := map[string]any{}
		if token != nil {
			carried[member] = token(i)
		}
		body, err := json.Marshal(map[string]any{
			"subject": map[string]any{
				"type": "user", "id": tokenSubject, "properties": map[string]any{"permissions": m.held},
			},
			"action":   map[string]any{"name": name},
			"resource": map[string]any{"type": "dataset", "id": "ds_000001"},
			"context":  carried,
		})
		if err != nil {
			return nil, fmt.Errorf("rendering a question: %w", err)
		}
		trace[i] = question{body: body, name: name, allow: true, reason: "granted"}
	}
	return trace, nil
}

// accessRule tells OPA's policies what Postern tells its own as input.token. What the builtin
// verifies with is part of the text, where it costs nothing to look up.
const accessRule = `package access

token := {"valid": true, "claims": claims} if {
	[valid, _, claims] := io.jwt.decode_verify(input.context.access_token, %s)
	valid
} else := {"valid": false, "error": "token_invalid"} if input.context.access_token
`

// judgeTokensIn adds that rule to the policies of a directory. They read it where they read
// input.token in Postern, and stay the same otherwise.
func judgeTokensIn(policies string, keys []byte) error {
	with, err := json.Marshal(map[string]string{"cert": string(keys), "alg": "RS256", "iss": tokenIssuer, "aud": tokenAudience})
	if err != nil {
		return fmt.Errorf("rendering a policy: %w", err)
	}
	if err := os.WriteFile(filepath.Join(policies, "access.rego"), fmt.Appendf(nil, accessRule, with), 0o600); err != nil {
		return fmt.Errorf("writing a policy: %w", err)
	}
	path := filepath.Join(policies, "authz", "authz.rego")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("rewriting a policy: %w", err)
	}
	if !strings.Contains(string(text), "input.token") {
		return fmt.Errorf("rewriting %s: it doesn't read input.token", path)
	}
	return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "input.token", "data.access.token")), 0o600)
}
