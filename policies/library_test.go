package policies_test

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
)

// entry is a public rule or function of the library, as its METADATA tells it.
type entry struct {
	pkg, name  string // such as permissions and holds
	arguments  int
	parameters string // such as (name), or nothing
	title      string
	custom     map[string]any
}

func (e entry) String() string { return "lib." + e.pkg + "." + e.name }

// library lists what of the library is for others, sorted.
func library(t *testing.T) []entry {
	t.Helper()
	found := map[string]entry{}
	for file, module := range policiestest.Parse(t, librarySource(t)) {
		if strings.HasSuffix(file, "_test.rego") {
			continue
		}
		for _, rule := range module.Rules {
			e := entry{pkg: strings.TrimPrefix(module.Package.Path.String(), "data.lib."), name: string(rule.Head.Name), arguments: len(rule.Head.Args)}
			if strings.HasPrefix(e.name, "_") {
				continue
			}
			if e.arguments > 0 {
				e.parameters = strings.TrimPrefix(rule.Head.Ref().String()+rule.Head.Args.String(), e.name)
			}
			if known, ok := found[e.String()]; ok {
				e = known
			}
			for _, a := range rule.Annotations {
				e.title, e.custom = a.Title, a.Custom
				if a.Scope != "document" {
					t.Errorf("%s: got the scope %q, want document", e, a.Scope)
				}
			}
			found[e.String()] = e
		}
	}
	if len(found) < 20 {
		t.Fatalf("found only %v", found)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b entry) int { return strings.Compare(a.String(), b.String()) })
}

