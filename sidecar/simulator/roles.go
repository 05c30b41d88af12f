package simulator

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Role is a role of the simulated environment.
type Role struct {
	ID          string // "role_…"; made by the simulator
	Name        string
	DisplayName string
	Description string
	Extends     string   // the name of the role whose permissions it has, too; empty: none
	Permissions []string // its own, by name
}

// role holds its permissions themselves, so that a renamed or deleted one changes it.
type role struct {
	Role
	permissions []*Permission
}

func (r *role) export() Role {
	out := r.Role
	out.Permissions = make([]string, len(r.permissions))
	for i, p := range r.permissions {
		out.Permissions[i] = p.Name
	}
	return out
}

// Role names, as Scalekit documents them.
var roleName = regexp.MustCompile(`^[a-zA-Z0-9_]{1,100}$`)

func (w *world) role(name string) (*role, error) {
	i := slices.IndexFunc(w.roles, func(r *role) bool { return r.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%w: no role is named %.100q", ErrNotFound, name)
	}
	return w.roles[i], nil
}

// resolve checks r and finds its permissions.
func (w *world) resolve(r Role) (*role, error) {
	if !roleName.MatchString(r.Name) {
		return nil, fmt.Errorf("%w: name: want 1 to 100 of a-z, A-Z, 0-9 and _, got %.120q", ErrInvalid, r.Name)
	}
	if err := checkDescription(r.Description); err != nil {
		return nil, err
	}
	if err := w.checkExtends(r); err != nil {
		return nil, err
	}
	out := &role{Role: r}
	for i, name := range r.Permissions {
		p, ok := w.byName[name]
		if !ok || slices.Contains(out.permissions, p) {
			return nil, fmt.Errorf("%w: permissions[%d]: want a live permission, each once, got %.80q", ErrInvalid, i, name)
		}
		out.permissions = append(out.permissions, p)
	}
	return out, nil
}

func (w *world) checkExtends(r Role) error {
	for base := r.Extends; base != ""; {
		found, err := w.role(base)
		if err != nil || base == r.Name {
			return fmt.Errorf("%w: extends: want another role that exists and doesn't extend this one, got %.100q", ErrInvalid, r.Extends)
		}
		base = found.Extends
	}
	return nil
}

func (w *world) createRole(r Role) (*role, error) {
	made, err := w.resolve(r)
	if err != nil {
		return nil, err
	}
	if _, err := w.role(r.Name); err == nil {
		return nil, fmt.Errorf("%w: a role named %q", ErrConflict, r.Name)
	}
	made.ID = w.newID("role")
	w.roles = append(w.roles, made)
	return made, nil
}

// updateRole reports whether something changed that a webhook tells of: the list of
// permissions isn't in it.
func (w *world) updateRole(name string, c RoleChange) (r *role, told bool, err error) {
	r, err = w.role(name)
	if err != nil {
		return nil, false, err
	}
	changed := r.export()
	for _, text := range []struct{ from, into *string }{
		{c.DisplayName, &changed.DisplayName}, {c.Description, &changed.Description}, {c.Extends, &changed.Extends},
	} {
		if text.from != nil {
			*text.into, told = *text.from, true
		}
	}
	if c.Permissions != nil {
		changed.Permissions = *c.Permissions
	}
	resolved, err := w.resolve(changed)
	if err != nil {
		return nil, false, err
	}
	*r = *resolved
	return r, told, nil
}

func (w *world) deleteRole(name string) (*role, error) {
	r, err := w.role(name)
	if err != nil {
		return nil, err
	}
	if w.dependents(name) > 0 {
		return nil, fmt.Errorf("%w: another role extends %q", ErrConflict, name)
	}
	w.roles = slices.DeleteFunc(w.roles, func(other *role) bool { return other == r })
	return r, nil
}

func (w *world) dependents(name string) (n int) {
	for _, r := range w.roles {
		if r.Extends == name {
			n++
		}
	}
	return n
}

// held is a permission of a role, and the role that it comes from.
type held struct {
	permission *Permission
	from       string
}

// effective returns the permissions of a role and of those that it extends, each once.
func (w *world) effective(r *role) (all []held) {
	seen := map[*Permission]bool{}
	for {
		for _, p := range r.permissions {
			if !seen[p] {
				seen[p] = true
				all = append(all, held{p, r.Name})
			}
		}
		base, err := w.role(r.Extends)
		if err != nil {
			return all
		}
		r = base
	}
}

// load fills an empty world. What it holds was there before: no webhook tells of it.
func (w *world) load(f Fixture, now time.Time) error {
	for i, given := range f.Permissions {
		p, err := w.create(given.Name, given.Description, now)
		if err != nil {
			return fmt.Errorf("permissions[%d]: %w", i, err)
		}
		if given.ID == "" {
			continue
		}
		if _, taken := w.byID[given.ID]; taken {
			return fmt.Errorf("permissions[%d]: %w: id %q", i, ErrConflict, given.ID)
		}
		w.rename(p, given.ID)
	}
	for i, r := range f.Roles {
		if _, err := w.createRole(r); err != nil {
			return fmt.Errorf("roles[%d]: %w", i, err)
		}
	}
	return nil
}

// rename gives a permission the id that a fixture wants for it.
func (w *world) rename(p *Permission, id string) {
	w.digest = w.digest.Minus(p.content())
	delete(w.byID, p.ID)
	p.ID = id
	w.byID[id] = p
	w.digest = w.digest.Plus(p.content())
}
