package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/permission"
)

// evaluate asks one expression of a policy over the catalog's document.
func evaluate(c *Catalog, expression string) (any, error) {
	results, err := rego.New(
		rego.Query(expression), rego.Store(c.Document(inmem.New())), rego.StrictBuiltinErrors(true),
		rego.Input(map[string]any{"name": "a", "names": []any{"a", "b", "nobody"}}),
	).Eval(context.Background())
	if err != nil || len(results) == 0 {
		return nil, err
	}
	return results[0].Expressions[0].Value, nil
}

// What Rego does with a collection works, keyed or whole, and only what needs all of it
// builds it.
func TestWhatPoliciesDoWithTheDocument(t *testing.T) {
	var built atomic.Int64
	c := openHooked(t, t.TempDir(), hooks{collect: func() { built.Add(1) }}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", "first"), described(permission.Created, 1, "b", "second"), described(permission.Created, 1, "gone", ""), described(permission.Deleted, 2, "gone", ""))
	for _, test := range []struct {
		expression string
		want       string
		whole      bool
	}{
		{`data.scalekit.permissions[input.name].description`, "first", false},
		{`[n | some n in input.names; data.scalekit.permissions[n]]`, "[a b]", false},
		{`every n in ["a", "b"] { data.scalekit.permissions[n].name == n }`, "true", false},
		{`data.scalekit.deleted.gone.id`, "perm_gone", false},
		{`data.scalekit.sync.count`, "2", false},
		{`count(data.scalekit.permissions)`, "2", true},
		{`{n | data.scalekit.permissions[n]}`, "[a b]", true},
		{`[r.description | some r in data.scalekit.permissions]`, "[first second]", true},
		{`object.keys(data.scalekit.permissions)`, "[a b]", true},
		{`object.get(data.scalekit.permissions, ["b", "id"], "none")`, "perm_b", true},
		{`count(data.scalekit.deleted)`, "1", true},
		{`object.keys(data.scalekit)`, "[deleted permissions roles sync]", true},
		{`count([p | walk(data.scalekit.permissions, [p, "second"])])`, "1", true},
		{`object.keys(data)`, "[scalekit]", true},
	} {
		mustApply(t, c, described(permission.Updated, 10+int64(c.Sync().Revision), "a", "first")) // a revision that nobody has read
		before := built.Load()
		got, err := evaluate(c, test.expression)
		if err != nil || fmt.Sprint(got) != test.want {
			t.Errorf("%s: got %v, %v, want %s", test.expression, got, err, test.want)
		}
		if whole := built.Load() > before; whole != test.whole {
			t.Errorf("%s: built a whole document: %v", test.expression, whole)
		}
	}
}

// Many ask for the same document at once: one of them builds it, and later ones find it.
func TestAWholeDocumentIsBuiltOnce(t *testing.T) {
	var built atomic.Int64
	begun, proceed := make(chan struct{}, 16), make(chan struct{})
	c := openHooked(t, t.TempDir(), hooks{collect: func() { built.Add(1); begun <- struct{}{}; <-proceed }}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", ""))
	at := c.current.Load()
	var wg sync.WaitGroup
	ask := func() {
		wg.Go(func() {
			if whole, err := c.whole(context.Background(), at, livePermissions); err != nil || whole.Len() != 1 {
				t.Errorf("got %v, %v", whole, err)
			}
		})
	}
	ask()
	<-begun
	for range 8 {
		ask()
	}
	// One of those who wait gives up, which disturbs nobody else.
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.whole(impatient, at, livePermissions); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(proceed)
	wg.Wait()
	ask()
	wg.Wait()
	if got := built.Load(); got != 1 {
		t.Errorf("built %d times", got)
	}
}

// A builder whose question ends leaves the work to the next one.
func TestACancelledBuilderLeavesTheWorkToTheNext(t *testing.T) {
	var cancel context.CancelFunc
	c := openHooked(t, t.TempDir(), hooks{collect: func() { cancel() }}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", ""))
	ctx, stop := context.WithCancel(context.Background())
	cancel = stop
	at := c.current.Load()
	if _, err := c.whole(ctx, at, livePermissions); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	cancel = func() {}
	if whole, err := c.whole(context.Background(), at, livePermissions); err != nil || whole.Len() != 1 {
		t.Errorf("got %v, %v", whole, err)
	}
}
