package main

import (
	"crypto/sha256"
	"encoding/hex"
	"math/big"
)

// The merge rule once more, as a plain fold over a set of events. It was written from the
// rule's text and shares no code with Postern:
//
//   - Per permission id a deletion is final, with the name that its greatest deletion bears.
//     Otherwise the greatest key wins.
//   - Per name, among the states of all ids that bear it, the greatest key decides.
//   - created_at is the earliest creation that was seen of the id.

// state is what the events of one permission id lead to: the event that it rests on.
type state struct {
	event

	createdAt int64 // 0 when no creation was seen, and of a deletion
}

func (s state) live() bool { return s.kind != deleted }

// foldIDs leads from a set of events to the state of each permission id.
func foldIDs(events []event) map[string]state {
	states := map[string]state{}
	firstCreation := map[string]int64{}
	for _, e := range events {
		if first, seen := firstCreation[e.permission]; e.kind == created && (!seen || e.at < first) {
			firstCreation[e.permission] = e.at
		}
		holder, taken := states[e.permission]
		if !taken || replaces(e, holder.event) {
			states[e.permission] = state{event: e}
		}
	}
	for id, s := range states {
		if s.live() {
			s.createdAt = firstCreation[id]
			states[id] = s
		}
	}
	return states
}

// replaces tells whether the permission id that rests on old rests on e from now on.
func replaces(e, old event) bool {
	if (e.kind == deleted) != (old.kind == deleted) {
		return e.kind == deleted
	}
	return e.compare(old) > 0
}

// foldNames leads from the states of the ids to the one that decides for each name.
func foldNames(states map[string]state) map[string]state {
	names := map[string]state{}
	for _, s := range states {
		decider, taken := names[s.name]
		if !taken || s.compare(decider.event) > 0 {
			names[s.name] = s
		}
	}
	return names
}

// foldName leads from a set of events to the state that decides for one name; false when
// nothing does.
func foldName(name string, events []event) (state, bool) {
	s, known := foldNames(foldIDs(events))[name]
	return s, known
}

// digest sums up the contents of the live permissions modulo 2^256, and counts them.
func digest(names map[string]state) (sum string, count int) {
	total := new(big.Int)
	for _, s := range names {
		if s.live() {
			count++
			total.Add(total, new(big.Int).SetBytes(s.content[:]))
		}
	}
	total.Mod(total, new(big.Int).Lsh(big.NewInt(1), 8*sha256.Size))
	var bytes [sha256.Size]byte
	return hex.EncodeToString(total.FillBytes(bytes[:])), count
}

// newest returns the event with the greatest key; the zero event when there is none.
func newest(events []event) (greatest event) {
	for _, e := range events {
		if e.compare(greatest) > 0 {
			greatest = e
		}
	}
	return greatest
}
