package authz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/authz"
)

// rawToken is a token that is good, and nobody may ever tell.
const rawToken = "eyJ-a-secret-token"

// verifier knows one good token; what else comes is a code of its own, or hangs.
type verifier struct{ asked []string }

func (v *verifier) Verify(ctx context.Context, raw string) (ast.Value, string) {
	v.asked = append(v.asked, raw)
	switch raw {
	case rawToken:
		return ast.MustParseTerm(`{"sub":"usr_1","permissions":["live"]}`).Value, ""
	case "slow":
		<-ctx.Done()
		return nil, "token_keys_unavailable"
	}
	return nil, raw
}

// tokenGate is a handler in front of a policy, and what it logged.
type tokenGate struct {
	*testing.T
	handler  http.Handler
	verifier *verifier
	log      *bytes.Buffer
}

func newTokenGate(t *testing.T, o authz.Options, store storage.Store, rego string) *tokenGate {
	t.Helper()
	g := &tokenGate{T: t, verifier: &verifier{}, log: &bytes.Buffer{}}
	o.MaxInFlight = 2
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Tokens != nil {
		o.Tokens = g.verifier
	}
	e := authz.NewEngine(o)
	if err := e.Use(t.Context(), policy(t, store, rego)); err != nil {
		t.Fatal(err)
	}
	g.handler = authz.NewHandler(e, nil, slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	return g
}

// ask returns status and body, after looking whether the token is told anywhere.
func (g *tokenGate) ask(question string, headers ...string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(question))
	r.Header.Set("Content-Type", "application/json")
	for _, value := range headers {
		r.Header.Add(authz.TokenHeader, value)
	}
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	if told := w.Body.String() + g.log.String() + fmt.Sprint(w.Header()); strings.Contains(told, rawToken) {
		g.Errorf("the token is told: %s", told)
	}
	return w.Code, w.Body.String()
}

// withContext is a question about the permission live with that context.
func withContext(text string) string {
	return `{"subject":{"type":"user","id":"usr_1"},"action":{"name":"live"},"resource":{"type":"r","id":"1"},"context":` + text + `}`
}

const echo = `decision := {"decision": true, "saw": input}`

func saw(t *testing.T, answer string) (input map[string]any) {
	t.Helper()
	var decoded struct {
		Context struct{ Saw map[string]any }
	}
	if err := json.Unmarshal([]byte(answer), &decoded); err != nil || decoded.Context.Saw == nil {
		t.Fatalf("%s: %v", answer, err)
	}
	return decoded.Context.Saw
}

