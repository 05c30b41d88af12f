package policies_test

import (
	"testing"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
)

// What an answer costs the catalog: an allow reads one record and nothing else, and no
// question reads a collection.
func TestReads(t *testing.T) {
	const (
		permission = "/scalekit/permissions/data:manage"
		deletion   = "/scalekit/deleted/data:manage"
		complete   = "/scalekit/sync/complete"
		settings   = "/postern/settings/on_incomplete"
	)
	live := map[string]any{"data:manage": map[string]any{"id": "perm_1"}, "7": map[string]any{"id": "perm_7"}}
	none := map[string]any{}
	policy := policiestest.Compile(t, policies.FS())
	for name, c := range map[string]struct {
		permissions, deleted map[string]any
		complete             bool
		action               any
		granted              []any
		want                 string
		reads                []string
	}{
		"an allow":            {live, none, true, "data:manage", []any{"data:manage"}, `{"decision": true, "reasons": ["granted"]}`, []string{permission}},
		"incomplete":          {live, none, false, "data:manage", []any{"data:manage"}, `{"decision": true, "reasons": ["granted"]}`, []string{permission}},
		"no grant":            {live, none, true, "data:manage", []any{}, `{"decision": false, "reasons": ["not_granted"]}`, []string{permission}},
		"deleted":             {none, live, true, "data:manage", []any{"data:manage"}, `{"decision": false, "reasons": ["permission_deleted"]}`, []string{permission, deletion}},
		"unknown":             {none, none, true, "data:manage", []any{"data:manage"}, `{"decision": false, "reasons": ["permission_unknown"]}`, []string{permission, deletion, complete}},
		"unknown, incomplete": {none, none, false, "data:manage", []any{"data:manage"}, `{"decision": true, "reasons": ["deferred", "granted"]}`, []string{permission, deletion, complete, settings}},
		// Storage would read the number 7 as the name "7".
		"a number": {live, live, true, 7, []any{7}, `{"decision": false, "reasons": ["not_granted", "permission_unknown"]}`, []string{complete}},
	} {
		t.Run(name, func(t *testing.T) {
			policiestest.WantReads(t, policy, "data.authz.decision", map[string]any{
				"scalekit": map[string]any{"permissions": c.permissions, "deleted": c.deleted, "sync": map[string]any{"complete": c.complete}},
				"postern":  map[string]any{"settings": map[string]any{"on_incomplete": "defer"}},
			}, map[string]any{
				"subject":  map[string]any{"properties": map[string]any{"permissions": c.granted}},
				"action":   map[string]any{"name": c.action},
				"resource": map[string]any{"type": "dataset", "id": "ds_7"},
			}, c.want, c.reads)
		})
	}
}

// With a token it is the same one record.
func TestReadsWithAToken(t *testing.T) {
	policiestest.WantReads(t, policiestest.Compile(t, policies.FS()), "data.authz.decision", map[string]any{"scalekit": map[string]any{
		"permissions": map[string]any{"data:manage": map[string]any{"id": "perm_1"}},
	}}, map[string]any{
		"subject": map[string]any{"id": "usr_1"}, "action": map[string]any{"name": "data:manage"}, "resource": map[string]any{"type": "dataset", "id": "ds_7"},
		"token": map[string]any{"valid": true, "claims": map[string]any{"sub": "usr_1", "permissions": []any{"data:manage"}, "roles": []any{"admin"}}},
	}, `{"decision": true, "reasons": ["granted"]}`, []string{"/scalekit/permissions/data:manage"})
}

// What a grant by roles costs the catalog: the permission, then one role after the other until
// one holds it. No role is read for a permission that isn't live.
func TestReadsOfRoles(t *testing.T) {
	const (
		permission = "/scalekit/permissions/data:manage"
		manager    = "/scalekit/roles/manager/permissions"
		reader     = "/scalekit/roles/reader/permissions"
	)
	holds := func(name any) any { return map[string]any{"permissions": []any{name}} }
	held := map[string]any{"manager": holds("data:manage"), "reader": holds("data:read"), "7": holds("data:manage"), "odd": holds(7)}
	live := map[string]any{"data:manage": map[string]any{"id": "perm_1"}, "7": map[string]any{"id": "perm_7"}}
	policy := policiestest.Compile(t, policies.FS())
	for name, c := range map[string]struct {
		permissions map[string]any
		action      any
		roles       []any
		want        string
		reads       []string
	}{
		"granted":       {live, "data:manage", []any{"manager"}, "true", []string{permission, manager}},
		"by the second": {live, "data:manage", []any{"reader", "manager"}, "true", []string{permission, reader, manager}},
		"by the first":  {live, "data:manage", []any{"manager", "reader"}, "true", []string{permission, manager}},
		"by none":       {live, "data:manage", []any{"reader"}, "", []string{permission, reader}},
		"no roles":      {live, "data:manage", []any{}, "", []string{permission}},
		"not live":      {map[string]any{}, "data:manage", []any{"manager"}, "", []string{permission}},
		// Storage would read the number 7 as the name "7".
		"a number for a role":    {live, "data:manage", []any{7}, "", []string{permission}},
		"a number for an action": {live, 7, []any{"odd"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			policiestest.WantReads(t, policy, "data.lib.roles.granted", map[string]any{"scalekit": map[string]any{"permissions": c.permissions, "roles": held}}, map[string]any{
				"action": map[string]any{"name": c.action},
				"token":  map[string]any{"valid": true, "claims": map[string]any{"roles": c.roles}},
			}, c.want, c.reads)
		})
	}
}
