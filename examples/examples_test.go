// Package examples_test runs the example policies: their Rego tests, as the sidecar compiles
// them, with a stock opa, and what their pages show.
package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies/policiestest"
)

func examples(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("*-policy")
	if err != nil || len(found) < 2 {
		t.Fatalf("got %v, %v", found, err)
	}
	return found
}

// compiled is an example beside the library, as several --policy are.
func compiled(t *testing.T, example string) *bundle.Policy {
	t.Helper()
	return policiestest.Compile(t, os.DirFS("../policies/lib"), os.DirFS(example))
}

// The tests beside the examples pass and cover each line.
func TestRego(t *testing.T) {
	for _, example := range examples(t) {
		t.Run(example, func(t *testing.T) { policiestest.RunRego(t, 12, example, "../policies/lib") })
	}
}

// An example that needs the library says so when it is loaded without.
func TestAnExampleAloneIsRefused(t *testing.T) {
	for _, example := range examples(t) {
		_, err := policiestest.TryCompile(t, os.DirFS(example))
		if err == nil || !strings.Contains(err.Error(), "lib") {
			t.Errorf("%s: got %v, want an error that names the library", example, err)
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the blocks of one language on the page of an example.
func blocks(t *testing.T, example, language string) (found []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(example, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range fence.FindAllStringSubmatch(string(page), -1) {
		if match[1] == language {
			found = append(found, match[2])
		} else if match[1] != "sh" && match[1] != "json" {
			t.Errorf("%s: nobody tests blocks of %q", example, match[1])
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s shows no %s", example, language)
	}
	return found
}

// The commands of the pages run, at the top of the repository.
func TestCommandsOfThePages(t *testing.T) {
	opa := policiestest.StockOPA(t, "..")
	for _, example := range examples(t) {
		for _, block := range blocks(t, example, "sh") {
			command := exec.CommandContext(t.Context(), "sh", "-e", "-c", block)
			command.Dir, command.Env = "..", append(os.Environ(), "PATH="+opa+":"+os.Getenv("PATH"))
			if output, err := command.CombinedOutput(); err != nil || !strings.Contains(string(output), "PASS: ") || strings.Contains(string(output), "FAIL") {
				t.Errorf("%s: %v\n%s", block, err, output)
			}
		}
	}
}

// asked is the question of a page, with members of its parts replaced: a path such as
// resource.properties.amount, and a value in JSON.
func asked(t *testing.T, example string, changes map[string]string) any {
	t.Helper()
	question := parsed(t, blocks(t, example, "json")[0])
	for path, text := range changes {
		at := question.(map[string]any)
		members := strings.Split(path, ".")
		for _, member := range members[:len(members)-1] {
			if at[member] == nil {
				at[member] = map[string]any{}
			}
			at = at[member].(map[string]any)
		}
		at[members[len(members)-1]] = parsed(t, text)
	}
	return question
}

func parsed(t *testing.T, text string) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}

// catalog makes the permissions live, and has one role.
func catalog(t *testing.T, permissions ...string) map[string]any {
	t.Helper()
	live := map[string]any{}
	for _, name := range permissions {
		live[name] = map[string]any{"id": "perm_of_" + name}
	}
	return map[string]any{"scalekit": map[string]any{
		"permissions": live,
		"roles":       parsed(t, `{"manager": {"permissions": ["invoices:approve"]}, "viewer": {"permissions": ["invoices:read"]}}`),
	}}
}

func permissionPaths(names ...string) (paths []string) {
	for _, name := range names {
		paths = append(paths, "/scalekit/permissions/"+name)
	}
	return paths
}

// What the page of the invoicing policy shows is what it answers, and what it reads for it.
func TestInvoicing(t *testing.T) {
	const example, manager = "invoicing-policy", "/scalekit/roles/manager/permissions"
	limit := "/invoicing/limits/EUR/manager"
	policy, shown := compiled(t, example), blocks(t, example, "json")
	data := catalog(t, "invoices:create", "invoices:approve", "invoices:pay", "suppliers:manage", "invoices:read")
	for name, c := range map[string]struct {
		changes map[string]string
		want    string
		reads   []string
	}{
		"a role":     {nil, shown[1], append(permissionPaths("invoices:approve"), manager, limit)},
		"the second": {map[string]string{"resource.properties.amount": "3000000", "resource.properties.created_by": `"usr_1"`}, shown[2], append(permissionPaths("invoices:approve"), manager, limit)},
		"the token": {
			map[string]string{"action.name": `"invoices:create"`}, shown[1], permissionPaths("invoices:create"),
		},
		"paying": {
			map[string]string{"action.name": `"invoices:pay"`, "resource.properties.approved_by": `"usr_3"`, "token.claims.permissions": `["invoices:pay", "suppliers:manage"]`},
			`{"decision": false, "reasons": ["conflicting_permissions"]}`, append(permissionPaths("invoices:pay", "suppliers:manage"), limit),
		},
		"a number for a name": {
			map[string]string{"action.name": "7", "token.claims.permissions": "[7]", "token.claims.roles": "[7]"},
			`{"decision": false, "reasons": ["not_granted"]}`, nil,
		},
		"no question at all": {
			map[string]string{"action": "null", "resource": "[]", "token": "null"},
			`{"decision": false, "reasons": ["not_granted", "organization_mismatch"]}`, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			policiestest.WantReads(t, policy, "data.authz.decision", data, asked(t, example, c.changes), c.want, c.reads)
		})
	}
}

// What the page of the support policy shows is what it answers, and what it reads for it.
func TestSupportAccess(t *testing.T) {
	const example = "support-access-policy"
	policy, shown := compiled(t, example), blocks(t, example, "json")
	data := catalog(t, "customers:read", "support:read", "support:lead", "support:break_glass")
	late := map[string]string{"context.time": `"2026-03-04T22:30:00Z"`, "context.break_glass": "true"}
	glass := map[string]string{
		"context.time": late["context.time"], "context.break_glass": "true",
		"resource.properties.incident":   `{"opened_at": "2026-03-04T22:00:00Z"}`,
		"subject.properties.permissions": `["support:read", "support:break_glass"]`,
	}
	for name, c := range map[string]struct {
		changes map[string]string
		want    string
		reads   []string
	}{
		"in the window": {nil, shown[1], permissionPaths("customers:read", "support:lead")},
		"late":          {late, shown[2], permissionPaths("customers:read", "support:lead")},
		"glass":         {glass, shown[3], permissionPaths("customers:read", "support:read", "support:break_glass")},
		"the customer's own": {
			map[string]string{"subject.properties": `{"organization_id": "org_1", "permissions": ["customers:read"]}`},
			`{"decision": true, "reasons": ["granted"]}`, permissionPaths("customers:read"),
		},
		"no question at all": {map[string]string{"subject": "7", "action": "null"}, `{"decision": false, "reasons": ["not_support"]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			answer := policiestest.Ask(t, policy, "data.authz.decision", data, asked(t, example, c.changes))
			if !answer.Is(t, c.want) {
				t.Errorf("got %v, want %s", answer.Value, c.want)
			}
			if got := answer.OfCatalog(); !slices.Equal(got, slices.Sorted(slices.Values(c.reads))) {
				t.Errorf("read %q, want %q", got, c.reads)
			}
		})
	}
}
