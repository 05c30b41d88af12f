package catalog

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/permission"
)

// questions is raised to a million where there is time for it.
var questions = flag.Int64("questions", 20_000, "questions of TestNoTornAnswers")

// A policy reads two permissions that always change together in one commit, and the revision,
// while commits follow each other without a pause. Nothing else is read: OPA would read a
// whole document first and answer everything from it, which would hide a tear.
func TestNoTornAnswers(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1) // the two push each other out
	both := func(version int64) {
		_, err := c.submit(context.Background(), func(tr *transaction) (permission.Outcome, error) {
			for _, name := range []string{"left", "right"} {
				if _, err := tr.applyEvent(described(permission.Updated, version, name, fmt.Sprint(version)).State()); err != nil {
					return "", err
				}
			}
			return permission.OutcomeApplied, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	both(1)
	query, err := rego.New(
		rego.Query("data.pair.answer"), rego.Store(c.Document(inmem.New())),
		rego.Module("pair.rego", `package pair
			answer := [
				data.scalekit.permissions[input.first].description,
				data.scalekit.permissions[input.second].description,
				sprintf("%d", [data.scalekit.sync.revision]),
			]`),
	).PrepareForEval(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var left atomic.Int64
	left.Store(*questions)
	var askers sync.WaitGroup
	inputs := []map[string]any{{"first": "left", "second": "right"}, {"first": "right", "second": "left"}}
	for i := range 4 {
		askers.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				results, err := query.Eval(context.Background(), rego.EvalInput(inputs[i%2]))
				if err != nil || len(results) != 1 {
					t.Errorf("got %v, %v", results, err)
					return
				}
				if got := results[0].Expressions[0].Value.([]any); got[0] != got[1] || got[0] != got[2] {
					t.Errorf("a torn answer: %v", got)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { askers.Wait(); close(done) }()
	version := int64(2)
	for ; ; version++ {
		select {
		case <-done:
			t.Logf("%d questions, %d commits", *questions, version)
			return
		default:
			both(version)
		}
	}
}
