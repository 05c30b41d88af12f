package catalog

import (
	"fmt"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// snapshot is one revision as questions see it. It holds no database transaction: an
// open one would make the file grow for as long as it lives. Instead the writer links
// each revision to the next one with the values that the step between them changed, and
// a reader of an older revision looks there first.
//
// The rule that keeps a read whole: the writer links a step *before* its commit becomes
// visible on disk or in the LRU. So a reader that looks in the steps after its revision,
// then on disk, then in the steps *again*, has met the step of whatever it read too early.
type snapshot struct {
	sync  Sync // but for its state
	told  atomic.Pointer[syncDocument]
	roles *roles

	// next leads from old to new only, so that the collector frees a step with the last
	// question that was pinned before it.
	next atomic.Pointer[step]

	live    wholeDocument // data.scalekit.permissions
	deleted wholeDocument // data.scalekit.deleted
}

// step leads from one revision to the next.
type step struct {
	// before holds, for each name that changed, the state that decided for it in the older
	// revision; the zero state where there was none.
	before map[string]permission.State
	// wasEmpty says that the older revision knew no name but those in before. It stands for
	// the zero state of every other name, so that filling an empty catalog doesn't need one for each.
	wasEmpty bool
	to       *snapshot
}

// preimage reports what decided for name before the step; false when the step left it alone.
func (st *step) preimage(name string) (permission.State, bool) {
	s, changed := st.before[name]
	return s, changed || st.wasEmpty
}

// entry is all that a revision says of one name; nil when it says nothing. Entries are
// immutable and shared between revisions, the LRU and running evaluations.
type entry struct {
	name    string
	live    ast.Object // data.scalekit.permissions[name], or nil
	deleted ast.Object // data.scalekit.deleted[name], or nil
	bytes   int64      // of the texts in it, for Limit.Bytes
}

// permission returns data.scalekit.permissions[name], or nil.
func (e *entry) permission() ast.Object {
	if e == nil {
		return nil
	}
	return e.live
}

// deletion returns data.scalekit.deleted[name], or nil.
func (e *entry) deletion() ast.Object {
	if e == nil {
		return nil
	}
	return e.deleted
}

func newSnapshot(epoch string, h header, r *roles) *snapshot {
	return &snapshot{
		sync: Sync{
			Revision: h.revision,
			Epoch:    epoch,
			EventID:  h.newest.eventID,
			AsOf:     h.newest.occurredAt,
			Complete: h.complete,
			Count:    h.count,
			Digest:   h.digest,
		},
		roles:   r,
		live:    newWholeDocument(),
		deleted: newWholeDocument(),
	}
}

// preimage looks for name in the steps that lead away from s. The first one that changed
// it holds its state as of s.
func (s *snapshot) preimage(name string) (permission.State, bool) {
	for st := s.next.Load(); st != nil; st = st.to.next.Load() {
		if before, changed := st.preimage(name); changed {
			return before, true
		}
	}
	return permission.State{}, false
}

// overlay is preimage as policies see it.
func (s *snapshot) overlay(name string) (*entry, bool) {
	before, changed := s.preimage(name)
	if !changed {
		return nil, false
	}
	return newEntry(before), true
}

// lookup returns what revision s says of name: nil when it says nothing.
func (c *Catalog) lookup(s *snapshot, name string) (*entry, error) {
	if e, changed := s.overlay(name); changed {
		return e, nil
	}
	e, err := c.newest(name)
	if err != nil {
		return nil, err
	}
	if older, changed := s.overlay(name); changed {
		return older, nil
	}
	return e, nil
}

// newest returns what the LRU, else the file, holds of name at this moment, which may
// belong to a revision that isn't current yet.
func (c *Catalog) newest(name string) (*entry, error) {
	if len(name) > permission.MaxName || name == "" {
		return nil, nil // no such name is ever kept
	}
	e, generation, ok := c.hot.get(name)
	if ok {
		return e, nil
	}
	e, err := c.readEntry(name)
	if c.hooks.afterRead != nil {
		c.hooks.afterRead()
	}
	if err != nil {
		return nil, err
	}
	c.hot.fill(name, e, generation)
	return e, nil
}

func (c *Catalog) readEntry(name string) (e *entry, err error) {
	defer containDamage(&err)()
	err = c.view(func(tx *bbolt.Tx) error {
		s, found, err := readDecider(tx, []byte(name))
		if found {
			e = newEntry(s)
		}
		return err
	})
	return e, err
}

// readDecider returns the state that decides for name.
func readDecider(tx *bbolt.Tx, name []byte) (permission.State, bool, error) {
	sealed := tx.Bucket(bucketNames).Get(name)
	if sealed == nil {
		return permission.State{}, false, nil
	}
	id, err := unseal(bucketNames, name, sealed)
	if err != nil {
		return permission.State{}, false, fmt.Errorf("reading which permission %.64q is: %w", name, err)
	}
	s, found, err := readState(tx.Bucket(bucketStates), id)
	if err == nil && (!found || s.Name != string(name)) {
		err = fmt.Errorf("the name %.64q leads to permission %.64q, which doesn't bear it", name, id)
	}
	return s, found && err == nil, err
}
