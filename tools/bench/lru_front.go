package main

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// front is a cache of records in front of a catalog.
type front interface {
	get(name string) (value any, ok bool)
	add(name string, value any)
}

// plainLRU is what Postern has: the unlocked core under a lock of ours.
type plainLRU struct {
	mu      sync.Mutex
	records *simplelru.LRU[string, any]
}

func newPlainLRU(size int) (front, error) {
	records, err := simplelru.NewLRU[string, any](size, nil)
	return &plainLRU{records: records}, err
}

func (f *plainLRU) get(name string) (any, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records.Get(name)
}

func (f *plainLRU) add(name string, value any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records.Add(name, value)
}

// twoQueues is 2Q under the lock that it brings.
type twoQueues struct {
	records *lru.TwoQueueCache[string, any]
}

func newTwoQueues(size int) (front, error) {
	records, err := lru.New2Q[string, any](size)
	return &twoQueues{records}, err
}

func (f *twoQueues) get(name string) (any, bool) { return f.records.Get(name) }
func (f *twoQueues) add(name string, value any)  { f.records.Add(name, value) }

// lockedTwoQueues is 2Q as Postern would have to use it: its own lock can't cover the
// generation, so that ours has to go around it.
type lockedTwoQueues struct {
	mu      sync.Mutex
	records *lru.TwoQueueCache[string, any]
}

func newLockedTwoQueues(size int) (front, error) {
	records, err := lru.New2Q[string, any](size)
	return &lockedTwoQueues{records: records}, err
}

func (f *lockedTwoQueues) get(name string) (any, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records.Get(name)
}

func (f *lockedTwoQueues) add(name string, value any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records.Add(name, value)
}
