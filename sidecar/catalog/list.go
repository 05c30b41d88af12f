package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Bounds of one page beside its limit, so that no page holds a database transaction for
// long or fills the memory, whatever lies between two live names.
const (
	examinedPerRecord = 10      // names looked at for each record asked for, and
	examinedAtLeast   = 1000    // this many more
	pageBytes         = 1 << 20 // of ids, names, descriptions and event ids, and one record more
)

// Page is a part of the live permissions, all of one revision.
type Page struct {
	Permissions []permission.State // in the byte order of their names, each of them live
	Revision    uint64             // that the page is of; the next page may be of a later one
	// Next is where the next page goes on: behind this name. It is empty at the end of the
	// listing, and only there: a page may hold fewer records than asked for, or none.
	Next string
}

// List returns at most limit live permissions whose names come behind after, in the byte
// order of names; an empty after begins the listing. The page says what its revision says,
// whatever is written meanwhile. The error is the context's or an [UnavailableError].
func (c *Catalog) List(ctx context.Context, after string, limit int) (Page, error) {
	at := c.current.Load()
	if c.hooks.aroundPage != nil {
		c.hooks.aroundPage()
	}
	found, err := c.readStretch(ctx, after, pageOf(limit))
	if ctx.Err() != nil {
		return Page{}, ctx.Err()
	}
	if err != nil {
		return Page{}, &UnavailableError{err}
	}
	if c.hooks.aroundPage != nil {
		c.hooks.aroundPage()
	}
	found.restore(at)
	return found.page(at, limit), nil
}

// bounds of one stretch that is read from the file in one database transaction.
type bounds struct {
	records  int                         // that are kept, and
	examined int                         // names that are looked at, kept or not
	keeps    func(permission.State) bool // false for the zero state
}

// pageOf bounds the stretch of a page.
func pageOf(limit int) bounds {
	return bounds{records: limit, examined: examinedPerRecord*limit + examinedAtLeast, keeps: permission.State.Live}
}

// stretch is a part of the names in their byte order, and who decides for each of them.
type stretch struct {
	after   string // the part begins behind this name
	through string // and ends with this one, if it doesn't go on to the end
	toEnd   bool
	bounds
	kept map[string]permission.State // names that aren't in it are known to have no state that is kept
}

// covers reports whether name lies within the stretch.
func (st *stretch) covers(name string) bool {
	return name > st.after && (st.toEnd || name <= st.through)
}

// readStretch reads a stretch from the file, at whatever revision that has by now.
func (c *Catalog) readStretch(ctx context.Context, after string, b bounds) (found *stretch, err error) {
	defer containDamage(&err)()
	found = &stretch{after: after, through: after, bounds: b, kept: make(map[string]permission.State)}
	err = c.view(func(tx *bbolt.Tx) error {
		return found.read(ctx, tx)
	})
	return found, err
}

func (st *stretch) read(ctx context.Context, tx *bbolt.Tx) error {
	names := tx.Bucket(bucketNames).Cursor()
	name, _ := names.Seek([]byte(st.after))
	if string(name) == st.after {
		name, _ = names.Next()
	}
	var size int
	for examined := 0; name != nil; examined++ {
		if examined == st.examined || len(st.kept) == st.records || size >= pageBytes {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s, _, err := readDecider(tx, name)
		if err != nil {
			return err
		}
		st.through = string(name)
		if st.keeps(s) {
			st.kept[s.Name] = s
			size += len(s.ID) + len(s.Name) + len(s.Description) + len(s.EventID)
		}
		name, _ = names.Next()
	}
	st.toEnd = true
	return nil
}

// restore takes the stretch back to revision at by the states that the steps since then
// replaced. A commit that the file showed already was linked before, as [snapshot] says, so
// its step is among them.
func (st *stretch) restore(at *snapshot) {
	settled := make(map[string]bool)
	for next := at.next.Load(); next != nil; next = next.to.next.Load() {
		for name, before := range next.before {
			if !st.covers(name) || settled[name] {
				continue
			}
			settled[name] = true
			delete(st.kept, name)
			if st.keeps(before) {
				st.kept[name] = before
			}
		}
		if next.wasEmpty { // once known, a name is never forgotten without another one, so no step before changed any
			maps.DeleteFunc(st.kept, func(name string, _ permission.State) bool { return !settled[name] })
			return
		}
	}
}

// page cuts the stretch to limit records: as of an older revision it may hold more of them
// than the file showed.
func (st *stretch) page(at *snapshot, limit int) Page {
	p := Page{Revision: at.sync.Revision, Permissions: st.sorted()}
	if len(p.Permissions) > limit {
		p.Permissions = p.Permissions[:limit]
		p.Next = p.Permissions[limit-1].Name
	} else if !st.toEnd {
		p.Next = st.through
	}
	return p
}

// sorted returns what is kept in the byte order of names.
func (st *stretch) sorted() []permission.State {
	states := make([]permission.State, 0, len(st.kept))
	for _, s := range st.kept {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b permission.State) int { return strings.Compare(a.Name, b.Name) })
	return states
}

// Find returns the state that decides for name, live or deleted, and the newest revision,
// which says so; the zero state when the catalog knows nothing of the name. It leaves the
// LRU to questions. The error is an [UnavailableError].
func (c *Catalog) Find(name string) (s permission.State, revision uint64, err error) {
	at := c.current.Load()
	if c.hooks.aroundPage != nil {
		c.hooks.aroundPage()
	}
	s, err = c.readState(name)
	if before, changed := at.preimage(name); changed {
		return before, at.sync.Revision, nil
	}
	if err != nil {
		return permission.State{}, 0, &UnavailableError{fmt.Errorf("reading permission %.64q: %w", name, err)}
	}
	return s, at.sync.Revision, nil
}

func (c *Catalog) readState(name string) (s permission.State, err error) {
	if permission.CheckText("name", name, 1, permission.MaxName) != nil {
		return s, nil // no such name is ever kept
	}
	defer containDamage(&err)()
	err = c.view(func(tx *bbolt.Tx) error {
		s, _, err = readDecider(tx, []byte(name))
		return err
	})
	return s, err
}
