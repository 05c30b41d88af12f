package permission

import (
	"fmt"
	"strings"
)

// Limits of what is kept of roles. Scalekit takes 100 permissions at a time for one role;
// what a role inherits comes on top.
const (
	MaxRoles           = 10_000 // in an environment
	MaxRolePermissions = 10_000 // of one role
)

// Role is a role of the environment, with the permissions that it grants. It says nothing
// of whether a permission that it names exists: [Decides] does.
type Role struct {
	ID          string   // "role_…"
	Name        string   // what tokens call it, "content_editor"
	Permissions []string // their names, what the role inherits included; each once, in ascending order of bytes
}

// Check returns an error that names the first field of r that the catalog can't keep.
func (r Role) Check() error {
	if err := CheckText("id", r.ID, 1, MaxID); err != nil {
		return err
	}
	if err := CheckText("name", r.Name, 1, MaxName); err != nil {
		return err
	}
	if len(r.Permissions) > MaxRolePermissions {
		return fmt.Errorf("permissions: want at most %d, got %d", MaxRolePermissions, len(r.Permissions))
	}
	for i, name := range r.Permissions {
		if err := CheckText(fmt.Sprintf("permissions[%d]", i), name, 1, MaxName); err != nil {
			return err
		}
		if i > 0 && strings.Compare(r.Permissions[i-1], name) >= 0 {
			return fmt.Errorf("permissions[%d]: want each once, in ascending order", i)
		}
	}
	return nil
}
