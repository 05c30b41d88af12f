package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	hotNames      = 8    // of all names, half of what happens concerns these
	reorderWindow = 24   // events that wait to be sent, in any order
	resendFrom    = 4000 // the last so many events may be sent again
)

// history makes up what happens to permissions: creations, updates, deletions, the same
// name again under a new id, equal times, one event id with two contents, an update that
// bears another name, deletions that are never sent, events of an id that was deleted before. It hands the events out in another
// order than they happened, some of them twice.
type history struct {
	mu      sync.Mutex
	random  *rand.Rand
	names   []string
	bulk    int // bytes of each description; 0 for short ones
	clock   int64
	serial  int
	bearer  map[string]event // name → the last event of the id that bears it
	dead    []event          // deletions
	waiting []*entry
	sent    []*entry
}

func newHistory(random *rand.Rand, names, bulk int) *history {
	h := &history{
		random: random, bulk: bulk, bearer: map[string]event{},
		clock: time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC).UnixNano(),
	}
	for i := range names {
		h.names = append(h.names, fmt.Sprintf("resource%03d:%s", i, [...]string{"read", "write", "manage"}[i%3]))
	}
	return h
}

// next returns the event to send now.
func (h *history) next() *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sent) > 0 && h.random.IntN(10) == 0 {
		return h.sent[h.random.IntN(len(h.sent))]
	}
	for len(h.waiting) < reorderWindow {
		h.happen()
	}
	i := h.random.IntN(len(h.waiting))
	e := h.waiting[i]
	h.waiting[i] = h.waiting[len(h.waiting)-1]
	h.waiting = h.waiting[:len(h.waiting)-1]
	if h.sent = append(h.sent, e); len(h.sent) > resendFrom {
		h.sent = h.sent[1:]
	}
	return e
}

// name picks one to ask about, sometimes one that never was.
func (h *history) name() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.random.IntN(20) == 0 {
		return fmt.Sprintf("never%d:seen", h.random.IntN(1000))
	}
	return h.pick()
}

func (h *history) pick() string {
	if h.random.IntN(2) == 0 {
		return h.names[h.random.IntN(min(hotNames, len(h.names)))]
	}
	return h.names[h.random.IntN(len(h.names))]
}

// happen lets one thing happen to one name.
func (h *history) happen() {
	if h.random.IntN(5) > 0 { // one in five has the time of the one before
		h.clock += 1 + h.random.Int64N(int64(5*time.Millisecond))
	}
	if len(h.dead) > 0 && h.random.IntN(8) == 0 {
		h.haunt()
		return
	}
	name := h.pick()
	last, borne := h.bearer[name]
	if !borne {
		h.serial++
		h.put(name, created, fmt.Sprintf("perm_%012d", h.serial), name)
		return
	}
	switch dice := h.random.IntN(100); {
	case dice < 50:
		h.put(name, updated, last.permission, name)
	case dice < 88:
		h.put(name, deleted, last.permission, last.name)
		h.dead = append(h.dead, h.bearer[name])
		delete(h.bearer, name)
	case dice < 92: // a deletion that gets lost
		delete(h.bearer, name)
	case dice < 96: // an update that bears another name, as Scalekit says it never happens
		h.put(name, updated, last.permission, h.pick())
	default: // the last event's id once more, saying something else
		e := last
		e.description = h.text()
		h.keep(name, e)
	}
}

// haunt lets something happen to an id after its deletion, which is final all the same.
func (h *history) haunt() {
	last := h.dead[h.random.IntN(len(h.dead))]
	if h.random.IntN(3) == 0 { // the name of its greatest deletion counts
		h.emit(h.made(deleted, last.permission, h.pick()))
		return
	}
	h.emit(h.made(updated, last.permission, last.name))
}

func (h *history) made(k kind, permission, name string) event {
	h.serial++
	id := fmt.Sprintf("evt_%012d", h.serial)
	return event{id: id, kind: k, at: h.clock, permission: permission, name: name, description: h.text()}
}

func (h *history) put(name string, k kind, permission, says string) {
	h.keep(name, h.made(k, permission, says))
}

func (h *history) keep(name string, e event) { h.bearer[name] = h.emit(e) }

func (h *history) emit(e event) event {
	e = e.seal()
	h.waiting = append(h.waiting, &entry{event: e})
	return e
}

// text is a description that no other event has, so that a lost update is seen.
func (h *history) text() string {
	h.serial++
	text := fmt.Sprintf("text %d", h.serial)
	if h.bulk > len(text) {
		text += strings.Repeat(".", h.bulk-len(text))
	}
	return text
}
