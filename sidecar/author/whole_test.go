package author_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
	"github.com/postern-authz/postern/sidecar/author"
)

// readsWhole evaluates data.a.p and reports whether storage was asked for a collection.
func readsWhole(t *testing.T) (whole bool, reads []string) {
	t.Helper()
	loaded, err := bundle.Load(t.Context(), os.DirFS("."), bundle.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := loaded.Compile(bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	record := func(name string) any { return map[string]any{"id": "perm_" + name, "name": name} }
	store := &policiestest.Recorder{Store: inmem.NewFromObject(map[string]any{"scalekit": map[string]any{
		"permissions": map[string]any{"data:read": record("data:read"), "data:manage": record("data:manage")},
		"deleted":     map[string]any{"data:erase": record("data:erase")},
		"sync":        map[string]any{"count": 2},
		"roles":       map[string]any{"admin": map[string]any{"permissions": []any{"data:read"}}},
	}})}
	query, err := rego.New(rego.Query("data.a.p"), rego.Compiler(policy.Compiler), rego.Store(store)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store.Reads = nil
	if _, err := query.Eval(t.Context(), rego.EvalInput(map[string]any{
		"action":  map[string]any{"name": "data:read"},
		"subject": map[string]any{"properties": map[string]any{"permissions": []any{"data:read", "data:manage"}}},
	})); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(store.Reads, func(path string) bool {
		return slices.Contains([]string{"/", "/scalekit", "/scalekit/permissions", "/scalekit/deleted"}, path)
	}), store.Reads
}

// What the check says of a rule is what storage is really asked when it is evaluated.
func TestWholeReadsAreWhatStorageIsAsked(t *testing.T) {
	for policy, want := range map[string]bool{
		`p if data.scalekit.permissions[input.action.name]`:                                                         false,
		`p := data.scalekit.permissions[input.action.name].id`:                                                      false,
		`p if not data.scalekit.permissions[input.action.name]`:                                                     false,
		`p if data.scalekit.deleted[input.action.name]`:                                                             false,
		"p if {\n\tname := input.action.name\n\tdata.scalekit.permissions[name]\n}":                                 false,
		"p if {\n\tsome name in input.subject.properties.permissions\n\tdata.scalekit.permissions[name]\n}":         false,
		`p if every name in input.subject.properties.permissions { data.scalekit.permissions[name] }`:               false,
		`p := {name | some name in input.subject.properties.permissions; data.scalekit.permissions[name]}`:          false,
		`p := [r | some name in ["data:read"]; r := data.scalekit.permissions[name]]`:                               false,
		"_live(name) if data.scalekit.permissions[name]\n\np if _live(input.action.name)":                           false,
		"import data.scalekit as s\n\np if s.permissions[input.action.name]":                                        false,
		"_name := input.action.name\n\np if data.scalekit.permissions[_name].name == _name":                         false,
		`p if data.scalekit.sync.count == 2`:                                                                        false,
		"p if {\n\tsome role in data.scalekit.roles\n\t\"data:read\" in role.permissions\n}":                        false,
		"_part := \"permissions\"\n\np if data.scalekit[_part][input.action.name]":                                  false,
		`p if count(data.scalekit.permissions) == 1 with data.scalekit.permissions as {"x": 1}`:                     false,
		`p if data.scalekit.permissions[_].name == "data:read"`:                                                     true,
		"p if {\n\tsome name\n\tdata.scalekit.permissions[name]\n\tname in input.subject.properties.permissions\n}": true,
		`p := {name | data.scalekit.permissions[name]; name in input.subject.properties.permissions}`:               true,
		`p := {name: 1 | some name, _ in data.scalekit.permissions}`:                                                true,
		`p if every name, _ in data.scalekit.permissions { name != "" }`:                                            true,
		`p if count(data.scalekit.permissions) == 2`:                                                                true,
		`p if input.action.name in object.keys(data.scalekit.permissions)`:                                          true,
		`p := object.get(data.scalekit.permissions, input.action.name, null)`:                                       true,
		`p := object.get(data.scalekit, ["permissions", input.action.name], null)`:                                  true,
		"p if {\n\tall := data.scalekit.permissions\n\tall[input.action.name]\n}":                                   true,
		`p if {"id": "perm_1"} in data.scalekit.deleted`:                                                            true,
		`p := data.scalekit`: true,
		"p if {\n\tsome part\n\tdata.scalekit[part][input.action.name]\n}":                                                true,
		"_all := data.scalekit.permissions\n\np if _all[input.action.name]":                                               true,
		"p if {\n\tx := 1\n\tnot x == 2\n\tsome name in [n | some n, _ in data.scalekit.permissions]\n\tname == \"x\"\n}": true,
		`p := 1 if false else := 2 if count(data.scalekit.permissions) > 0`:                                               true,
		"import data.scalekit.permissions\n\np := {r.id | some r in permissions}":                                         true,
	} {
		t.Run(policy, func(t *testing.T) {
			tree(t, map[string]string{"a.rego": "package a\n\n" + policy + "\n"})
			asked, reads := readsWhole(t)
			if asked != want {
				t.Errorf("storage was asked for a collection: %t, want %t: %q", asked, want, reads)
			}
			got := check(t, author.Check{})
			if told := len(got) > 0; told != want || (told && !strings.Contains(got[0], "warning: this reads all of data.scalekit")) {
				t.Errorf("got %q, want a warning: %t", got, want)
			}
		})
	}
}

// The keyed form that is told depends on what was written.
func TestWholeReadsAreToldWithAWayOut(t *testing.T) {
	for policy, want := range map[string]string{
		`p if count(data.scalekit.permissions) == 2`:                                              "a.rego:3:12: ;;data.scalekit.sync.count",
		`p := object.get(data.scalekit.permissions, input.action.name, null)`:                     "a.rego:3:17: ;;undefined where object.get",
		`p := {n | data.scalekit.permissions[n]}`:                                                 "a.rego:3:11: ;;`some name in names` goes first",
		"p if {\n\t\"x\" != \"\"\n\tsome name, r in data.scalekit.permissions\n\tr.id == name\n}": "a.rego:5:2: ;;`some name in names` goes first",
	} {
		tree(t, map[string]string{"a.rego": "package a\n\n" + policy + "\n"})
		wantLines(t, check(t, author.Check{}), want)
	}
}

// Nothing is found in what Postern ships, with a catalog that has nothing.
func TestShippedPoliciesAreClean(t *testing.T) {
	c := author.Check{
		Source:   author.Source{Paths: []string{"../../policies"}, Schemas: policies.Schemas()},
		Decision: "authz/decision",
		Catalog:  &author.Catalog{WasDeleted: func(context.Context, string) (bool, error) { return false, nil }},
		Unused:   true,
	}
	findings, err := c.Run(t.Context())
	if err != nil || len(findings) > 0 {
		t.Errorf("got %v, %v", findings, err)
	}
}
