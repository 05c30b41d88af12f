package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

var errInjected = errors.New("injected")

func openHooked(t testing.TB, dir string, h hooks, lruSize int) *Catalog {
	t.Helper()
	c, err := Open(context.Background(), Options{Dir: dir, EnvironmentID: permissiontest.EnvironmentID, LRUSize: lruSize, MaxDocument: Limit{10_000, 1 << 30}, Eager: true, hooks: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func described(kind permission.Kind, at int64, name, description string) permission.Event {
	return permission.Event{
		ID: fmt.Sprintf("evt_%s_%d", name, at), Kind: kind, OccurredAt: permission.Instant(1_700_000_000_000_000_000 + at),
		EnvironmentID: permissiontest.EnvironmentID, PermissionID: "perm_" + name, Name: name, Description: description,
	}
}

func mustApply(t testing.TB, c *Catalog, events ...permission.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := c.Apply(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// descriptionAt returns the description of a live permission at revision s, or "".
func descriptionAt(t testing.TB, c *Catalog, s *snapshot, name string) string {
	t.Helper()
	e, err := c.lookup(s, name)
	if err != nil {
		t.Fatal(err)
	}
	if e.permission() == nil {
		return ""
	}
	return string(e.live.Get(keyDescription).Value.(ast.String))
}

// A commit lands between the moment in which a reader read the file and the moment in
// which it fills the LRU. The reader must answer from its own revision, and what it read
// must not be found by later ones.
func TestACommitBetweenReadAndFill(t *testing.T) {
	var between atomic.Pointer[func()]
	c := openHooked(t, t.TempDir(), hooks{afterRead: func() {
		if do := between.Swap(nil); do != nil {
			(*do)()
		}
	}}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", "old"))
	pinned := c.current.Load()
	write := func() { mustApply(t, c, described(permission.Updated, 2, "a", "new")) }
	between.Store(&write)
	if got := descriptionAt(t, c, pinned, "a"); got != "old" {
		t.Errorf("the pinned revision says %q", got)
	}
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "new" {
		t.Errorf("the newest revision says %q: a stale record was filled in", got)
	}
}

// A reader pinned before a commit reads the file after it.
func TestAnOldRevisionStaysWhole(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", "one"), described(permission.Created, 1, "gone", "one"))
	pinned := c.current.Load()
	mustApply(t, c, described(permission.Updated, 2, "a", "two"), described(permission.Deleted, 3, "gone", ""), described(permission.Created, 4, "b", "one"), described(permission.Updated, 5, "a", "three"))
	for name, want := range map[string]string{"a": "one", "gone": "one", "b": ""} {
		if got := descriptionAt(t, c, pinned, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestARevisionOfTheEmptyCatalogStaysEmpty(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	pinned := c.current.Load()
	mustApply(t, c, described(permission.Created, 1, "a", "one"), described(permission.Updated, 2, "a", "two"))
	if got := descriptionAt(t, c, pinned, "a"); got != "" {
		t.Errorf("got %q", got)
	}
	if whole, err := c.whole(context.Background(), pinned, livePermissions); err != nil || whole.Len() != 0 {
		t.Errorf("got %v, %v", whole, err)
	}
}

// failing makes one commit fail, before or after it was persisted.
func failing(armed *atomic.Bool, persist bool) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		if !armed.CompareAndSwap(true, false) {
			return tx.Commit()
		}
		if !persist {
			return errInjected
		}
		return errors.Join(tx.Commit(), errInjected)
	}
}

// Crash points: a commit fails before it was persisted, or was persisted and the word of
// it was lost. Questions go on with the old revision, the event may be sent again, and
// the file agrees with memory in the end.
func TestFailedCommits(t *testing.T) {
	for _, persist := range []bool{false, true} {
		t.Run(fmt.Sprintf("persisted=%v", persist), func(t *testing.T) {
			var armed atomic.Bool
			dir := t.TempDir()
			c := openHooked(t, dir, hooks{commit: failing(&armed, persist)}, 10)
			mustApply(t, c, described(permission.Created, 1, "a", "old"), described(permission.Created, 1, "b", "other"))
			before := c.Sync()

			armed.Store(true)
			update := described(permission.Updated, 2, "a", "new")
			if _, err := c.Apply(context.Background(), update); !errors.Is(err, errInjected) {
				t.Fatalf("got %v", err)
			}
			if got := descriptionAt(t, c, c.current.Load(), "a"); got != "old" || c.Sync() != before {
				t.Errorf("what wasn't acknowledged is visible: %q, %+v", got, c.Sync())
			}
			if c.WriteError() == nil {
				t.Error("the failure is not told")
			}

			if _, err := c.Apply(context.Background(), update); err != nil {
				t.Fatal(err)
			}
			if got := descriptionAt(t, c, c.current.Load(), "a"); got != "new" || c.Sync().Revision != before.Revision+1 {
				t.Errorf("after the second delivery: %q, %+v", got, c.Sync())
			}
			if c.WriteError() != nil {
				t.Errorf("still failing: %v", c.WriteError())
			}
			compareWithFile(t, c, dir)
		})
	}
}

// Another event than the failed one must not be acknowledged over an unsettled commit.
func TestACommitInDoubtIsSettledBeforeTheNext(t *testing.T) {
	var failures atomic.Int32
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{commit: func(tx *bbolt.Tx) error {
		err := tx.Commit()
		if failures.Add(-1) >= 0 {
			return errors.Join(err, errInjected)
		}
		return err
	}}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", "old"))
	failures.Store(3)
	for i := range 3 {
		if _, err := c.Apply(context.Background(), described(permission.Updated, 2, "a", "new")); !errors.Is(err, errInjected) {
			t.Fatalf("delivery %d: %v", i, err)
		}
		if got := descriptionAt(t, c, c.current.Load(), "a"); got != "old" {
			t.Errorf("delivery %d: %q is visible", i, got)
		}
	}
	mustApply(t, c, described(permission.Created, 3, "b", "other"))
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "new" {
		t.Errorf("the settled commit says %q", got)
	}
	compareWithFile(t, c, dir)
}

// compareWithFile closes c and compares what it said with what its file says.
func compareWithFile(t *testing.T, c *Catalog, dir string) {
	t.Helper()
	said := c.Sync()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	reopened, err := Open(context.Background(), Options{Dir: dir, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reopened.Close() }()
	if got := reopened.Sync(); got != said {
		t.Errorf("the file says %+v, memory said %+v", got, said)
	}
	if report, err := reopened.Verify(context.Background(), nil); err != nil || len(report.Problems) > 0 { // inspects the file, too
		t.Errorf("not sound: %v %v", err, report.Problems)
	}
}

// Two names change together in each commit; no reader may see one without the other,
// with an LRU that holds neither for long.
func TestNoTornReads(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	both := func(version int) {
		_, err := c.submit(context.Background(), func(tr *transaction) (permission.Outcome, error) {
			for _, name := range []string{"left", "right"} {
				kind := permission.Updated
				if _, err := tr.applyEvent(described(kind, int64(version), name, fmt.Sprint(version)).State()); err != nil {
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
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				pinned := c.current.Load()
				left, right := descriptionAt(t, c, pinned, "left"), descriptionAt(t, c, pinned, "right")
				if left != right || left != fmt.Sprint(pinned.sync.Revision) {
					t.Errorf("revision %d: left %s, right %s", pinned.sync.Revision, left, right)
					return
				}
			}
		})
	}
	for version := 2; version < 400; version++ {
		both(version)
	}
	close(done)
	wg.Wait()
}

// The catalog is a function of the set of events: whatever their order, their groups and
// their repetition, it says what the oracle says, through an LRU of any size.
func TestCatalogAgreesWithTheOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := permissiontest.Histories().Draw(rt, "history")
		order := rapid.Permutation(append(append([]permission.Event{}, history...), history[:len(history)/2]...)).Draw(rt, "order")
		c := openHooked(t, t.TempDir(), hooks{}, rapid.SampledFrom([]int{1, 3, 1000}).Draw(rt, "lru"))
		for len(order) > 0 {
			size := rapid.IntRange(1, len(order)).Draw(rt, "group")
			applyTogether(rt, c, order[:size])
			order = order[size:]
		}
		compareWithOracle(rt, c, permissiontest.Fold(history))
		if report, err := c.Verify(context.Background(), nil); err != nil || len(report.Problems) > 0 {
			rt.Fatalf("not sound: %v %v", err, report.Problems)
		}
		if err := c.Close(); err != nil {
			rt.Fatal(err)
		}
		if err := inspectFile(context.Background(), c.path); err != nil {
			rt.Fatal(err)
		}
	})
}

func applyTogether(t *rapid.T, c *Catalog, events []permission.Event) {
	_, err := c.submit(context.Background(), func(tr *transaction) (permission.Outcome, error) {
		for _, e := range events {
			if _, err := tr.applyEvent(e.State()); err != nil {
				return "", err
			}
		}
		return permission.OutcomeApplied, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func compareWithOracle(t *rapid.T, c *Catalog, want permissiontest.Outcome) {
	at := c.current.Load()
	if got := at.sync; got.Digest.String() != want.Digest || int(got.Count) != want.Live || got.EventID != want.NewestEventID {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for _, name := range []string{"a", "b", "a:b", "unknown"} {
		for range 2 { // from the file, then from the LRU
			e, err := c.lookup(at, name)
			if err != nil {
				t.Fatal(err)
			}
			compareEntry(t, name, e, want.Names)
		}
	}
	live, err := c.whole(context.Background(), at, livePermissions)
	if err != nil || live.Len() != want.Live {
		t.Fatalf("the whole document: %v, %v", live, err)
	}
}

func compareEntry(t *rapid.T, name string, e *entry, names map[string]permissiontest.Record) {
	want, known := names[name]
	if (e != nil) != known {
		t.Fatalf("%s: got %v, want %+v", name, e, want)
	}
	if !known {
		return
	}
	s := permission.State{
		ID: want.ID, Name: name, Description: want.Description, Kind: permission.Deleted,
		OccurredAt: permission.Instant(want.OccurredAt), EventID: want.EventID, Source: permission.SourceWebhook, CreatedAt: permission.Instant(want.CreatedAt),
	}
	if want.Live {
		s.Kind = permission.Updated
	}
	expected := newEntry(s)
	if !sameObject(e.live, expected.live) || !sameObject(e.deleted, expected.deleted) {
		t.Fatalf("%s: got %v %v, want %v %v", name, e.live, e.deleted, expected.live, expected.deleted)
	}
}

func sameObject(a, b ast.Object) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Compare(b) == 0
}

// Concurrent events share commits, and one that can't be applied fails alone.
func TestConcurrentEventsShareCommitsAndFailAlone(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 10)
	mustApply(t, c, described(permission.Created, 1, "bad", ""))
	err := c.file.Load().db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketStates).Put([]byte("perm_bad"), []byte("damaged")) })
	if err != nil {
		t.Fatal(err)
	}
	before := c.Sync()
	const events = 300
	var wg sync.WaitGroup
	errs := make([]error, events)
	for i := range events {
		wg.Go(func() {
			name := fmt.Sprint("name:", i)
			if i%10 == 0 {
				name = "bad"
			}
			_, errs[i] = c.Apply(context.Background(), described(permission.Updated, int64(100+i), name, ""))
		})
	}
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i%10 == 0) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	const good = events - events/10
	if got := c.Sync(); got.Count != before.Count+good || got.Revision-before.Revision >= good {
		t.Errorf("from %+v to %+v: each of %d events had a commit of its own, or was lost", before, got, good)
	}
}

// The whole document of an old revision: names that changed in two later commits, and twice
// in one, are what they were at first.
func TestAnOldWholeDocument(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", "one"), described(permission.Created, 1, "b", "one"))
	pinned := c.current.Load()
	mustApply(t, c, described(permission.Updated, 2, "a", "two"), described(permission.Updated, 3, "a", "three"))
	_, err := c.submit(context.Background(), func(tr *transaction) (permission.Outcome, error) {
		for _, e := range []permission.Event{described(permission.Updated, 4, "b", "two"), described(permission.Updated, 5, "b", "three")} {
			if _, err := tr.applyEvent(e.State()); err != nil {
				return "", err
			}
		}
		return permission.OutcomeApplied, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := c.whole(context.Background(), pinned, livePermissions)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		record := whole.Get(ast.StringTerm(name)).Value.(ast.Object)
		if got := record.Get(keyDescription).Value.(ast.String); got != "one" {
			t.Errorf("%s: the old document says %s", name, got)
		}
		if got := descriptionAt(t, c, pinned, name); got != "one" {
			t.Errorf("%s: the old record says %s", name, got)
		}
	}
}

// A revision within the limit can be read as a whole although the next one is beyond it.
func TestTheLimitIsThatOfTheAskedRevision(t *testing.T) {
	c, err := Open(context.Background(), Options{Dir: t.TempDir(), LRUSize: 1, MaxDocument: Limit{Records: 2, Bytes: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	mustApply(t, c, described(permission.Created, 1, "a", ""), described(permission.Created, 1, "b", ""))
	pinned := c.current.Load()
	mustApply(t, c, described(permission.Created, 1, "c", ""))
	if whole, err := c.whole(context.Background(), pinned, livePermissions); err != nil || whole.Len() != 2 {
		t.Errorf("got %v, %v", whole, err)
	}
	if _, err := c.whole(context.Background(), c.current.Load(), livePermissions); err == nil {
		t.Error("three records were read with a limit of two")
	}
}

// A name whose index leads to another permission is an error.
func TestAnIndexThatLeadsElsewhere(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", ""), described(permission.Created, 1, "b", ""))
	err := c.file.Load().db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNames).Put([]byte("a"), seal(bucketNames, []byte("a"), []byte("perm_b")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.lookup(c.current.Load(), "a"); err == nil {
		t.Errorf("got %v", e)
	}
}
