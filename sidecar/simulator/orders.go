package simulator

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Change is what becomes different about a permission; nil leaves a field as it is.
// Scalekit's documentation calls the name immutable, and asks nobody to rely on it.
type Change struct{ Name, Description *string }

// RoleChange is what becomes different about a role; nil leaves a field as it is.
type RoleChange struct {
	DisplayName, Description, Extends *string
	Permissions                       *[]string
}

// Create makes a permission, and a permission.created. Its error wraps [ErrInvalid] or
// [ErrConflict].
func (s *Simulator) Create(name, description string) (Permission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.world.create(name, description, s.config.Now())
	return s.changed("permission.created", p, err)
}

// Update changes a live permission, and makes a permission.updated. Its error wraps
// [ErrInvalid], [ErrNotFound] or [ErrConflict].
func (s *Simulator) Update(id string, c Change) (Permission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.world.update(id, c, s.config.Now())
	return s.changed("permission.updated", p, err)
}

// Delete ends a live permission, and makes a permission.deleted with its last values. The
// UpdatedAt that it returns is the time of the deletion. Its error wraps [ErrNotFound].
func (s *Simulator) Delete(id string) (Permission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.world.delete(id, s.config.Now())
	return s.changed("permission.deleted", p, err)
}

func (s *Simulator) changed(kind string, p *Permission, err error) (Permission, error) {
	if err != nil {
		return Permission{}, err
	}
	s.announce(event{
		kind: kind, object: "Permission", subject: p.ID, name: p.Name, occurredAt: p.UpdatedAt,
		data: eventPermission{p.ID, p.Name, p.Description},
	})
	return *p, nil
}

// CreateRole makes a role, and a role.created. The ID of r is ignored. Its error wraps
// [ErrInvalid] or [ErrConflict].
func (s *Simulator) CreateRole(r Role) (Role, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made, err := s.world.createRole(r)
	if err != nil {
		return Role{}, err
	}
	s.announceRole("role.created", made)
	return made.export(), nil
}

// UpdateRole changes a role. It makes a role.updated only if more changes than the list of
// permissions: whether Scalekit tells of that one isn't known, so nobody may rely on it. Its
// error wraps [ErrInvalid] or [ErrNotFound].
func (s *Simulator) UpdateRole(name string, c RoleChange) (Role, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, told, err := s.world.updateRole(name, c)
	if err != nil {
		return Role{}, err
	}
	if told {
		s.announceRole("role.updated", r)
	}
	return r.export(), nil
}

// DeleteRole ends a role that no other one extends, and makes a role.deleted. Its error
// wraps [ErrNotFound] or [ErrConflict].
func (s *Simulator) DeleteRole(name string) (Role, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.world.deleteRole(name)
	if err != nil {
		return Role{}, err
	}
	s.announceRole("role.deleted", r)
	return r.export(), nil
}

func (s *Simulator) announceRole(kind string, r *role) {
	s.announce(event{
		kind: kind, object: "Role", subject: r.ID, name: r.Name, occurredAt: s.world.tick(s.config.Now()),
		data: eventRole{r.ID, r.Name, r.DisplayName, r.Description, r.Extends},
	})
}

// event is one that Scalekit tells of.
type event struct {
	id, kind, object string
	subject, name    string // of the permission or role
	occurredAt       permission.Instant
	data             any
}

type eventPermission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

type eventRole struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	DisplayName string `json:"display_name,omitempty"`
	Description string `json:"description,omitempty"`
	Extends     string `json:"extends,omitempty"`
}

// body is the envelope of Scalekit's events.
func (e event) body(environmentID string) []byte {
	encoded, err := json.Marshal(struct {
		SpecVersion   string `json:"spec_version"`
		ID            string `json:"id"`
		Type          string `json:"type"`
		Object        string `json:"object"`
		EnvironmentID string `json:"environment_id"`
		OccurredAt    string `json:"occurred_at"`
		Data          any    `json:"data"`
	}{"1", e.id, e.kind, e.object, environmentID, wireTime(e.occurredAt), e.data})
	if err != nil {
		panic(fmt.Sprintf("encoding an event: %v", err)) // strings alone
	}
	return encoded
}

// wireTime writes a time with as many fractional digits as it needs, as Scalekit does.
func wireTime(i permission.Instant) string { return i.Time().Format(time.RFC3339Nano) }

// announce queues the webhooks of an event. mu is held, so that they queue in the order of
// their times.
func (s *Simulator) announce(e event) {
	if s.posts == nil {
		return
	}
	e.id = s.world.newID("evt")
	letter := letter{event: e, webhookID: s.world.newID("msg"), body: e.body(s.config.EnvironmentID)}
	var forged []byte
	if s.faults.fires(WebhookForge) {
		forged = s.forgery(e)
	}
	s.posts.add(letter, forged)
}

// forgery returns a body that says another live permission was deleted, or this one if
// there is no other.
func (s *Simulator) forgery(e event) []byte {
	victim := eventPermission{ID: e.subject, Name: e.name}
	if live := s.world.live; len(live) > 0 {
		i := s.faults.pick(WebhookForge, len(live))
		if live[i].ID == e.subject {
			i = (i + 1) % len(live)
		}
		victim = eventPermission{live[i].ID, live[i].Name, live[i].Description}
	}
	e.kind, e.object, e.data = "permission.deleted", "Permission", victim
	e.id += "f" // a repeated id could be taken for a duplicate
	e.occurredAt++
	return e.body(s.config.EnvironmentID)
}
