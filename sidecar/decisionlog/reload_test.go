package decisionlog_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A new policy and a decision that is logged meanwhile don't wait for each other for ever:
// the first decision after a policy prepares its mask.
func TestPoliciesComeWhileDecisionsAreLogged(t *testing.T) {
	const policies = 3000
	f := newFixture(t, quick, nil)
	compiler, err := ast.CompileModules(map[string]string{"log.rego": "package system.log\n\nmask contains \"/input/subject\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range policies {
			f.Record(entry(fmt.Sprint(n)), 100)
			if err := f.Use(t.Context(), compiler, map[string]any{}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a policy waits for a decision that waits for it")
	}
	f.close(t)
}

// A service that takes an upload and never answers doesn't keep the process from its end.
func TestAServiceThatHangsDoesntHoldUpTheEnd(t *testing.T) {
	asked, end := make(chan struct{}, 100), make(chan struct{})
	f := newFixture(t, quick, func() int {
		asked <- struct{}{}
		<-end
		return http.StatusOK
	})
	t.Cleanup(func() { close(end) })
	f.Record(entry("d-1"), 100)
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is uploaded")
	}
	const allowed = 300 * time.Millisecond
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), allowed)
	defer stop()
	began := time.Now()
	err := f.Close(ctx)
	if took := time.Since(began); took > allowed+2*time.Second {
		t.Errorf("closing took %v: %v", took, err)
	}
}
