package permission_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// Whatever the order in which events and claims of listings came, repetitions included.
func TestListingsMergeAsTheOracleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		claims := permissiontest.Claims().Draw(t, "claims")
		history := withoutRevivals(permissiontest.Histories().Draw(t, "history"), claims)
		var said []permission.State
		for _, e := range history {
			said = append(said, e.State())
		}
		for _, c := range claims {
			said = append(said, c.State())
		}
		said = rapid.Permutation(append(said, said[:len(said)/2]...)).Draw(t, "order")
		states := map[string]permission.State{}
		for _, s := range said {
			if old, had := states[s.ID]; had {
				s = permission.Merge(old, s)
			}
			states[s.ID] = s
		}
		judged := permissiontest.Judge(history, claims)
		for id, want := range judged {
			got := states[id]
			if got.Live() == want.Gone || got.Name != want.Name || got.Description != want.Description ||
				int64(got.OccurredAt) != want.At || got.EventID != want.EventID {
				t.Fatalf("%s: got %+v, live %v\nwant %+v", id, got, got.Live(), want)
			}
		}
		bearers := map[string][]permission.State{}
		for _, s := range states {
			bearers[s.Name] = append(bearers[s.Name], s)
		}
		deciders := map[string]string{}
		for name, all := range bearers {
			deciders[name] = permission.Decides(all).ID
		}
		if got, want := fmt.Sprint(deciders), fmt.Sprint(permissiontest.NameBearers(judged)); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

// withoutRevivals leaves out the deletions that a confirmation overrules of ids of which
// something newer is told: the one case in which Merge says that order matters.
func withoutRevivals(history []permission.Event, claims []permissiontest.Claim) []permission.Event {
	confirmed := map[string]permission.Instant{}
	for _, c := range claims {
		if c.Mark == "confirmed" {
			confirmed[c.PermissionID] = max(confirmed[c.PermissionID], c.At)
		}
	}
	newer := map[string]bool{}
	for _, e := range history {
		newer[e.PermissionID] = newer[e.PermissionID] || e.Kind != permission.Deleted && e.OccurredAt > confirmed[e.PermissionID]
	}
	for _, c := range claims {
		newer[c.PermissionID] = newer[c.PermissionID] || c.UpdatedAt > confirmed[c.PermissionID]
	}
	return slices.DeleteFunc(slices.Clone(history), func(e permission.Event) bool {
		return e.Kind == permission.Deleted && e.OccurredAt <= confirmed[e.PermissionID] && newer[e.PermissionID]
	})
}

// The cases that the marks were made for, to be read aloud.
func TestListingRule(t *testing.T) {
	event := func(kind permission.Kind, minute permission.Instant, id string) permission.State {
		return permission.Event{ID: fmt.Sprintf("evt_%d", minute), Kind: kind, OccurredAt: minute, PermissionID: id, Name: "data:manage", Description: "event"}.State()
	}
	claim := func(mark string, at, updated permission.Instant, id string) permission.State {
		return permissiontest.Claim{PermissionID: id, Name: "data:manage", Description: "listing", UpdatedAt: updated, Mark: mark, At: at}.State()
	}
	const c, u, d = permission.Created, permission.Updated, permission.Deleted
	for _, test := range []struct {
		name string
		said []permission.State
		live bool
		text string // of the one that decides
	}{
		{"an absence deletes", []permission.State{event(u, 2, "perm_1"), claim("absent", 5, 1, "perm_1")}, false, "event"},
		{"an absence gives way to a newer event", []permission.State{claim("absent", 5, 1, "perm_1"), event(u, 6, "perm_1")}, true, "event"},
		{"and to no older one", []permission.State{claim("absent", 5, 1, "perm_1"), event(u, 4, "perm_1")}, false, "event"},
		{"a later listing revives what an absence deleted", []permission.State{event(c, 1, "perm_1"), claim("absent", 5, 1, "perm_1"), claim("seen", 7, 1, "perm_1")}, true, "listing"},
		{"a listing doesn't revive what an event deleted", []permission.State{event(d, 3, "perm_1"), claim("seen", 7, 1, "perm_1")}, false, ""},
		{"two listings do", []permission.State{event(d, 3, "perm_1"), claim("confirmed", 7, 1, "perm_1")}, true, "listing"},
		{"a deletion after them is final again", []permission.State{claim("confirmed", 7, 1, "perm_1"), event(d, 8, "perm_1"), event(u, 9, "perm_1")}, false, ""},
		{"two listings overrule newer events until then", []permission.State{event(u, 6, "perm_1"), claim("confirmed", 7, 1, "perm_1")}, true, "listing"},
		{"and none after them", []permission.State{event(u, 8, "perm_1"), claim("confirmed", 7, 1, "perm_1")}, true, "event"},
		{"an absent id leaves the name to the one that took its place", []permission.State{event(c, 1, "perm_1"), claim("absent", 5, 1, "perm_1"), claim("", 0, 3, "perm_2")}, true, "listing"},
		{"a deletion event decides, also where listings miss its id", []permission.State{event(c, 1, "perm_1"), claim("absent", 5, 1, "perm_1"), event(d, 3, "perm_1"), claim("", 0, 2, "perm_2")}, false, ""},
		{"a deletion event of another id doesn't outlive a confirmation", []permission.State{event(d, 6, "perm_1"), claim("confirmed", 7, 3, "perm_2")}, true, "listing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			states := map[string]permission.State{}
			for _, s := range test.said {
				if old, had := states[s.ID]; had {
					s = permission.Merge(old, s)
				}
				states[s.ID] = s
			}
			var all []permission.State
			for _, s := range states {
				all = append(all, s)
			}
			if got := permission.Decides(all); got.Live() != test.live || got.Description != test.text {
				t.Errorf("got %+v, want live %v by %q", got, test.live, test.text)
			}
		})
	}
}

func TestDeletion(t *testing.T) {
	e := permission.Event{ID: "evt_1", Kind: permission.Created, OccurredAt: 1, PermissionID: "perm_1", Name: "data:manage"}
	gone := e.State()
	gone.AbsentAt = 5
	if at, by := gone.Deletion(); at != 5 || by != "" {
		t.Errorf("missed by listings: got %d by %q", at, by)
	}
	e.Kind, e.ID, e.OccurredAt = permission.Deleted, "evt_2", 3
	if at, by := permission.Merge(gone, e.State()).Deletion(); at != 3 || by != "evt_2" {
		t.Errorf("deleted by an event, too: got %d by %q", at, by)
	}
}
