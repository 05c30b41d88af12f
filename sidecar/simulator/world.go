package simulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/postern-authz/postern/sidecar/permission"
)

// What went wrong with an order.
var (
	ErrInvalid  = errors.New("invalid")        // a field isn't as Scalekit documents it
	ErrNotFound = errors.New("not found")      // no permission, role or key of that id or name
	ErrConflict = errors.New("already exists") // the name is taken, or something rests on what should go
)

// Permission is a permission of the simulated environment.
type Permission struct {
	ID          string // "perm_…"
	Name        string
	Description string
	CreatedAt   permission.Instant
	UpdatedAt   permission.Instant // of the last change, the creation included

	own      bool   // Scalekit's predefined ones
	position uint64 // in the order of creation, which listings have
}

func (p Permission) content() permission.Digest {
	return permission.ContentDigest(p.ID, p.Name, p.Description)
}

// predefined stand for the permissions that Scalekit brings itself. Their names are made up.
var predefined = []string{"scalekit:users:manage", "scalekit:roles:manage", "scalekit:settings:manage"}

// world is what exists. It knows no locks and no webhooks.
type world struct {
	run    string // ten digits out of the seed, so that no two runs make the same ids
	made   uint64 // ids
	clock  permission.Instant
	own    []*Permission
	live   []*Permission // in the order of creation
	byID   map[string]*Permission
	byName map[string]*Permission
	digest permission.Digest // of live
	roles  []*role           // in the order of creation
}

func newWorld(seed uint64) *world {
	chance := rand.New(rand.NewPCG(seed, streamOf("ids"))) //nolint:gosec // ids repeat with the seed, and protect nothing
	w := &world{
		run:    fmt.Sprintf("%010d", chance.Uint64N(1e10)),
		byID:   map[string]*Permission{},
		byName: map[string]*Permission{},
	}
	// Long ago: what Scalekit brings is older than any environment.
	began := permission.InstantOf(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, name := range predefined {
		p := &Permission{ID: w.newID("perm"), Name: name, CreatedAt: began, UpdatedAt: began, own: true, position: w.made}
		w.own = append(w.own, p)
		w.byName[name] = p
	}
	return w
}

func (w *world) newID(prefix string) string {
	w.made++
	return fmt.Sprintf("%s_%s%08d", prefix, w.run, w.made)
}

// tick returns a time that is later than any before, whatever the machine's clock does:
// occurred_at is the only order that events have.
func (w *world) tick(now time.Time) permission.Instant {
	w.clock = max(permission.InstantOf(now), w.clock+1)
	return w.clock
}

// Names on creation, as Scalekit documents them.
var permissionName = regexp.MustCompile(`^[a-zA-Z0-9_:]{1,64}$`)

const longestDescription = 2000 // characters

func checkPermission(name, description string) error {
	if !permissionName.MatchString(name) {
		return fmt.Errorf("%w: name: want 1 to 64 of a-z, A-Z, 0-9, _ and :, got %.80q", ErrInvalid, name)
	}
	return checkDescription(description)
}

func checkDescription(description string) error {
	if n := utf8.RuneCountInString(description); n > longestDescription || !utf8.ValidString(description) {
		return fmt.Errorf("%w: description: want at most %d characters of UTF-8, got %d", ErrInvalid, longestDescription, n)
	}
	return nil
}

func (w *world) free(name string) error {
	if _, taken := w.byName[name]; taken {
		return fmt.Errorf("%w: a permission named %q", ErrConflict, name)
	}
	return nil
}

func (w *world) create(name, description string, now time.Time) (*Permission, error) {
	if err := checkPermission(name, description); err != nil {
		return nil, err
	}
	if err := w.free(name); err != nil {
		return nil, err
	}
	p := &Permission{ID: w.newID("perm"), Name: name, Description: description, position: w.made}
	p.CreatedAt = w.tick(now)
	p.UpdatedAt = p.CreatedAt
	w.add(p)
	return p, nil
}

func (w *world) add(p *Permission) {
	w.live = append(w.live, p)
	w.byID[p.ID], w.byName[p.Name] = p, p
	w.digest = w.digest.Plus(p.content())
}

func (w *world) update(id string, c Change, now time.Time) (*Permission, error) {
	p, err := w.find(id)
	if err != nil {
		return nil, err
	}
	changed := *p
	if c.Name != nil {
		changed.Name = *c.Name
	}
	if c.Description != nil {
		changed.Description = *c.Description
	}
	if err := checkPermission(changed.Name, changed.Description); err != nil {
		return nil, err
	}
	if changed.Name != p.Name {
		if err := w.free(changed.Name); err != nil {
			return nil, err
		}
	}
	changed.UpdatedAt = w.tick(now)
	delete(w.byName, p.Name)
	w.digest = w.digest.Minus(p.content()).Plus(changed.content())
	*p = changed
	w.byName[p.Name] = p
	return p, nil
}

// delete takes the permission out of every role, too.
func (w *world) delete(id string, now time.Time) (*Permission, error) {
	p, err := w.find(id)
	if err != nil {
		return nil, err
	}
	p.UpdatedAt = w.tick(now)
	i := w.after(p.position - 1)
	w.live = slices.Delete(w.live, i, i+1)
	delete(w.byID, p.ID)
	delete(w.byName, p.Name)
	w.digest = w.digest.Minus(p.content())
	for _, r := range w.roles {
		r.permissions = slices.DeleteFunc(r.permissions, func(held *Permission) bool { return held == p })
	}
	return p, nil
}

func (w *world) find(id string) (*Permission, error) {
	p, ok := w.byID[id]
	if !ok {
		return nil, fmt.Errorf("%w: no live permission has the id %.64q", ErrNotFound, id)
	}
	return p, nil
}

// after returns the index of the first live permission behind position.
func (w *world) after(position uint64) int {
	i, _ := slices.BinarySearchFunc(w.live, position, func(p *Permission, at uint64) int {
		if p.position <= at {
			return -1
		}
		return 1
	})
	return i
}

func copies(permissions []*Permission) []Permission {
	out := make([]Permission, len(permissions))
	for i, p := range permissions {
		out[i] = *p
	}
	return out
}
