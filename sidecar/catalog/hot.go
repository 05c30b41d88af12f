package catalog

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/postern-authz/postern/sidecar/permission"
)

// hot is the LRU in front of the file. Each commit that changes something begins a new
// generation; a reader may fill in only what it read within the generation in which it
// began to read, or it could put back what a commit just replaced.
type hot struct {
	mu         sync.Mutex // guards both; with it held, records and generation agree
	records    *simplelru.LRU[string, *entry]
	generation uint64
}

func newHot(size int) *hot {
	records, err := simplelru.NewLRU[string, *entry](size, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &hot{records: records}
}

func (h *hot) get(name string) (e *entry, generation uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok = h.records.Get(name)
	return e, h.generation, ok
}

// fill keys by the entry's own name. The name that was asked for may be part of a
// request's body, all of which it would keep in memory.
func (h *hot) fill(e *entry, generation uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if generation == h.generation {
		h.records.Add(e.name, e)
	}
}

// advance begins a new generation, in which the names of replaced are to be read anew.
func (h *hot) advance(replaced map[string]permission.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation++
	for name := range replaced {
		h.records.Remove(name)
	}
}
