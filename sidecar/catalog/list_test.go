package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// listed draws events of a few dozen names, most of which decide for themselves, and of ids
// that change names now and then: a name then vanishes without a deletion.
func listed(t *rapid.T, n int) permission.Event {
	id := rapid.IntRange(0, 11).Draw(t, "id")
	name := fmt.Sprintf("n%02d", id)
	if rapid.IntRange(0, 3).Draw(t, "renamed") == 0 {
		name = fmt.Sprintf("n%02d", rapid.IntRange(0, 15).Draw(t, "name"))
	}
	kind := rapid.SampledFrom([]permission.Kind{permission.Created, permission.Updated, permission.Updated, permission.Deleted}).Draw(t, "kind")
	return permission.Event{
		ID: fmt.Sprint("evt_", n), Kind: kind, OccurredAt: permission.Instant(1_700_000_000_000_000_000 + n),
		EnvironmentID: permissiontest.EnvironmentID, PermissionID: fmt.Sprint("perm_", id, "_", rapid.IntRange(0, 2).Draw(t, "generation")), Name: name, Description: fmt.Sprint(n),
	}
}

// oracle is what the live permissions were at each revision.
type oracle struct {
	mu        sync.Mutex
	history   []permission.Event
	revisions map[uint64]map[string]permissiontest.Record
}

// apply applies events one by one and notes what the catalog has to say after each.
func (o *oracle) apply(c *Catalog, events ...permission.Event) error {
	for _, e := range events {
		o.mu.Lock()
		o.history = append(o.history, e)
		live := map[string]permissiontest.Record{}
		for name, r := range permissiontest.Fold(o.history).Names {
			if r.Live {
				live[name] = r
			}
		}
		o.revisions[c.Sync().Revision+1] = live // each event here is newer than all before, so it counts
		o.mu.Unlock()
		if _, err := c.Apply(context.Background(), e); err != nil {
			return err
		}
	}
	return nil
}

// judge returns what is wrong with a page that was read behind after.
func (o *oracle) judge(p Page, after string, limit int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	want := map[string]permissiontest.Record{}
	for name, r := range o.revisions[p.Revision] {
		if name > after && (p.Next == "" || name <= p.Next) {
			want[name] = r
		}
	}
	got := make([]string, 0, len(p.Permissions))
	for _, s := range p.Permissions {
		got = append(got, s.Name)
		if r := want[s.Name]; !s.Live() || r.ID != s.ID || r.Description != s.Description || r.EventID != s.EventID || r.CreatedAt != int64(s.CreatedAt) || r.OccurredAt != int64(s.OccurredAt) {
			return fmt.Errorf("revision %d, %s: got %+v, want %+v", p.Revision, s.Name, s, r)
		}
	}
	if names := slices.Sorted(maps.Keys(want)); !slices.Equal(got, names) {
		return fmt.Errorf("revision %d, from %q to %q: got %v, want %v", p.Revision, after, p.Next, got, names)
	}
	if len(got) > limit {
		return fmt.Errorf("%d records with a limit of %d", len(got), limit)
	}
	if p.Next != "" && p.Next <= after {
		return fmt.Errorf("the page behind %q goes on at %q", after, p.Next)
	}
	return nil
}

// unsynced commits without waiting for a disk, where many commits are made and none is lost.
func unsynced(tx *bbolt.Tx) error {
	tx.DB().NoSync = true
	return tx.Commit()
}

