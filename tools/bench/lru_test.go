package main

import (
	"context"
	"path/filepath"
	"testing"

	lake "github.com/postern-authz/postern/sidecar/catalog"
)

// smallComparison compares over a catalog of so few permissions that it takes no time.
func smallComparison(t *testing.T, large largeCatalog) *comparison {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := makeCatalog(context.Background(), dir, large.writeDump); err != nil {
		t.Fatal(err)
	}
	c, err := lake.Open(context.Background(), lake.Options{Dir: dir, LRUSize: 1, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	q := newComparison(c, large, 1)
	if q.txn, err = q.document.NewTransaction(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.document.Abort(context.Background(), q.txn)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

func TestFrontsCountTheSameHitsAsAnOracleWithRoomForAll(t *testing.T) {
	large := largeCatalog{live: 100, deleted: 2}
	q := smallComparison(t, large)
	for _, trace := range newLookupTraces(large, 400) {
		seen, hits, counted := map[string]bool{}, 0, 0
		for i, name := range trace.names {
			if trace.counted(i) {
				counted++
				if seen[name] {
					hits++
				}
			}
			seen[name] = true // an unknown name is asked for once
		}
		want := float64(hits) / float64(counted)
		for _, kind := range q.fronts {
			f, err := kind.make(2 * large.live)
			if err != nil {
				t.Fatal(err)
			}
			got, err := q.read(context.Background(), f, trace)
			if err != nil {
				t.Fatal(err)
			}
			if trace.readers == 1 && got.hitRatio != want {
				t.Errorf("%s on %s: want hit ratio %g, got %g", kind.name, trace.name, want, got.hitRatio)
			}
			if got.hitRatio <= 0 || got.hitRatio > 1 || got.perLookup <= 0 {
				t.Errorf("%s on %s: got %+v", kind.name, trace.name, got)
			}
		}
	}
}

func TestFrontsKeepNothingUnknown(t *testing.T) {
	q := smallComparison(t, largeCatalog{live: 10, deleted: 1})
	for _, kind := range q.fronts {
		f, err := kind.make(10)
		if err != nil {
			t.Fatal(err)
		}
		unknown := lookupTrace{"unknown", []string{"unheard-of:1"}, func(int) bool { return true }, 1}
		if _, err := q.read(context.Background(), f, unknown); err != nil {
			t.Fatal(err)
		}
		if _, kept := f.get("unheard-of:1"); kept {
			t.Errorf("%s keeps a name that isn't in the catalog", kind.name)
		}
	}
}
