package authz_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/authz"
)

// An explanation that isn't asked for costs nothing: not one allocation.
func TestExplainCostsNothingUnused(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools forget")
	}
	rego := `decision := {"decision": true, "reasons": {"granted"}} if { data.scalekit.permissions[input.action.name]; input.subject.type == "user" }`
	for name, e := range map[string]*authz.Engine{
		"not allowed": engine(t, document(), rego, time.Second), "allowed": engineThatExplains(t, document(), rego, time.Second),
	} {
		if got := allocations(t, e); got > mostAllocations {
			t.Errorf("%s: %v allocations, want at most %d", name, got, mostAllocations)
		}
	}
}

// mostAllocations of one request with that policy and its recorder, as it was before explanations.
const mostAllocations = 140

func allocations(t *testing.T, e *authz.Engine) float64 {
	h := authz.NewHandler(e, nil, slog.New(slog.DiscardHandler))
	question := body("live")
	return testing.AllocsPerRun(300, func() {
		w := httptest.NewRecorder()
		request, err := http.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(question))
		if err != nil {
			t.Fatal(err)
		}
		if h.ServeHTTP(w, request); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	})
}

// The built-in policy, with and without an explanation.
func BenchmarkExplain(b *testing.B) {
	s := scenes()["permission_deleted"]
	e, _ := s.engine(b)
	question := []byte(s.question)
	for name, ask := range map[string]func(context.Context, []byte, string) (authz.Decision, error){"decided": e.Decide, "explained": e.Explain} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ask(context.Background(), question, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