// Whatever is committed between pinning a revision, reading the file and taking what was
// read back to the revision, a page and a single record say what that revision said.
func TestPagesAreOfOneRevision(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c *Catalog
		o := &oracle{revisions: map[uint64]map[string]permissiontest.Record{0: {}}}
		n := 0
		commit := func(most int) {
			for range rapid.IntRange(0, most).Draw(rt, "commits") {
				n++
				if err := o.apply(c, listed(rt, n)); err != nil {
					rt.Fatal(err)
				}
			}
		}
		interrupt := false
		c = openHooked(t, t.TempDir(), hooks{commit: unsynced, aroundPage: func() {
			if interrupt {
				commit(4)
			}
		}}, 3)
		commit(30)
		interrupt = true
		for after, pages := "", 0; pages < 40; pages++ {
			limit := rapid.IntRange(1, 6).Draw(rt, "limit")
			page, err := c.List(context.Background(), after, limit)
			if err != nil {
				rt.Fatal(err)
			}
			if err := o.judge(page, after, limit); err != nil {
				rt.Fatal(err)
			}
			name := fmt.Sprintf("n%02d", rapid.IntRange(0, 16).Draw(rt, "one"))
			found, revision, err := c.Find(name)
			if err != nil {
				rt.Fatal(err)
			}
			if r, live := o.revisions[revision][name]; live != found.Live() || (live && (r.EventID != found.EventID || r.ID != found.ID)) {
				rt.Fatalf("%s at revision %d: got %+v, want %+v", name, revision, found, r)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if err := c.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// Pages are read by several readers while one writer commits as fast as it can.
func TestPagesWhileCommitsLand(t *testing.T) {
	o := &oracle{revisions: map[uint64]map[string]permissiontest.Record{0: {}}}
	c := openHooked(t, t.TempDir(), hooks{commit: unsynced}, 3)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for reader := range 3 {
		wg.Go(func() {
			for after, limit := "", 1+2*reader; ; {
				select {
				case <-done:
					return
				default:
				}
				page, err := c.List(context.Background(), after, limit)
				if err == nil {
					err = o.judge(page, after, limit)
				}
				if err != nil {
					t.Error(err)
					return
				}
				after = page.Next
			}
		})
	}
	for i := range 300 {
		name := fmt.Sprintf("n%02d", (i*7)%23)
		kind := []permission.Kind{permission.Created, permission.Updated, permission.Deleted}[i%3]
		e := described(kind, int64(i), name, fmt.Sprint(i))
		e.PermissionID = fmt.Sprint("perm_", name, "_", i/40) // a deletion is final for its id
		if err := o.apply(c, e); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}

// each applies events in one commit.
func each(t *testing.T, c *Catalog, events []permission.Event) {
	t.Helper()
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

func list(t *testing.T, c *Catalog, after string, limit int) (names []string, next string) {
	t.Helper()
	p, err := c.List(context.Background(), after, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Permissions {
		names = append(names, s.Name)
	}
	return names, p.Next
}

// However many deleted names lie between two live ones, a page looks at a bounded number
// of names and may so be short, or empty.
func TestDeletedNamesMakePagesShort(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	const deleted = 2*(examinedPerRecord+examinedAtLeast) + 5
	events := []permission.Event{described(permission.Created, 1, "a", ""), described(permission.Created, 1, "z", "")}
	for i := range deleted {
		events = append(events, described(permission.Deleted, 1, fmt.Sprintf("m%05d", i), ""))
	}
	each(t, c, events)
	var got []string
	after := ""
	for range 10 {
		names, next := list(t, c, after, 1)
		got = append(got, fmt.Sprint(names, next))
		if after = next; after == "" {
			break
		}
	}
	want := []string{"[a]a", "[]m01009", "[]m02019", "[z]"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Long descriptions end a page early.
func TestLargeRecordsMakePagesShort(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	text := fmt.Sprintf("%0*d", permission.MaxDescription, 0)
	var events []permission.Event
	for i := range 300 {
		events = append(events, described(permission.Created, 1, fmt.Sprintf("n%03d", i), text))
	}
	each(t, c, events)
	first, next := list(t, c, "", 1000)
	if size := len(first) * len(text); size > pageBytes+len(text) || size < pageBytes/2 || next != first[len(first)-1] {
		t.Errorf("a page of %d bytes, the next one behind %q", size, next)
	}
	rest, next := list(t, c, next, 1000)
	for next != "" {
		var more []string
		more, next = list(t, c, next, 1000)
		rest = append(rest, more...)
	}
	if len(first)+len(rest) != len(events) {
		t.Errorf("%d of %d records came", len(first)+len(rest), len(events))
	}
}

func TestNamesComeInTheOrderOfTheirBytes(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	want := []string{"A", "a", "a/b", "a:b", "b", "é", "ü", "￿", "😀"}
	for _, name := range want {
		mustApply(t, c, described(permission.Created, 1, name, ""))
	}
	var got []string
	for after := ""; ; {
		names, next := list(t, c, after, 2)
		got = append(got, names...)
		if after = next; after == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if names, next := list(t, c, "a/", 2); !slices.Equal(names, []string{"a/b", "a:b"}) || next != "a:b" {
		t.Errorf("behind a name that nobody bears: %q, next %q", names, next)
	}
	if names, next := list(t, c, "a:b", 5); len(names) != 5 || next != "" {
		t.Errorf("a page that ends with the last name: %q, next %q", names, next)
	}
}

func TestADamagedRecordIsNoShortPage(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", ""), described(permission.Created, 1, "b", ""))
	if err := c.file.Load().db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketStates).Put([]byte("perm_b"), []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	var unavailable *UnavailableError
	if p, err := c.List(context.Background(), "", 10); !errors.As(err, &unavailable) {
		t.Errorf("got %+v, %v", p, err)
	}
	if s, _, err := c.Find("b"); !errors.As(err, &unavailable) {
		t.Errorf("got %+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p, err := c.List(ctx, "", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any longer: %+v, %v", p, err)
	}
}