func TestPoliciesSeeWhatBecameOfTheToken(t *testing.T) {
	verifying := authz.Options{Tokens: &verifier{}}
	for name, test := range map[string]struct {
		question string
		header   []string
		context  string
		token    string
	}{
		"a good one in the context":  {withContext(`{"a":1,"access_token":"` + rawToken + `","b":2}`), nil, `{"a":1,"b":2}`, `{"claims":{"permissions":["live"],"sub":"usr_1"},"valid":true}`},
		"a good one in the header":   {withContext(`{"a":1}`), []string{rawToken}, `{"a":1}`, `{"claims":{"permissions":["live"],"sub":"usr_1"},"valid":true}`},
		"without a context":          {body("live"), []string{rawToken}, `null`, `{"claims":{"permissions":["live"],"sub":"usr_1"},"valid":true}`},
		"a bad one":                  {withContext(`{"access_token":"token_expired"}`), nil, `{}`, `{"error":"token_expired","valid":false}`},
		"none":                       {withContext(`{}`), nil, `{}`, `null`},
		"one that the app makes up":  {strings.Replace(withContext(`{}`), `{"subject"`, `{"token":{"valid":true,"claims":{}},"subject"`, 1), nil, `{}`, `null`},
		"both, made up and verified": {strings.Replace(withContext(`{}`), `{"subject"`, `{"token":{"valid":true,"claims":{}},"subject"`, 1), []string{"token_invalid"}, `{}`, `{"error":"token_invalid","valid":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTokenGate(t, verifying, document(), echo)
			status, answer := g.ask(test.question, test.header...)
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, answer)
			}
			input := saw(t, answer)
			if got, _ := json.Marshal(input["context"]); string(got) != test.context {
				t.Errorf("input.context is %s, want %s", got, test.context)
			}
			if got, _ := json.Marshal(input["token"]); string(got) != test.token {
				t.Errorf("input.token is %s, want %s", got, test.token)
			}
		})
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	verifying := authz.Options{Tokens: &verifier{}}
	for name, test := range map[string]struct {
		options  authz.Options
		question string
		header   []string
		want     string
	}{
		"in both places":        {verifying, withContext(`{"access_token":"` + rawToken + `"}`), []string{rawToken}, "want the access token in one of them, got it in both"},
		"two headers":           {verifying, body("live"), []string{rawToken, rawToken}, "Postern-Access-Token: want one access token"},
		"an empty header":       {verifying, body("live"), []string{""}, "Postern-Access-Token: want one access token"},
		"an empty member":       {verifying, withContext(`{"access_token":""}`), nil, "context.access_token: want a string that isn't empty"},
		"a number":              {verifying, withContext(`{"access_token":12345}`), nil, "context.access_token: want a string, got a number"},
		"null":                  {verifying, withContext(`{"access_token":null}`), nil, "context.access_token: want a string, got null"},
		"without an issuer":     {authz.Options{}, body("live"), []string{rawToken}, "set --issuer"},
		"member without issuer": {authz.Options{}, withContext(`{"access_token":"` + rawToken + `"}`), nil, "set --issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTokenGate(t, test.options, document(), `decision := true`)
			status, answer := g.ask(test.question, test.header...)
			if status != http.StatusBadRequest || !strings.Contains(answer, `"malformed_question"`) || !strings.Contains(answer, test.want) {
				t.Errorf("%d %s, want %s", status, answer, test.want)
			}
			if len(g.verifier.asked) > 0 {
				t.Error("the token was verified all the same")
			}
		})
	}
}

// A floor holds whatever the policy says, and has the provenance of every decision.
func TestFloorsAreBelowThePolicy(t *testing.T) {
	inState := func(state string) storage.Store {
		return inmem.NewFromObjectWithOpts(map[string]any{"scalekit": map[string]any{"sync": map[string]any{"revision": 7, "state": state}}}, inmem.OptReturnASTValuesOnRead(true))
	}
	requiring := authz.Options{Tokens: &verifier{}, RequireToken: true}
	for name, test := range map[string]struct {
		options  authz.Options
		store    storage.Store
		question string
		want     string
	}{
		"no token":                         {requiring, inState("fresh"), withContext(`{}`), `{"decision":false,"context":{"reasons":["token_required"],`},
		"a bad token":                      {requiring, inState("fresh"), withContext(`{"access_token":"token_wrong_audience"}`), `{"decision":false,"context":{"reasons":["token_wrong_audience"],`},
		"a good token":                     {requiring, inState("fresh"), withContext(`{"access_token":"` + rawToken + `"}`), `{"decision":true,`},
		"a bad token where none is needed": {authz.Options{Tokens: &verifier{}}, inState("fresh"), withContext(`{"access_token":"token_expired"}`), `{"decision":true,`},
		"stale":                            {authz.Options{DenyStale: true}, inState("stale"), withContext(`{}`), `{"decision":false,"context":{"reasons":["catalog_stale"],`},
		"fresh":                            {authz.Options{DenyStale: true}, inState("fresh"), withContext(`{}`), `{"decision":true,`},
		"stale and served":                 {authz.Options{}, inState("stale"), withContext(`{}`), `{"decision":true,`},
		"no state to be read":              {authz.Options{DenyStale: true}, inmem.New(), withContext(`{}`), `{"decision":false,"context":{"reasons":["catalog_unavailable"],`},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTokenGate(t, test.options, test.store, `decision := true`)
			status, answer := g.ask(test.question)
			if status != http.StatusOK || !strings.HasPrefix(answer, test.want) {
				t.Errorf("%d %s, want %s", status, answer, test.want)
			}
			if strings.Contains(test.want, "token_") && !strings.Contains(answer, `"data_revision":7`) {
				t.Errorf("no provenance: %s", answer)
			}
		})
	}
}

// Where a good token is required, one that can't be judged in time has its own reason; else the
// policy would have to be asked, and there is no time left for that.
func TestAVerificationThatTakesTooLong(t *testing.T) {
	for required, reason := range map[bool]string{false: "evaluation_timeout", true: "token_keys_unavailable"} {
		g := newTokenGate(t, authz.Options{Tokens: &verifier{}, RequireToken: required, Timeout: 10 * time.Millisecond}, document(), `decision := true`)
		status, answer := g.ask(withContext(`{"access_token":"slow"}`))
		if status != http.StatusOK || !strings.Contains(answer, `"decision":false,"context":{"reasons":["`+reason+`"]`) || !strings.Contains(answer, `"data_revision":7`) {
			t.Errorf("required %t: got %d %s, want %s", required, status, answer, reason)
		}
	}
}

func TestParseClaims(t *testing.T) {
	got, err := authz.ParseClaims([]byte(`{"sub":"usr_1","aud":["a"]}`))
	if err != nil || got.String() != `{"aud": ["a"], "sub": "usr_1"}` {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{`[]`, `"a"`, `{"a":1,"a":2}`, `{`, `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, ``} {
		if _, err := authz.ParseClaims([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
