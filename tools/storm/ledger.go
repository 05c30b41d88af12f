package main

import (
	"slices"
	"sync"
)

// entry is an event with the moments that matter, by the ledger's own clock: 0 is never.
type entry struct {
	event

	sent         int // first handed to the network
	acknowledged int // first answered 201
}

// ledger is the account of what was sent and what was acknowledged. What Postern holds lies
// between the two: all that was acknowledged, and of the rest any part.
type ledger struct {
	mu      sync.Mutex
	clock   int
	entries []*entry
	byID    map[string][]*entry        // permission id → what was sent of it
	bearers map[string]map[string]bool // name → the ids that an event gave it to

	newestSent         event
	newestAcknowledged event

	told map[revisionOf]answer // the first answer of each revision about each name
}

// revisionOf is a name as one revision of the catalog knows it.
type revisionOf struct {
	revision uint64
	name     string
}

func newLedger() *ledger {
	return &ledger{byID: map[string][]*entry{}, bearers: map[string]map[string]bool{}, told: map[revisionOf]answer{}}
}

// sending notes that an event is about to be sent.
func (l *ledger) sending(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.sent != 0 {
		return
	}
	l.clock++
	e.sent = l.clock
	l.entries = append(l.entries, e)
	l.byID[e.permission] = append(l.byID[e.permission], e)
	if l.bearers[e.name] == nil {
		l.bearers[e.name] = map[string]bool{}
	}
	l.bearers[e.name][e.permission] = true
	l.newestSent = newest([]event{l.newestSent, e.event})
}

// acknowledge notes that an event was answered 201.
func (l *ledger) acknowledge(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.acknowledged != 0 {
		return
	}
	l.clock++
	e.acknowledged = l.clock
	l.newestAcknowledged = newest([]event{l.newestAcknowledged, e.event})
}

// moment is what was acknowledged when a question was asked.
type moment struct {
	clock  int
	newest event // the newest of it
}

func (l *ledger) now() moment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return moment{l.clock, l.newestAcknowledged}
}

// about returns, of the events that can matter to a name, those that were acknowledged at
// the moment of asking, and the others that have been sent by now.
func (l *ledger) about(name string, asked moment) (must, may []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.bearers[name] {
		certain, open := split(l.byID[id], asked)
		must, may = append(must, certain...), append(may, open...)
	}
	return must, may
}

// ofID is about, for one permission id.
func (l *ledger) ofID(id string, asked moment) (must, may []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return split(l.byID[id], asked)
}

func split(entries []*entry, asked moment) (must, may []event) {
	for _, e := range entries {
		if e.acknowledged != 0 && e.acknowledged <= asked.clock {
			must = append(must, e.event)
		} else {
			may = append(may, e.event)
		}
	}
	return must, may
}

// all returns every event that was sent, and how many were not acknowledged.
func (l *ledger) all() (events []event, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		events = append(events, e.event)
		if e.acknowledged == 0 {
			open++
		}
	}
	return events, open
}

// sentSoFar returns the newest event that was sent.
func (l *ledger) sentSoFar() event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newestSent
}

// firstTold keeps an answer about a name unless there is one of the same revision, and
// returns the one that is kept.
func (l *ledger) firstTold(name string, a answer) answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := revisionOf{a.Context.Revision, name}
	first, told := l.told[of]
	if !told {
		l.told[of], first = a, a
	}
	return first
}

// names returns every name that was sent, sorted.
func (l *ledger) names() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.bearers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ids returns every permission id of which something was acknowledged by then, sorted.
func (l *ledger) ids(asked moment) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, entries := range l.byID {
		if must, _ := split(entries, asked); len(must) > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
