package scalekit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/scalekit"
)

func role(id, name, permissions string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"display_name":"A role","description":"","default_creator":false,"default_member":true,"permissions":%s,"dependent_roles_count":0,"is_org_role":false}`, id, name, permissions)
}

func rolesOf(entries ...string) string {
	return `{"roles":[` + strings.Join(entries, ",") + `]}`
}

func TestRoles(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"none", `{"roles":[]}`, "[]"},
		{"as Scalekit's SDK has them, an inherited permission once for each role", rolesOf(
			role("role_2", "editor", `[{"id":"perm_2","name":"b","description":"","role_name":"editor"},{"id":"perm_1","name":"a","role_name":"viewer"},{"id":"perm_1","name":"a","role_name":"reader"}]`),
			role("role_1", "admin", `[]`),
		), "[{role_1 admin []} {role_2 editor [a b]}]"},
		{"names alone", rolesOf(role("role_1", "admin", `["b","a:b","b"]`)), "[{role_1 admin [a:b b]}]"},
		{"without permissions", rolesOf(`{"id":"role_1","name":"admin"}`, `{"id":"role_2","name":"none","permissions":null}`), "[{role_1 admin []} {role_2 none []}]"},
		{"an organization's role is left out, whatever it holds", rolesOf(`{"id":"role_9","name":"admin","is_org_role":true,"permissions":7}`, role("role_1", "admin", `["a"]`)), "[{role_1 admin [a]}]"},
		{"what is new is left alone", rolesOf(`{"id":"role_1","name":"admin","is_org_role":null,"new":{"a":[1]}}`), "[{role_1 admin []}]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPI(t)
			a.roles = answering(test.body)
			got, err := newClient(t, configOf(a.URL)).Roles(t.Context())
			if err != nil || fmt.Sprint(got) != test.want {
				t.Errorf("got %v, %v, want %s", got, err, test.want)
			}
			if asked := a.asked(); asked[len(asked)-1] != "/api/v1/roles?include=permissions%3Aall" {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

func TestRolesAreRefused(t *testing.T) {
	many := make([]string, 10_001)
	for i := range many {
		many[i] = `{"is_org_role":true}`
	}
	for want, body := range map[string]string{
		"malformed: want one JSON value":                                                                  `{"roles":[`,
		"malformed: want an object, got an array":                                                         `[]`,
		"malformed: roles: want an array, got none":                                                       `{}`,
		"malformed: roles: want an array, got null":                                                       `{"roles":null}`,
		"malformed: roles: want an array, got an object":                                                  `{"roles":{}}`,
		"malformed: roles: want at most 10000, got 10001":                                                 rolesOf(many...),
		"malformed: roles[0]: want an object, got a string":                                               rolesOf(`"admin"`),
		"malformed: roles[0].is_org_role: want true or false, got a string":                               rolesOf(`{"is_org_role":"false"}`),
		"malformed: roles[1].id: want a string that isn't empty, got none":                                rolesOf(role("role_1", "admin", "[]"), `{"name":"admin"}`),
		"malformed: roles[0].name: want a string that isn't empty, got a number":                          rolesOf(`{"id":"role_1","name":1}`),
		"malformed: roles[0].name: want no control characters, got one at byte 5":                         rolesOf(`{"id":"role_1","name":"admin\n"}`),
		"malformed: roles[0].permissions: want an array, got an object":                                   rolesOf(role("role_1", "admin", `{}`)),
		"malformed: roles[0].permissions[0]: want an object or a string, got a number":                    rolesOf(role("role_1", "admin", `[1]`)),
		"malformed: roles[0].permissions[0]: want an object or a string, got null":                        rolesOf(role("role_1", "admin", `[null]`)),
		"malformed: roles[0].permissions[1].name: want a string that isn't empty, got none":               rolesOf(role("role_1", "admin", `["a",{"id":"perm_1"}]`)),
		"malformed: roles[0].permissions[0].name: want a string that isn't empty, got an empty one":       rolesOf(role("role_1", "admin", `[""]`)),
		"malformed: roles[0].permissions[0]: want 1 to 256 bytes, got 257":                                rolesOf(role("role_1", "admin", `["`+strings.Repeat("n", 257)+`"]`)),
		`malformed: roles: want each name once, got "admin" twice`:                                        rolesOf(role("role_1", "admin", "[]"), role("role_2", "admin", "[]")),
		`malformed: roles: want each id once, got "role_1" twice`:                                         rolesOf(role("role_1", "admin", "[]"), role("role_1", "editor", "[]")),
		"malformed: want each key once in an object":                                                      `{"roles":[],"roles":[]}`,
		"malformed: want at most 16 nested values":                                                        `{"roles":[],"x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
		"malformed: want at most 8388608 bytes in one answer":                                             `{"roles":[` + strings.Repeat(" ", 8<<20) + `]}`,
		"incomplete: next_page_token: want none, since roles aren't paged; got one, so roles are missing": `{"roles":[],"next_page_token":"x"}`,
	} {
		a := newAPI(t)
		a.roles = answering(body)
		c := newClient(t, configOf(a.URL))
		got, err := c.Roles(t.Context())
		if failure := asAPIError(t, err); err.Error() != "listing roles: "+want || got != nil || failure.Op != scalekit.OpRoles || failure.Page != 0 {
			t.Errorf("got  %v, %v\nwant listing roles: %s", got, err, want)
		}
	}
}
