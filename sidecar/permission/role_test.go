package permission_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/permission"
)

func TestCheckRole(t *testing.T) {
	good := permission.Role{ID: "role_1", Name: "editor", Permissions: []string{"a", "b:c"}}
	for _, r := range []permission.Role{good, {ID: "role_1", Name: strings.Repeat("n", permission.MaxName)}} {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	for want, change := range map[string]func(*permission.Role){
		"id: want 1 to 256 bytes, got 0":                                func(r *permission.Role) { r.ID = "" },
		"name: want 1 to 256 bytes, got 257":                            func(r *permission.Role) { r.Name = strings.Repeat("n", 257) },
		"name: want no control characters, got one at byte 0":           func(r *permission.Role) { r.Name = "\x00" },
		"permissions: want at most 10000, got 10001":                    func(r *permission.Role) { r.Permissions = make([]string, 10_001) },
		"permissions[0]: want 1 to 256 bytes, got 0":                    func(r *permission.Role) { r.Permissions[0] = "" },
		"permissions[1]: want no control characters, got one at byte 1": func(r *permission.Role) { r.Permissions[1] = "b\n" },
		"permissions[1]: want each once, in ascending order":            func(r *permission.Role) { r.Permissions[1] = "a" },
	} {
		r := good
		r.Permissions = slices.Clone(good.Permissions)
		change(&r)
		if got := r.Check(); fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
