package catalog

import (
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// absentShare is how many names that nobody bears are remembered, as a part of the records.
const absentShare = 8

// hot is the LRU in front of the file. Each commit that changes something begins a new
// generation; a reader may fill in only what it read within the generation in which it
// began to read, or it could put back what a commit just replaced.
//
// Names that nobody bears have an LRU of their own. A flood of them pushes out each other,
// never a record.
type hot struct {
	mu         sync.Mutex // guards all; with it held, names and generation agree
	records    *simplelru.LRU[string, *entry]
	absent     *simplelru.LRU[string, struct{}]
	generation uint64

	hits, misses uint64
}

func newHot(size int) *hot {
	return &hot{records: newLRU[*entry](size), absent: newLRU[struct{}](max(1, size/absentShare))}
}

func newLRU[V any](size int) *simplelru.LRU[string, V] {
	lru, err := simplelru.NewLRU[string, V](size, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return lru
}

// get returns what is remembered of name: an entry, nil for a name that nobody bears, or
// false for neither.
func (h *hot) get(name string) (e *entry, generation uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok = h.records.Get(name); !ok {
		_, ok = h.absent.Get(name)
	}
	if ok {
		h.hits++
	} else {
		h.misses++
	}
	return e, h.generation, ok
}

// fill remembers what was read of name in that generation: nil where nobody bears it.
func (h *hot) fill(name string, e *entry, generation uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case generation != h.generation:
	case e != nil:
		h.records.Add(e.name, e) // the name asked for may keep all of a request's body in memory
	default:
		h.absent.Add(strings.Clone(name), struct{}{})
	}
}

// advance begins a new generation, in which the names that st changed are to be read anew.
func (h *hot) advance(st *step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation++
	if st.wasEmpty {
		h.records.Purge()
		h.absent.Purge()
	}
	for name := range st.before {
		h.records.Remove(name)
		h.absent.Remove(name)
	}
}

// counts returns how often get found what it was asked for, and how often not.
func (h *hot) counts() (hits, misses uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hits, h.misses
}
