package permission_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// document merges a history in the order given and resolves its names.
func document(history []permission.Event) map[string]permissiontest.Record {
	states := map[string]permission.State{}
	for _, e := range history {
		s := e.State()
		if old, had := states[s.ID]; had {
			s = permission.Merge(old, s)
		}
		states[s.ID] = s
	}
	bearers := map[string][]permission.State{}
	for _, s := range states {
		bearers[s.Name] = append(bearers[s.Name], s)
	}
	names := map[string]permissiontest.Record{}
	for name, all := range bearers {
		s := permission.Decides(all)
		names[name] = permissiontest.Record{
			Live: s.Live(), ID: s.ID, Description: s.Description,
			OccurredAt: int64(s.OccurredAt), EventID: s.EventID, CreatedAt: int64(s.CreatedAt),
		}
	}
	return names
}

func TestMergeAgreesWithTheOracleInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := permissiontest.Histories().Draw(t, "history")
		repeated := append(append([]permission.Event{}, history...), history[:len(history)/2]...)
		shuffled := rapid.Permutation(repeated).Draw(t, "order")
		if got, want := fmt.Sprint(document(shuffled)), fmt.Sprint(permissiontest.Fold(history).Names); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func TestMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := func(label string) permission.State {
			e := permissiontest.Events().Draw(t, label)
			e.PermissionID = "perm_1"
			return e.State()
		}
		a, b, c := state("a"), state("b"), state("c")
		if permission.Merge(a, b) != permission.Merge(b, a) {
			t.Error("not commutative")
		}
		if permission.Merge(permission.Merge(a, b), c) != permission.Merge(a, permission.Merge(b, c)) {
			t.Error("not associative")
		}
		if permission.Merge(a, a) != a {
			t.Error("not idempotent")
		}
	})
}

// The cases that the rule was made for, to be read aloud.
func TestMergeRule(t *testing.T) {
	at := func(kind permission.Kind, minute int64, id, event string) permission.Event {
		return permission.Event{ID: event, Kind: kind, OccurredAt: permission.Instant(1 + minute), PermissionID: id, Name: "data:manage", Description: event}
	}
	const c, u, d = permission.Created, permission.Updated, permission.Deleted
	for _, test := range []struct {
		name    string
		history []permission.Event
		live    bool
		event   string
	}{
		{"the newest event wins", []permission.Event{at(c, 1, "perm_1", "evt_1"), at(u, 2, "perm_1", "evt_2")}, true, "evt_2"},
		{"a deletion is final for its id, whatever is newer", []permission.Event{at(d, 2, "perm_1", "evt_d"), at(u, 9, "perm_1", "evt_u")}, false, "evt_d"},
		{"a new id brings the name back", []permission.Event{at(d, 2, "perm_1", "evt_d"), at(c, 3, "perm_2", "evt_c")}, true, "evt_c"},
		{"a late deletion of the old id leaves the new one", []permission.Event{at(c, 3, "perm_2", "evt_c"), at(d, 2, "perm_1", "evt_d")}, true, "evt_c"},
		{"a lost deletion of the old id doesn't revive the name", []permission.Event{at(c, 1, "perm_1", "evt_1"), at(c, 3, "perm_2", "evt_2"), at(d, 4, "perm_2", "evt_3")}, false, "evt_3"},
		{"at one instant an update outranks a creation", []permission.Event{at(u, 1, "perm_1", "evt_1"), at(c, 1, "perm_1", "evt_2")}, true, "evt_1"},
		{"at one instant a deletion of one id outranks another id", []permission.Event{at(d, 1, "perm_1", "evt_1"), at(u, 1, "perm_2", "evt_2")}, false, "evt_1"},
		{"at one instant and kind the greater event id wins", []permission.Event{at(u, 1, "perm_1", "evt_1"), at(u, 1, "perm_1", "evt_2")}, true, "evt_2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := document(test.history)["data:manage"]
			if got.Live != test.live || got.EventID != test.event {
				t.Errorf("got %+v, want live %v by %s", got, test.live, test.event)
			}
		})
	}
}

