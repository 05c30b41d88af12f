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
	s.restore(found, which)
	if len(found) > c.maxDocument.Records {
		return nil, c.tooManyRecords()
	}
	pairs := make([][2]*ast.Term, 0, len(found))
	for name, value := range found {
		pairs = append(pairs, ast.Item(ast.StringTerm(name), ast.NewTerm(value)))
	}
	return ast.NewObject(pairs...), nil
}

// collect reads the collection from the file, at whatever revision that has by now.
func (c *Catalog) collect(ctx context.Context, which collection) (found map[string]ast.Object, err error) {
	defer containDamage(&err)()
	found = make(map[string]ast.Object)
	left := c.maxDocument.Bytes
	err = c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNames).ForEach(func(name, _ []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, _, err := readDecider(tx, name)
			if err != nil {
				return err
			}
			e := newEntry(s)
			value := which.pick(e)
			if value == nil {
				return nil
			}
			found[e.name] = value
			if left -= e.bytes; left < 0 {
				return documentLimitError(fmt.Sprintf("it has more than %d bytes", c.maxDocument.Bytes))
			}
			if len(found) > c.maxDocument.Records {
				return c.tooManyRecords()
			}
			return nil
		})
	})
	return found, err
}

func (c *Catalog) tooManyRecords() error {
	return documentLimitError(fmt.Sprintf("it has more than %d records", c.maxDocument.Records))
}

// restore takes found back to revision s by the values that the steps since then replaced.
func (s *snapshot) restore(found map[string]ast.Object, which collection) {
	settled := make(map[string]bool)
	for st := s.next.Load(); st != nil; st = st.to.next.Load() {
		for name, before := range st.before {
			if settled[name] {
				continue
			}
			settled[name] = true
			delete(found, name)
			if value := which.pick(newEntry(before)); value != nil {
				found[name] = value
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
