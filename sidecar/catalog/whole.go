package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.etcd.io/bbolt"
)

// wholeDocument is a collection of one revision as a single value, for policies that
// count or iterate. It is built when somebody first asks, by one builder at a time;
// whoever else asks meanwhile waits, or gives up with its context.
type wholeDocument struct {
	building chan struct{} // holds one token while somebody builds
	value    ast.Object    // set at most once, with the token held
}

func newWholeDocument() wholeDocument {
	return wholeDocument{building: make(chan struct{}, 1)}
}

// collection is one of the two documents that revisions can be read as in whole.
type collection struct {
	path string // as policies write it
	of   func(*snapshot) *wholeDocument
	pick func(*entry) ast.Object // the entry's part of the collection, or nil; takes a nil entry
}

var (
	livePermissions = collection{
		path: "data.scalekit.permissions",
		of:   func(s *snapshot) *wholeDocument { return &s.live },
		pick: (*entry).permission,
	}
	deletedPermissions = collection{
		path: "data.scalekit.deleted",
		of:   func(s *snapshot) *wholeDocument { return &s.deleted },
		pick: (*entry).deletion,
	}
)

// whole returns the whole collection as of revision s.
func (c *Catalog) whole(ctx context.Context, s *snapshot, which collection) (ast.Object, error) {
	document := which.of(s)
	select {
	case document.building <- struct{}{}:
		defer func() { <-document.building }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for all of %s: %w", which.path, ctx.Err())
	}
	if document.value != nil {
		return document.value, nil
	}
	built, err := c.build(ctx, s, which)
	var tooLarge documentLimitError
	switch {
	case errors.As(err, &tooLarge) || ctx.Err() != nil:
		return nil, fmt.Errorf("reading all of %s: %w", which.path, err)
	case err != nil:
		return nil, &UnavailableError{err}
	}
	document.value = built
	return built, nil
}

func (c *Catalog) build(ctx context.Context, s *snapshot, which collection) (ast.Object, error) {
	found, err := c.collect(ctx, which)
	if err != nil {
		return nil, err
	}
	s.restore(found)
	pairs := make([][2]*ast.Term, 0, len(found))
	size := Limit{}
	for name, e := range found {
		value := which.pick(e)
		if value == nil {
			continue
		}
		size.Records++
		size.Bytes += e.bytes
		pairs = append(pairs, ast.Item(ast.StringTerm(name), ast.NewTerm(value)))
	}
	if err := size.within(c.maxDocument); err != nil {
		return nil, err
	}
	return ast.NewObject(pairs...), nil
}

// within returns an error that says which limit l exceeds, if it does.
func (l Limit) within(most Limit) error {
	switch {
	case l.Records > most.Records:
		return documentLimitError(fmt.Sprintf("it has more than %d records", most.Records))
	case l.Bytes > most.Bytes:
		return documentLimitError(fmt.Sprintf("it has more than %d bytes", most.Bytes))
	}
	return nil
}

// collect reads the collection from the file, at whatever revision that has by now. The
// asked one may have been smaller, so twice the limit is read before giving up.
func (c *Catalog) collect(ctx context.Context, which collection) (found map[string]*entry, err error) {
	defer containDamage(&err)()
	if c.hooks.collect != nil {
		c.hooks.collect()
	}
	found = make(map[string]*entry)
	most := Limit{2 * c.maxDocument.Records, 2 * c.maxDocument.Bytes}
	size := Limit{}
	err = c.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNames).ForEach(func(name, _ []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, _, err := readDecider(tx, name)
			if err != nil {
				return err
			}
			e := newEntry(s)
			if which.pick(e) == nil {
				return nil
			}
			found[e.name] = e
			size.Records++
			size.Bytes += e.bytes
			return size.within(most)
		})
	})
	return found, err
}

// restore takes found back to revision s by the states that the steps since then replaced.
func (s *snapshot) restore(found map[string]*entry) {
	settled := make(map[string]bool)
	for st := s.next.Load(); st != nil; st = st.to.next.Load() {
		for name, before := range st.before {
			if !settled[name] {
				settled[name] = true
				found[name] = newEntry(before)
			}
		}
		if st.wasEmpty {
			for name := range found {
				if !settled[name] {
					delete(found, name)
				}
			}
			return
		}
	}
}

// documentLimitError says what a whole-document read ran into, and what helps.
type documentLimitError string

// Error names the setting to raise and the way around it.
func (e documentLimitError) Error() string {
	return string(e) + ": read a permission by its name, data.scalekit.permissions[name], or raise --max-document"
}