func TestInstant(t *testing.T) {
	for text, want := range map[string]string{
		"2024-01-15T10:30:00Z":                "2024-01-15T10:30:00.000000000Z",
		"2024-01-15T10:30:00.1Z":              "2024-01-15T10:30:00.100000000Z",
		"2024-01-15T10:30:00.123456789Z":      "2024-01-15T10:30:00.123456789Z",
		"2024-01-15T12:30:00.5+02:00":         "2024-01-15T10:30:00.500000000Z",
		"2024-01-15T00:00:00.000000001-23:59": "2024-01-15T23:59:00.000000001Z",
		"1970-01-01T00:00:00.000000001Z":      "1970-01-01T00:00:00.000000001Z",
	} {
		got, err := permission.ParseInstant(text)
		if err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "2024-01-15", "2024-01-15T10:30:00", "2024-01-15T10:30:00,5Z", "2024-01-15T9:30:00Z", "2024-01-15T10:30:60Z",
		"2024-02-30T10:30:00Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2263-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1705314600",
	} {
		if got, err := permission.ParseInstant(text); err == nil {
			t.Errorf("%q was taken as %s", text, got)
		}
	}
}

func TestDigestIsASumModulo2To256(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 256)
	number := func(d permission.Digest) *big.Int { return new(big.Int).SetBytes(d[:]) }
	rapid.Check(t, func(t *rapid.T) {
		var a, b permission.Digest
		copy(a[:], rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}), 32, 32).Draw(t, "a"))
		copy(b[:], rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}), 32, 32).Draw(t, "b"))
		sum := new(big.Int).Add(number(a), number(b))
		if number(a.Plus(b)).Cmp(sum.Mod(sum, modulus)) != 0 {
			t.Errorf("%s + %s = %s", a, b, a.Plus(b))
		}
		if a.Plus(b).Minus(b) != a {
			t.Errorf("%s + %s - %s = %s", a, b, b, a.Plus(b).Minus(b))
		}
		if parsed, err := permission.ParseDigest(a.String()); err != nil || parsed != a {
			t.Errorf("%s parsed as %s, %v", a, parsed, err)
		}
	})
	for _, text := range []string{"", "00", strings.Repeat("g", 64), strings.Repeat("0", 66)} {
		if _, err := permission.ParseDigest(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// The digest is a promise between sidecars, so its bytes are pinned: this one is
// printf '\0\0\0\0\0\0\0\001a\0\0\0\0\0\0\0\002bc\0\0\0\0\0\0\0\0' | sha256sum.
func TestContentDigestIsPinned(t *testing.T) {
	const want = "74f2dff90c16bd75e74ea8ab93e0f683754b4ae5a7e2b6c960734cf5c656341a"
	if got := permission.ContentDigest("a", "bc", "").String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if permission.ContentDigest("a", "bc", "d") == permission.ContentDigest("ab", "c", "d") {
		t.Error("the parts aren't kept apart")
	}
}

func TestCheck(t *testing.T) {
	good := permission.Event{ID: "evt_1", Kind: permission.Created, OccurredAt: 1, PermissionID: "perm_1", Name: strings.Repeat("n", permission.MaxName)}
	if err := good.State().Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*permission.Event){
		"id: want 1 to 256 bytes, got 0":                                              func(e *permission.Event) { e.PermissionID = "" },
		"name: want 1 to 256 bytes, got 257":                                          func(e *permission.Event) { e.Name += "n" },
		"name: want no control characters, got one at byte 1":                         func(e *permission.Event) { e.Name = "a\u0085" },
		"description: want at most 8000 bytes, got 8001":                              func(e *permission.Event) { e.Description = strings.Repeat("d", 8001) },
		"kind: want created, updated or deleted, got kind(9)":                         func(e *permission.Event) { e.Kind = 9 },
		"occurred_at: want an instant after 1970, got 1970-01-01T00:00:00.000000000Z": func(e *permission.Event) { e.OccurredAt = 0 },
		"event_id: want no control characters, got one at byte 0":                     func(e *permission.Event) { e.ID = "\x7f" },
	} {
		e := good
		change(&e)
		if got := e.State().Check(); fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
