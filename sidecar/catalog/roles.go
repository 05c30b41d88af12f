package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// largestRoles bounds all roles together, in bytes on disk: they are one value there, and one
// document in memory.
const largestRoles = 8 << 20

var (
	keyRoles       = []byte("roles")
	keyPermissions = ast.StringTerm("permissions")
)

// roles are all roles of a revision. There are few of them, and a listing brings them as a
// whole, so they are kept as a whole.
type roles struct {
	list     []permission.Role // in the order of their names
	document ast.Object        // data.scalekit.roles

	digested sync.Once
	digest   [sha256.Size]byte
}

// fingerprint differs where the roles differ.
func (r *roles) fingerprint() [sha256.Size]byte {
	r.digested.Do(func() {
		encoded, _ := r.encode() // too large ones belong to no revision
		r.digest = sha256.Sum256(encoded)
	})
	return r.digest
}

// newRoles checks a list and sorts it. The error names the role.
func newRoles(list []permission.Role) (*roles, error) {
	if len(list) > permission.MaxRoles {
		return nil, fmt.Errorf("roles: want at most %d, got %d", permission.MaxRoles, len(list))
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b permission.Role) int { return strings.Compare(a.Name, b.Name) })
	r := &roles{list: sorted, document: ast.NewObject()}
	for i, role := range sorted {
		if err := role.Check(); err != nil {
			return nil, fmt.Errorf("role %.64q: %w", role.Name, err)
		}
		if i > 0 && sorted[i-1].Name == role.Name {
			return nil, fmt.Errorf("role %.64q comes twice, with the ids %.64q and %.64q", role.Name, sorted[i-1].ID, role.ID)
		}
		r.document.Insert(ast.StringTerm(role.Name), ast.NewTerm(roleValue(role)))
	}
	return r, nil
}

// roleValue returns data.scalekit.roles[name].
func roleValue(r permission.Role) ast.Value {
	permissions := make([]*ast.Term, len(r.Permissions))
	for i, name := range r.Permissions {
		permissions[i] = ast.StringTerm(name)
	}
	return ast.NewObject(
		ast.Item(keyID, ast.StringTerm(r.ID)),
		ast.Item(keyName, ast.StringTerm(r.Name)),
		ast.Item(keyPermissions, ast.NewTerm(ast.NewArray(permissions...))),
	)
}

// encode returns the value on disk, unsealed.
func (r *roles) encode() ([]byte, error) {
	b := binary.AppendUvarint(nil, uint64(len(r.list)))
	for _, role := range r.list {
		b = appendText(appendText(b, role.ID), role.Name)
		b = binary.AppendUvarint(b, uint64(len(role.Permissions)))
		for _, name := range role.Permissions {
			b = appendText(b, name)
		}
		if len(b) > largestRoles {
			return nil, fmt.Errorf("roles: want at most %d bytes of ids and names in all", largestRoles)
		}
	}
	return b, nil
}

func decodeRoles(payload []byte) (*roles, error) {
	d := decoder{rest: payload}
	var list []permission.Role
	for n := d.count(); n > 0 && d.err == nil; n-- {
		role := permission.Role{ID: d.text(), Name: d.text()}
		for names := d.count(); names > 0 && d.err == nil; names-- {
			role.Permissions = append(role.Permissions, d.text())
		}
		list = append(list, role)
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decoding the roles: %w", err)
	}
	return newRoles(list)
}

// readRoles returns those of a file; none where it has none.
func readRoles(meta *bbolt.Bucket) (*roles, error) { return openRoles(meta.Get(keyRoles)) }

func openRoles(sealed []byte) (*roles, error) {
	if sealed == nil {
		return newRoles(nil)
	}
	payload, err := unseal(bucketMeta, keyRoles, sealed)
	if err != nil {
		return nil, fmt.Errorf("reading the roles: %w", err)
	}
	return decodeRoles(payload)
}

// putRoles replaces the roles, if they differ.
func (t *transaction) putRoles(list []permission.Role) error {
	r, err := newRoles(list)
	if err != nil {
		return err
	}
	payload, err := r.encode()
	if err != nil {
		return err
	}
	sealed := seal(bucketMeta, keyRoles, payload)
	if found := t.meta.Get(keyRoles); bytes.Equal(found, sealed) || found == nil && len(list) == 0 {
		return nil
	}
	t.must(t.meta.Put(keyRoles, sealed))
	t.roles = r
	return t.broken
}

// rolesAfter returns the roles of the coming revision.
func (t *transaction) rolesAfter(before *roles) *roles {
	if t.roles != nil {
		return t.roles
	}
	return before
}

// Repair is what a reconciliation found. It is applied in one commit, as one revision.
type Repair struct {
	States   []permission.State // merged like every other state
	Roles    []permission.Role  // replace those before; nil leaves them
	Complete bool               // a whole listing is part of it

	newest eventKey // of a dump
}

// check returns an error that names the first thing that can't be kept.
func (r Repair) check() error {
	for _, s := range r.States {
		if err := s.Check(); err != nil {
			return fmt.Errorf("permission %.64q: %w", s.ID, err)
		}
	}
	return nil
}
