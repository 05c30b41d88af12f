package catalog

import "sync"

// changes tells whoever waits that something changed. Nothing is kept for those who don't:
// a commit without waiters costs a lock that nobody else holds for long.
type changes struct {
	mu   sync.Mutex    // guards next
	next chan struct{} // closed by the next change; nil while nobody waits
}

// announce is called after what changed became visible.
func (c *changes) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}

// Changed returns a channel that is closed at the next change of the revision or of the state
// beside it. Who takes the channel first and looks at the catalog then misses no change.
func (c *Catalog) Changed() <-chan struct{} {
	c.changes.mu.Lock()
	defer c.changes.mu.Unlock()
	if c.changes.next == nil {
		c.changes.next = make(chan struct{})
	}
	return c.changes.next
}
