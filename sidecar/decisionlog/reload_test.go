package decisionlog_test

import (
	"fmt"
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
