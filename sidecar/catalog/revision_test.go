package catalog

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// Whatever is committed while a walk goes from part to part, it tells what the revision said
// that was pinned before, live and deleted, in the order of names.
func TestWalksAreOfOneRevision(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c *Catalog
		var history []permission.Event
		commit := func(most int) {
			for range rapid.IntRange(0, most).Draw(rt, "commits") {
				e := listed(rt, len(history))
				history = append(history, e)
				if _, err := c.Apply(context.Background(), e); err != nil {
					rt.Fatal(err)
				}
			}
		}
		interrupt := false
		c = openHooked(t, t.TempDir(), hooks{commit: unsynced, stretch: rapid.IntRange(1, 5).Draw(rt, "stretch"), aroundPage: func() {
			if interrupt {
				commit(4)
			}
		}}, 3)
		commit(rapid.SampledFrom([]int{0, 30}).Draw(rt, "before"))
		want := permissiontest.Fold(history).Names
		at := c.Pin()
		interrupt = true
		var names []string
		err := at.Walk(context.Background(), func(s permission.State) error {
			names = append(names, s.Name)
			compareEntry(rt, s.Name, newEntry(s), want)
			return nil
		})
		if err != nil || !slices.IsSorted(names) || len(names) != len(want) {
			rt.Fatalf("got %v, %v, want %d names", names, err, len(want))
		}
		if err := c.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestAWalkEnds(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{commit: unsynced, stretch: 2}, 3)
	mustApply(t, c, described(permission.Created, 1, "a", ""), described(permission.Created, 2, "b", ""), described(permission.Created, 3, "c", ""))
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := c.Pin().Walk(ctx, func(permission.State) error { seen++; cancel(); return nil })
	if seen != 2 || !errors.Is(err, context.Canceled) {
		t.Errorf("it saw %d and ended with %v", seen, err)
	}
	broken := errors.New("no room")
	if err := c.Pin().Walk(t.Context(), func(permission.State) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// Every change is announced after it can be seen, and nothing else is.
func TestChangesAreAnnounced(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{commit: unsynced}, 3)
	told := func(change func()) bool {
		changed := c.Changed()
		change()
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	event := described(permission.Created, 1, "a", "")
	for name, change := range map[string]func(){
		"an event": func() { mustApply(t, c, event) },
		"a state":  func() { c.SetState(StateFresh) },
		"roles": func() {
			_, _ = c.Repair(t.Context(), Repair{Roles: []permission.Role{{ID: "role_1", Name: "admin"}}}, nil)
		},
	} {
		before := c.Pin()
		if !told(change) || before.Fingerprint() == c.Pin().Fingerprint() {
			t.Errorf("%s: not announced, or with the same fingerprint", name)
		}
		if told(change) {
			t.Errorf("%s: announced twice", name)
		}
	}
	if told(func() {}) {
		t.Error("nothing changed")
	}
}

// A waiter that takes the channel before it looks sees the last of many commits.
func TestNoChangeIsMissed(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{commit: unsynced}, 3)
	const commits = 300
	followers := make(chan error)
	for range 4 {
		go func() {
			for {
				changed := c.Changed()
				if c.Pin().Sync().Revision == commits && c.Pin().Sync().State == StateFresh {
					followers <- nil
					return
				}
				select {
				case <-changed:
				case <-time.After(20 * time.Second):
					followers <- errors.New("a change was missed")
					return
				}
			}
		}()
	}
	for i := range commits {
		mustApply(t, c, described(permission.Updated, int64(i+1), "a", ""))
	}
	c.SetState(StateFresh)
	for range 4 {
		if err := <-followers; err != nil {
			t.Error(err)
		}
	}
}

// The fingerprint is that of the contents, whatever process opened the file.
func TestFingerprintAfterARestart(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 3)
	mustApply(t, c, described(permission.Created, 1, "a", ""))
	c.SetState(StateFresh)
	c.SetState(StateUnverified)
	before := c.Pin().Fingerprint()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := openHooked(t, dir, hooks{}, 3).Pin().Fingerprint(); after != before {
		t.Error("it is another one after a restart")
	}
}

// A file that was copied back and went on may have other roles at the same revision.
func TestFingerprintTellsRoles(t *testing.T) {
	fingerprint := func(list ...permission.Role) [32]byte {
		r, err := newRoles(list)
		if err != nil {
			t.Fatal(err)
		}
		return Revision{at: sight{newSnapshot("epoch", header{revision: 1}, r), &trust{state: StateFresh}}}.Fingerprint()
	}
	none, again, one := fingerprint(), fingerprint(), fingerprint(permission.Role{ID: "role_1", Name: "admin"})
	if none == one || none != again {
		t.Error("it doesn't")
	}
}
