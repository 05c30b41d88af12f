package main

import (
	"math/rand/v2"
	"slices"
	"testing"
)

const (
	p1, p2 = "perm_1", "perm_2"
	read   = "data:read"
	write  = "data:write"
)

func ev(id string, k kind, at int64, permission, name, description string) event {
	return event{id: id, kind: k, at: at, permission: permission, name: name, description: description}.seal()
}

// The rule, sentence by sentence.
func TestFold(t *testing.T) {
	for what, row := range map[string]struct {
		events []event
		want   string // id of the event that data:read rests on; "" for none
		live   bool
	}{
		"nothing":                  {nil, "", false},
		"a creation":               {[]event{ev("e1", created, 1, p1, read, "")}, "e1", true},
		"an update":                {[]event{ev("e1", created, 1, p1, read, ""), ev("e2", updated, 2, p1, read, "x")}, "e2", true},
		"an update before it":      {[]event{ev("e1", created, 2, p1, read, ""), ev("e2", updated, 1, p1, read, "x")}, "e1", true},
		"a deletion":               {[]event{ev("e1", created, 1, p1, read, ""), ev("e2", deleted, 2, p1, read, "")}, "e2", false},
		"final for its id":         {[]event{ev("e2", deleted, 2, p1, read, ""), ev("e3", updated, 3, p1, read, "")}, "e2", false},
		"again, another id":        {[]event{ev("e2", deleted, 2, p1, read, ""), ev("e3", created, 3, p2, read, "")}, "e3", true},
		"late deletion of the old": {[]event{ev("e1", created, 1, p1, read, ""), ev("e3", created, 3, p2, read, ""), ev("e2", deleted, 2, p1, read, "")}, "e3", true},
		"lost deletion":            {[]event{ev("e1", created, 1, p1, read, ""), ev("e3", created, 3, p2, read, ""), ev("e4", deleted, 4, p2, read, "")}, "e4", false},
		"update over creation":     {[]event{ev("e9", created, 1, p1, read, ""), ev("e1", updated, 1, p1, read, "x")}, "e1", true},
		"deletion over creation":   {[]event{ev("e9", created, 1, p1, read, ""), ev("e1", deleted, 1, p2, read, "")}, "e1", false},
		"greater event id":         {[]event{ev("e9", updated, 1, p1, read, "x"), ev("e10", updated, 1, p1, read, "y")}, "e9", true},
		"greatest deletion":        {[]event{ev("e2", deleted, 2, p1, read, ""), ev("e3", deleted, 3, p1, write, "")}, "", false},
		"another name":             {[]event{ev("e1", created, 1, p1, read, ""), ev("e2", updated, 2, p1, write, "")}, "", false},
	} {
		s, known := foldName(read, row.events)
		if s.id != row.want || known != (row.want != "") || (known && s.live() != row.live) {
			t.Errorf("%s: got %s", what, s.describe(known))
		}
	}
}

func TestFoldTakesTheGreaterContentOfOneEventID(t *testing.T) {
	a, b := ev("e1", updated, 1, p1, read, "a"), ev("e1", updated, 1, p1, read, "b")
	want := a
	if string(b.content[:]) > string(a.content[:]) {
		want = b
	}
	for _, events := range [][]event{{a, b}, {b, a}} {
		if s, _ := foldName(read, events); s.event != want {
			t.Errorf("got %q, want %q", s.description, want.description)
		}
	}
}

func TestFoldKeepsTheEarliestCreation(t *testing.T) {
	events := []event{ev("e3", updated, 3, p1, read, ""), ev("e2", created, 2, p1, read, ""), ev("e1", created, 1, p1, read, "")}
	if s := foldIDs(events)[p1]; s.createdAt != 1 || s.id != "e3" {
		t.Errorf("got created at %d, resting on %s", s.createdAt, s.id)
	}
	events = append(events, ev("e4", deleted, 4, p1, read, ""))
	if s := foldIDs(events)[p1]; s.createdAt != 0 {
		t.Errorf("a deletion was created at %d", s.createdAt)
	}
}

// The order in which random histories arrive changes nothing.
func TestFoldIsAFunctionOfTheSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := newHistory(random, 6, 0)
	var events []event
	for range 400 {
		events = append(events, h.next().event)
	}
	want, count := digest(foldNames(foldIDs(events)))
	if count == 0 {
		t.Fatal("the history leaves nothing alive")
	}
	for range 20 {
		random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		if got, _ := digest(foldNames(foldIDs(events))); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	if again, _ := digest(foldNames(foldIDs(slices.Concat(events, events)))); again != want {
		t.Errorf("twice the same events: got %s, want %s", again, want)
	}
}

// The number was computed with sha256sum, of 8 bytes of length and the text, three times.
func TestDigest(t *testing.T) {
	events := []event{ev("e1", created, 1, p1, read, "d")}
	const want = "28d2d1e97c1e986feed7846e8be16b7bc95a4ea7c0039c8e1b3aa71b61a562cd"
	if got, count := digest(foldNames(foldIDs(events))); got != want || count != 1 {
		t.Errorf("got %s of %d", got, count)
	}
	if got, count := digest(nil); count != 0 || len(got) != 64 {
		t.Errorf("of nothing: got %s of %d", got, count)
	}
}

// A history does all that it promises.
func TestHistory(t *testing.T) {
	h := newHistory(rand.New(rand.NewPCG(3, 4)), 20, 0)
	kinds, ids, instants, ends := map[kind]int{}, map[string]map[string]bool{}, map[int64]int{}, map[string]int64{}
	conflicts, disorder, last := 0, 0, int64(0)
	contents := map[string]event{}
	seen := map[*entry]bool{}
	resent, haunted := 0, 0
	for range 3000 {
		e := h.next()
		if seen[e] {
			resent++
			continue
		}
		seen[e] = true
		kinds[e.kind]++
		if end := ends[e.permission]; end != 0 && e.at > end {
			haunted++
		}
		if e.kind == deleted {
			ends[e.permission] = e.at
		}
		instants[e.at]++
		if e.at < last {
			disorder++
		}
		last = e.at
		if other, known := contents[e.id]; known && other.content != e.content {
			conflicts++
		}
		contents[e.id] = e.event
		if ids[e.name] == nil {
			ids[e.name] = map[string]bool{}
		}
		ids[e.name][e.permission] = true
	}
	again := 0
	for _, bearers := range ids {
		again += len(bearers) - 1
	}
	if kinds[created] == 0 || kinds[updated] == 0 || kinds[deleted] == 0 || again == 0 || conflicts == 0 || disorder == 0 || resent == 0 || haunted == 0 || len(instants) == len(seen) {
		t.Errorf("kinds %v, again %d, conflicts %d, disorder %d, resent %d, haunted %d, %d instants of %d events", kinds, again, conflicts, disorder, resent, haunted, len(instants), len(seen))
	}
}
