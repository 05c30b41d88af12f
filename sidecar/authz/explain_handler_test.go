package authz_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/authz"
)

func TestExplainMustBeAllowed(t *testing.T) {
	e := engine(t, document(), `decision := true`, time.Second)
	if _, err := e.Explain(context.Background(), []byte(body("live")), ""); !errors.Is(err, authz.ErrExplainNotAllowed) {
		t.Errorf("got %v", err)
	}
	for _, test := range []struct {
		allowed       bool
		query         string
		status        int
		code, contain string
	}{
		{false, "", 200, "", `"decision":true`},
		{false, "?explain=false", 200, "", `"decision":true`},
		{false, "?x=1&%zz", 200, "", `"decision":true`},
		{false, "?explain=true", 403, "explain_not_allowed", "--allow-explain"},
		{true, "?explain=true", 200, "", `"explanation":{"decided":{"rule":"data.test.decision","at":"test.rego:2"`},
		{true, "?explain=false", 200, "", `"decision":true`},
		{true, "?explain=1", 400, "malformed_query", "true or false"},
		{true, "?explain", 400, "malformed_query", "true or false"},
		{true, "?explain=true&explain=true", 400, "malformed_query", "once"},
	} {
		e := engine(t, document(), `decision := true`, time.Second)
		if test.allowed {
			e = engineThatExplains(t, document(), `decision := true`, time.Second)
		}
		w := httptest.NewRecorder()
		handler(e).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/authorize"+test.query, strings.NewReader(body("live"))))
		explained := strings.Contains(w.Body.String(), `"explanation"`)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.code) || !strings.Contains(w.Body.String(), test.contain) || explained != (test.allowed && test.query == "?explain=true") {
			t.Errorf("%s: got %d %s", test.query, w.Code, w.Body)
		}
	}
}

type recording struct {
	decision authz.Decision
	answer   string
}

func (r *recording) Record(d authz.Decision, answer []byte, _ int) {
	r.decision, r.answer = d, string(answer)
}

// What a decision log gets has no explanation: that quotes the question, in which the log's
// mask could not find what it is to hide.
func TestExplanationIsNotRecorded(t *testing.T) {
	e := engineThatExplains(t, document(), `decision if input.subject.id == "somebody else"`, time.Second)
	var got recording
	w := httptest.NewRecorder()
	authz.NewHandler(e, &got, slog.New(slog.DiscardHandler)).
		ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/authorize?explain=true", strings.NewReader(body("live"))))
	if !strings.Contains(w.Body.String(), `"explanation"`) {
		t.Fatalf("got %s, want an explanation for who asks", w.Body)
	}
	if got.decision.Explanation != nil || strings.Contains(got.answer, "explanation") || !strings.Contains(got.answer, got.decision.ID) {
		t.Errorf("got %s recorded, want the answer without its explanation", got.answer)
	}
}
