package scalekit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/strictjson"
)

const (
	largestRoles = 8 << 20 // bytes
	rolesDepth   = 16      // Scalekit's own answer nests five times
)

var errMorePages = errors.New("next_page_token: want none, since roles aren't paged; got one, so roles are missing")

// Roles lists the environment's roles in the order of their names, each with all permissions
// that it grants, inherited ones included. Those of single organizations are left out. An
// error is an [APIError], or wraps [context.Canceled]; nothing is returned then.
func (c *Client) Roles(ctx context.Context) ([]permission.Role, error) {
	got, err := c.get(ctx, call{
		op: OpRoles, path: "/api/v1/roles", most: largestRoles,
		query: url.Values{"include": {"permissions:all"}}, // direct and inherited ones
	})
	if err != nil {
		return nil, err
	}
	roles, err := readRoles(got.body)
	if err != nil {
		e := c.malformed(OpRoles, err)
		if errors.Is(err, errMorePages) {
			e.Kind = KindIncomplete
		}
		return nil, e
	}
	return roles, nil
}

// readRoles reads the answer. Its shape is that of the messages ListRolesResponse, Role and
// RolePermission in scalekit/v1/roles/roles.proto of Scalekit's Go SDK (v2), written as JSON:
//
//	{"roles":[{"id":"role_…","name":"editor","is_org_role":false,"extends":"viewer",
//	  "permissions":[{"id":"perm_…","name":"data:manage","role_name":"viewer"}]}]}
//
// An inherited permission bears the name of the role that it came from, and comes once for
// each of them. The guides show lists of names elsewhere, so a name alone is taken as well.
// A role without permissions grants nothing.
func readRoles(text []byte) ([]permission.Role, error) {
	if err := strictjson.Check(text, rolesDepth); err != nil {
		return nil, err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return nil, err
	}
	if next, err := document.OptionalText("next_page_token"); err != nil || next != "" {
		return nil, errMorePages
	}
	entries, err := array("roles", document)
	if err != nil || entries == nil {
		return nil, fmt.Errorf("roles: want an array, got %s", strictjson.KindOf(document["roles"]))
	}
	if len(entries) > permission.MaxRoles {
		return nil, fmt.Errorf("roles: want at most %d, got %d", permission.MaxRoles, len(entries))
	}
	roles := make([]permission.Role, 0, len(entries))
	for i, entry := range entries {
		role, ours, err := readRole(fmt.Sprintf("roles[%d]", i), entry)
		if err != nil {
			return nil, err
		}
		if ours {
			roles = append(roles, role)
		}
	}
	return inOrder(roles)
}

// inOrder sorts by name, and refuses what two roles would share.
func inOrder(roles []permission.Role) ([]permission.Role, error) {
	ids := make(map[string]bool, len(roles))
	slices.SortFunc(roles, func(a, b permission.Role) int { return strings.Compare(a.Name, b.Name) })
	for i, role := range roles {
		if i > 0 && roles[i-1].Name == role.Name {
			return nil, fmt.Errorf("roles: want each name once, got %.64q twice", role.Name)
		}
		if ids[role.ID] {
			return nil, fmt.Errorf("roles: want each id once, got %.64q twice", role.ID)
		}
		ids[role.ID] = true
	}
	return roles, nil
}

// readRole reads an entry, which path names; ours is false for an organization's role.
func readRole(path string, raw json.RawMessage) (role permission.Role, ours bool, err error) {
	entry, err := strictjson.Parse(raw)
	if err != nil {
		return permission.Role{}, false, fmt.Errorf("%s: %w", path, err)
	}
	ofOrganization, err := entry.OptionalBoolean(path + ".is_org_role")
	if err != nil || ofOrganization {
		return permission.Role{}, false, err
	}
	if role.ID, err = entry.Text(path + ".id"); err != nil {
		return permission.Role{}, false, err
	}
	if role.Name, err = entry.Text(path + ".name"); err != nil {
		return permission.Role{}, false, err
	}
	if role.Permissions, err = readGranted(path+".permissions", entry); err != nil {
		return permission.Role{}, false, err
	}
	if err := role.Check(); err != nil {
		return permission.Role{}, false, fmt.Errorf("%s.%w", path, err)
	}
	return role, true, nil
}

// readGranted reads the names of a role's permissions, each once and in order.
func readGranted(path string, entry strictjson.Object) ([]string, error) {
	granted, err := array(path, entry)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(granted))
	for i, raw := range granted {
		if names[i], err = readName(fmt.Sprintf("%s[%d]", path, i), raw); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// readName reads a permission of a role: an object with a name, or the name.
func readName(path string, raw json.RawMessage) (string, error) {
	if raw[0] == '"' {
		return strictjson.Object{"name": raw}.Text(path + ".name")
	}
	p, err := strictjson.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("%s: want an object or a string, got %s", path, strictjson.KindOf(raw))
	}
	return p.Text(path + ".name")
}

// array returns a member that is an array, or nil for null or none.
func array(path string, o strictjson.Object) ([]json.RawMessage, error) {
	key := path[strings.LastIndexByte(path, '.')+1:]
	var elements []json.RawMessage
	if raw := o[key]; raw != nil && json.Unmarshal(raw, &elements) != nil {
		return nil, fmt.Errorf("%s: want an array, got %s", path, strictjson.KindOf(raw))
	}
	return elements, nil
}
