package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/postern-authz/postern/sidecar/permission"
)

// namesPerStretch bounds how much of a walk is read in one database transaction, and kept in
// memory at once.
const namesPerStretch = 4096

// Revision is the newest revision of the moment it was pinned in, and the state beside it.
// While it is held, memory keeps what later commits replaced.
type Revision struct {
	catalog *Catalog
	at      sight
}

// Pin returns the newest revision.
func (c *Catalog) Pin() Revision { return Revision{c, c.sight()} }

// Sync returns what the revision says of itself.
func (r Revision) Sync() Sync { return r.at.Sync() }

// Roles returns all roles in the order of their names. They must not be changed.
func (r Revision) Roles() []permission.Role { return slices.Clone(r.at.roles.list) }

// Fingerprint differs where data.scalekit differs. It is made from what the revision says of
// itself, its roles and the state, without reading a record; the same file in the same state
// has the same one, in whatever process.
func (r Revision) Fingerprint() [sha256.Size]byte {
	s := r.Sync()
	s.StateGeneration = 0 // counts within one process
	text, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encoding what a revision says of itself: %v", err)) // texts and numbers alone
	}
	roles := r.at.roles.fingerprint()
	return sha256.Sum256(append(text, roles[:]...))
}

// Walk calls each with the state that decides for a name, live or deleted, for every name of
// the revision in the byte order of names. It holds no database transaction meanwhile. The
// error is the context's, that of each, or an [UnavailableError].
func (r Revision) Walk(ctx context.Context, each func(permission.State) error) error {
	c := r.catalog
	part := bounds{records: namesPerStretch, examined: namesPerStretch, keeps: func(s permission.State) bool { return s.ID != "" }}
	if c.hooks.stretch > 0 {
		part.records, part.examined = c.hooks.stretch, c.hooks.stretch
	}
	for after := ""; ; {
		if c.hooks.aroundPage != nil {
			c.hooks.aroundPage()
		}
		found, err := c.readStretch(ctx, after, part)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return &UnavailableError{err}
		}
		if c.hooks.aroundPage != nil {
			c.hooks.aroundPage()
		}
		found.restore(r.at.snapshot)
		for _, s := range found.sorted() {
			if err := each(s); err != nil {
				return err
			}
		}
		if found.toEnd {
			return nil
		}
		after = found.through
	}
}