func librarySource(t *testing.T) fs.FS {
	t.Helper()
	source, err := fs.Sub(policies.FS(), "lib")
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// The catalog and the question for which each example holds: a Wednesday, a user with a
// token, and an invoice that somebody else wrote.
func exampleCatalog() map[string]any {
	return map[string]any{"scalekit": map[string]any{
		"permissions": map[string]any{"invoices:read": map[string]any{"id": "perm_1"}, "invoices:approve": map[string]any{"id": "perm_2"}, "invoices:delete": map[string]any{"id": "perm_3"}},
		"deleted":     map[string]any{"invoices:export": map[string]any{"id": "perm_4"}},
		"roles":       map[string]any{"approver": map[string]any{"permissions": []any{"invoices:approve"}}},
	}}
}

func exampleQuestion() map[string]any {
	return map[string]any{
		"subject":  map[string]any{"type": "user", "id": "usr_1"},
		"action":   map[string]any{"name": "invoices:approve"},
		"resource": map[string]any{"type": "invoice", "id": "inv_7", "properties": map[string]any{"organization_id": "org_1", "created_by": "usr_2"}},
		"context":  map[string]any{"time": "2026-03-04T10:30:00Z"},
		"token": map[string]any{"valid": true, "claims": map[string]any{
			"sub": "usr_1", "oid": "org_1", "roles": []any{"approver"}, "permissions": []any{"invoices:read", "invoices:approve", "invoices:export"},
		}},
	}
}

// using compiles a policy with a rule of this body beside the library.
func using(t *testing.T, e entry, body string) (answer func(input any) policiestest.Answer) {
	t.Helper()
	source := fmt.Sprintf("package example\n\nimport data.lib.%s\n\nresult if %s\n", e.pkg, body)
	policy := policiestest.Compile(t, librarySource(t), fstest.MapFS{"example.rego": {Data: []byte(source)}})
	return func(input any) policiestest.Answer {
		return policiestest.Ask(t, policy, "data.example.result", exampleCatalog(), input)
	}
}

// Each public rule tells its title and an example that holds.
func TestExamplesOfTheLibrary(t *testing.T) {
	for _, e := range library(t) {
		example, _ := e.custom["example"].(string)
		if e.title == "" || !strings.Contains(example, e.pkg+"."+e.name) {
			t.Errorf("%s: got title %q and example %q, want both, and the rule in its example", e, e.title, example)
			continue
		}
		if answer := using(t, e, example)(exampleQuestion()); !answer.Is(t, "true") {
			t.Errorf("%s: %s should hold, got %v", e, example, answer)
		}
	}
}

// What the examples of decisions say of a question is true of no question that isn't one.
func TestNothingHoldsForWhatIsNoQuestion(t *testing.T) {
	holdsWithoutOne := []string{
		"lib.subject.agrees", "lib.subject.token_error", // without a token
		"lib.organization.agrees",                         // without an organization
		"lib.permissions.deleted", "lib.permissions.live", // of the catalog alone
	}
	for _, e := range library(t) {
		if slices.Contains(holdsWithoutOne, e.String()) {
			continue
		}
		answer := using(t, e, e.custom["example"].(string))
		for _, question := range []any{nil, map[string]any{}, []any{exampleQuestion()}, "allow", 7, true} {
			if got := answer(question); got.Value != nil {
				t.Errorf("%s holds for %v", e, question)
			}
		}
	}
}

// The lint for names of permissions that aren't live has to know where names are given.
func TestArgumentsThatArePermissionsAreTold(t *testing.T) {
	want := []string{
		"lib.duties.at_most_one", "lib.permissions.deleted", "lib.permissions.granted", "lib.permissions.holds",
		"lib.permissions.holds_all", "lib.permissions.holds_any", "lib.permissions.live", "lib.roles.holds",
	}
	var got []string
	for _, e := range library(t) {
		if told, ok := e.custom["permission_arguments"]; ok {
			got = append(got, e.String())
			if e.arguments != 1 || fmt.Sprint(told) != "[0]" {
				t.Errorf("%s has %d arguments and tells of %v", e, e.arguments, told)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whatever is asked of the library, the store is asked for single records. A call whose
// arguments are many names asks for one after the other.
func TestTheLibraryReadsRecordsAlone(t *testing.T) {
	hostile := []any{
		nil, "invoices:approve",
		map[string]any{},
		with("action", map[string]any{"name": 7}), with("action", nil), with("token", nil), with("context", nil),
		with("token", map[string]any{"valid": true, "claims": map[string]any{"sub": "usr_1", "permissions": []any{7, nil, "x"}, "roles": []any{7, nil, "x", "approver"}}}),
	}
	for _, e := range library(t) {
		answer := using(t, e, e.custom["example"].(string))
		for _, question := range append(hostile, exampleQuestion()) {
			for _, read := range answer(question).Reads {
				if !isRecord(read) {
					t.Errorf("%s: asked %v it read %s, want single records", e, question, read)
				}
			}
		}
	}
}

// with is the example's question with another member.
func with(member string, value any) map[string]any {
	question := exampleQuestion()
	question[member] = value
	return question
}

// isRecord tells a record of the catalog, or what is below one, from a collection.
func isRecord(path string) bool {
	below, ok := strings.CutPrefix(path, "/scalekit/")
	return ok && strings.Contains(below, "/")
}

// What each call costs, name by name.
func TestReadsOfTheLibrary(t *testing.T) {
	const (
		read     = "/scalekit/permissions/invoices:read"
		approve  = "/scalekit/permissions/invoices:approve"
		export   = "/scalekit/permissions/invoices:export"
		exported = "/scalekit/deleted/invoices:export"
		unknown  = "/scalekit/permissions/a:b"
		never    = "/scalekit/deleted/a:b"
		approver = "/scalekit/roles/approver/permissions"
	)
	for call, reads := range map[string][]string{
		`permissions.held`:                                                               {approve},
		`permissions.holds("invoices:approve")`:                                          {approve},
		`permissions.holds("invoices:export")`:                                           {export},
		`permissions.holds("a:b")`:                                                       nil, // isn't listed
		`permissions.holds_any(["a:b", "invoices:read", "invoices:approve"])`:            {read},
		`permissions.holds_any(["invoices:export", "invoices:approve"])`:                 {export, approve},
		`permissions.holds_all(["invoices:read", "invoices:approve"])`:                   {read, approve},
		`permissions.holds_all(["invoices:export", "invoices:approve"])`:                 {export},
		`permissions.live("a:b")`:                                                        {unknown},
		`permissions.granted("invoices:approve")`:                                        nil,
		`permissions.deleted("invoices:export")`:                                         {export, exported},
		`permissions.deleted("a:b")`:                                                     {unknown, never},
		`permissions.deleted("invoices:read")`:                                           {read},
		`roles.granted`:                                                                  {approve, approver},
		`roles.holds("invoices:approve")`:                                                {approve, approver},
		`roles.holds("a:b")`:                                                             {unknown},
		`duties.at_most_one(["invoices:approve", "a:b"])`:                                {approve},
		`duties.at_most_one(["invoices:approve", "invoices:export"])`:                    {approve, export, exported},
		`duties.separate([input.resource.properties.created_by])`:                        nil,
		`organization.agrees`:                                                            nil,
		`subject.agrees`:                                                                 nil,
		`times.between("2026-03-04T10:00:00Z", "2026-03-04T11:00:00Z")`:                  nil,
		`every name in ["invoices:read", "invoices:approve"] { permissions.live(name) }`: {read, approve},
	} {
		pkg, _, _ := strings.Cut(call, ".")
		if strings.Contains(call, "every") {
			pkg = "permissions"
		}
		answer := using(t, entry{pkg: pkg}, "{ "+call+" }")(exampleQuestion())
		if !slices.Equal(answer.Reads, slices.Sorted(slices.Values(reads))) {
			t.Errorf("%s read %q, want %q", call, answer.Reads, reads)
		}
	}
}

// Every package is a directory, says what it is for, and has tests beside it.
func TestPackagesOfTheLibrary(t *testing.T) {
	modules := policiestest.Parse(t, librarySource(t))
	for file, module := range modules {
		if strings.HasSuffix(file, "_test.rego") {
			continue
		}
		beside, ok := modules[strings.TrimSuffix(file, ".rego")+"_test.rego"]
		if !ok || len(beside.Rules) < 5 {
			t.Errorf("%s has no tests beside it", file)
		}
		want := "data.lib." + strings.Split(file, "/")[0]
		if got := module.Package.Path; !got.Equal(ast.MustParseRef(want)) {
			t.Errorf("%s: got the package %s, want %s", file, got, want)
		}
		if a := module.Annotations[0]; a.Scope != "package" || a.Title == "" || a.Description == "" || len(a.Schemas) == 0 {
			t.Errorf("%s: the package should tell its title, description and schemas", file)
		}
	}
}
