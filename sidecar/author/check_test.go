package author_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// tree writes files into a new directory and goes there.
func tree(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// known is a catalog with data:read, data:manage and report:export, of which data:erase was
// deleted.
func known() *author.Catalog {
	return &author.Catalog{
		Live:       []string{"data:read", "data:manage", "report:export"},
		WasDeleted: func(_ context.Context, name string) (bool, error) { return name == "data:erase", nil },
	}
}

func check(t *testing.T, c author.Check) []string {
	t.Helper()
	c.Schemas = policies.Schemas()
	findings, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(findings))
	for i, f := range findings {
		lines[i] = f.String()
	}
	return lines
}

// wantLines wants each line to hold the parts of one wanted, which ";;" separates.
func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		for part := range strings.SplitSeq(want[i], ";;") {
			ok = ok && strings.Contains(got[i], part)
		}
	}
	if !ok {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCheckFindsMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		check author.Check
		want  []string
	}{
		"nothing": {map[string]string{"a.rego": "package authz\n\ndecision := true"}, author.Check{Decision: "authz/decision"}, nil},
		"syntax, in all files": {
			map[string]string{"a.rego": "package a\n\np := (", "b/b.rego": "package b\n\np if {", "c_test.rego": "package c\n\n)"},
			author.Check{},
			[]string{"a.rego:3:;;error: ;;[parse]", "b/b.rego:3:;;[parse]", "c_test.rego:3:;;[parse]"},
		},
		"types and sloppiness, more than ten": {
			map[string]string{"a.rego": "package a\n\n" + strings.Repeat("p if { x := 1 }\n", 12)},
			author.Check{},
			slices.Repeat([]string{"error: assigned var x unused [compile]"}, 12),
		},
		"a typo in input, without METADATA": {
			map[string]string{"a.rego": "package a\n\np if input.sbject.id == \"x\""},
			author.Check{},
			[]string{`a.rego:3:6: error: input.sbject.id is never there: input has no "sbject"; did you mean "subject"?; it has action, context, resource, subject, token [schema]`},
		},
		"a typo in the catalog": {
			map[string]string{"a.rego": "package a\n\np if data.scalekit.permissionz[input.action.name]"},
			author.Check{},
			[]string{`data.scalekit has no "permissionz"; did you mean "permissions"?;;[schema]`},
		},
		"typos in records of the catalog": {
			map[string]string{"a.rego": "package a\n\np if data.scalekit.permissions[input.action.name].create_at == \"\"\n\nq if {\n\tsome name in input.subject.properties.permissions\n\tlive := data.scalekit.permissions[name]\n\tlive.ID != \"\"\n}\n\nr if data.scalekit.deleted[input.action.name].at\n\ns := data.scalekit.roles.admin.permission\n\nt if data.scalekit.permissions[input.action.name].source == \"webhook\""},
			author.Check{},
			[]string{
				`a.rego:3:6: error: data.scalekit.permissions[name].create_at is never there: data.scalekit.permissions[name] has no "create_at"; did you mean "created_at"?; it has created_at, description, event_id, id, name, source, updated_at [schema]`,
				`a.rego:8:2: ;;has no "ID"`, `a.rego:11:6: ;;has no "at"; it has deleted_at, event_id, id [schema]`, `a.rego:13:6: ;;data.scalekit.roles[name] has no "permission"; did you mean "permissions"?`,
			},
		},
		"a typo in settings": {
			map[string]string{"a.rego": "package a\n\np if data.postern.setings.x"}, author.Check{}, []string{"[schema]"},
		},
		"schemas of its own go first": {
			map[string]string{"a.rego": "# METADATA\n# scope: package\n# schemas:\n#   - input: {\"type\": \"object\", \"properties\": {\"sbject\": {}}}\npackage a\n\np if input.sbject"}, author.Check{}, nil,
		},
		"of all packages below it, too": {
			map[string]string{"a.rego": "# METADATA\n# scope: subpackages\n# schemas:\n#   - input: {\"type\": \"object\", \"properties\": {\"sbject\": {}}}\npackage a\n\np if input.sbject\n\nq if data.scalekit.x"}, author.Check{}, []string{"a.rego:9:;;[schema]"},
		},
		"tests may say anything": {
			map[string]string{"a.rego": "package a\n\np := 1", "a_test.rego": "package a_test\n\nimport data.a\n\ntest_p if a.p == 1 with input.anything as 1"}, author.Check{}, nil,
		},
		"the library, left out": {
			map[string]string{"a.rego": "package a\n\nimport data.lib.permissions\n\np if permissions.holds(\"data:read\")"},
			author.Check{},
			[]string{"a.rego:5:6: error: undefined function data.lib.permissions.holds; Postern's library isn't built in: name its directory, policies/lib, beside these policies [compile]"},
		},
		"a builtin": {
			map[string]string{"a.rego": "package a\n\np := http.send({})"}, author.Check{}, []string{"a.rego:3:;;--allow-builtin http.send;;[builtin]"},
		},
		"a builtin that is allowed": {
			map[string]string{"a.rego": "package a\n\np := http.send({})"}, author.Check{Source: author.Source{AllowBuiltins: []string{"http.send"}}}, nil,
		},
		"no decision": {
			map[string]string{"a.rego": "package authz\n\ndesicion := true"}, author.Check{Decision: "authz/decision"}, []string{`error: there is no rule "authz/decision" (--decision); there is authz/desicion [decision]`},
		},
		"data": {
			map[string]string{"a.rego": "package a\n\np := 1", "b/data.json": "{\n x}"},
			author.Check{Source: author.Source{Paths: []string{"."}}},
			[]string{"b/data.json:2: error: want JSON: invalid character 'x' looking for beginning of object key string [load]"},
		},
		"no policies": {map[string]string{"a.txt": ""}, author.Check{}, []string{"error: want .rego files;;[load]"}},
		"WebAssembly": {map[string]string{"a.rego": "package a\n", "p.wasm": ""}, author.Check{}, []string{"error: p.wasm: this is WebAssembly;;[load]"}},
		"a file": {
			map[string]string{"a.rego": "package a\n\np := 1", "d/b.rego": "package b\n\np := 1 + \"\""}, author.Check{Source: author.Source{Paths: []string{"a.rego", "d/b.rego"}}}, []string{"d/b.rego:3:;;[compile]"},
		},
		"two directories": {
			map[string]string{"x/a.rego": "package a\n\np := 1", "y/b.rego": "package b\n\np := data.a.p + \"\""}, author.Check{Source: author.Source{Paths: []string{"x", "y"}}}, []string{"y/b.rego:3:;;[compile]"},
		},
		"two that overlap": {
			map[string]string{"x/a.rego": "package a\n\np := 1", "y/b.rego": "package a\n\nq := 1"}, author.Check{Source: author.Source{Paths: []string{"x", "y"}}}, []string{"error: ;;x and y;;[load]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, c.files)
			wantLines(t, check(t, c.check), c.want...)
		})
	}
}

// Each policy uses one name that doesn't exist where it can be told to be a name.
func TestDeadNames(t *testing.T) {
	for name, policy := range map[string]string{
		"looked up":                          `p if data.scalekit.permissions["data:mange"]`,
		"a member of it":                     `p := data.scalekit.permissions["data:mange"].id`,
		"by an import":                       "import data.scalekit.permissions as live\n\np if live[\"data:mange\"]",
		"negated":                            `p if not data.scalekit.permissions["data:mange"]`,
		"among deletions":                    `p if data.scalekit.deleted["data:mange"]`,
		"asked for":                          `p if input.action.name == "data:mange"`,
		"asked for, the other way":           `p if "data:mange" == input.action.name`,
		"not asked for":                      `p if input.action.name != "data:mange"`,
		"held, says the app":                 `p if "data:mange" in input.subject.properties.permissions`,
		"held, says the token":               `p if "data:mange" in input.token.claims.permissions`,
		"held by a role":                     `p if "data:mange" in data.scalekit.roles.admin.permissions`,
		"held by some role":                  "p if {\n\tsome role in input.token.claims.roles\n\t\"data:mange\" in data.scalekit.roles[role].permissions\n}",
		"held, by iteration":                 `p if input.subject.properties.permissions[_] == "data:mange"`,
		"one of a set":                       `p if input.action.name in {"data:read", "data:mange"}`,
		"one of a list":                      `p if input.action.name in ["data:read", "data:mange"]`,
		"every one of a set":                 `p if every name in {"data:read", "data:mange"} { name in input.token.claims.permissions }`,
		"some of a list":                     "p if {\n\tsome name in [\"data:read\", \"data:mange\"]\n\tdata.scalekit.permissions[name]\n}",
		"in a variable":                      "p if {\n\tname := \"data:mange\"\n\tdata.scalekit.permissions[name]\n}",
		"in a constant":                      "_name := \"data:mange\"\n\np if data.scalekit.permissions[_name]",
		"in a set that is constant":          "_names := {\"data:read\", \"data:mange\"}\n\np if input.action.name in _names",
		"in a set by rules":                  "_names contains \"data:mange\"\n\np if input.action.name in _names",
		"in a set by rules, as key":          "_names contains \"data:mange\"\n\np if _names[input.action.name]",
		"a key of an object":                 "_needs := {\"data:mange\": 1}\n\np if _needs[input.action.name] == 1",
		"held, by a rule":                    "_held := input.subject.properties.permissions if not input.token\n\n_held := input.token.claims.permissions if input.token.valid\n\np if \"data:mange\" in _held",
		"held, by a set":                     "_held := {name | some name in input.token.claims.permissions}\n\np if {\"data:mange\"} & _held != set()",
		"lacking":                            "p if count({\"data:mange\"} - {name | some name in input.token.claims.permissions}) == 0",
		"to a function":                      "_live(name) if data.scalekit.permissions[name]\n\np if _live(\"data:mange\")",
		"to a function of functions":         "_both(name) if {\n\t_live(name)\n\tname in input.token.claims.permissions\n}\n\n_live(name) if data.scalekit.permissions[name]\n\np if _both(\"data:mange\")",
		"names to a function":                "_any(names) if {\n\tsome name in names\n\tdata.scalekit.permissions[name]\n}\n\np if _any({\"data:mange\"})",
		"a function of a name":               "_level(\"data:mange\") := 1\n\np if _level(input.action.name) == 1",
		"returned":                           "_name(x) := \"data:mange\" if x\n\np if data.scalekit.permissions[_name(true)]",
		"in a comprehension":                 "p := [name | some name in [\"data:mange\"]; name in input.token.claims.permissions]",
		"a key, for every name":              "_needs := {\"data:mange\": 1}\n\np if every name in input.token.claims.permissions { _needs[name] == 1 }",
		"equal to a set of sets":             "p if {name | some name in input.token.claims.permissions} & {\"data:read\"} == {\"data:mange\"}",
		"of a set by rules":                  "_held contains name if some name in input.token.claims.permissions\n\np if {\n\tsome name\n\t_held[name]\n\tname == \"data:mange\"\n}",
		"to a function that says so":         "# METADATA\n# scope: document\n# custom:\n#   permission_arguments: [1]\n_put_together(x, name) if lower(name) == x\n\np if _put_together(\"x\", \"data:mange\")",
		"of a reference that is looked up":   "p if {\n\tsome one in input.subject.properties.delegations\n\tone.permission in {\"data:read\", \"data:mange\"}\n\tdata.scalekit.permissions[one.permission]\n}",
		"of what is looked up by a function": "_live(name) if data.scalekit.permissions[name]\n\np if {\n\tinput.context.needs == \"data:mange\"\n\t_live(input.context.needs)\n}",
		"of a list that is looked up":        "p if {\n\t\"data:mange\" in input.context.needs\n\tevery name in input.context.needs { data.scalekit.permissions[name] }\n}",
		"in an else":                         "p := 1 if input.action.name == \"data:read\"\n\nelse := 2 if input.action.name == \"data:mange\"",
		"in a map from names":                "_needs := {\"data:read\": [\"data:mange\"]}\n\np if {\n\tsome name in _needs[input.action.name]\n\tname in input.token.claims.permissions\n}",
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, map[string]string{"a.rego": "package a\n\n" + policy + "\n"})
			wantLines(t, check(t, author.Check{Catalog: known()}), `error: the catalog has no permission "data:mange"; did you mean "data:manage"? [unknown-permission]`)
		})
	}
}

func TestDeletedNamesAreToldAsSuch(t *testing.T) {
	tree(t, map[string]string{"a.rego": `package a

p if data.scalekit.permissions["data:erase"]

q if data.scalekit.deleted["data:erase"]

r if data.scalekit.permissions["nothing like it"]

s if data.scalekit.deleted["nothing like it"]
`, "a_test.rego": "package a_test\n\ntest_p if not data.scalekit.permissions[\"no:such\"]\n"})
	wantLines(t, check(t, author.Check{Catalog: known()}),
		`a.rego:3:32: error: the permission "data:erase" was deleted: nobody has it anymore [deleted-permission]`,
		`a.rego:7:32: error: the catalog has no permission "nothing like it" [unknown-permission]`,
		`a.rego:9:28: error: the catalog has no permission "nothing like it" [unknown-permission]`)
}

// The beginning that names share doesn't make them near.
func TestOnlyNearNamesAreMeant(t *testing.T) {
	catalog := known()
	catalog.Live = []string{"invoices:pay", "invoices:approve"}
	for got, want := range map[string]string{"invoices:foo": "", "invoices:mange": "", "invoices:pya": "invoices:pay", "invoice.approve": "invoices:approve", "invoices:aprove": "invoices:approve"} {
		tree(t, map[string]string{"a.rego": "package a\n\np if input.action.name == \"" + got + "\"\n"})
		if want != "" {
			want = `; did you mean "` + want + `"?`
		}
		wantLines(t, check(t, author.Check{Catalog: catalog}), `"`+got+`"`+want+" [unknown-permission]")
	}
}

// Texts that never meet a name aren't taken for one.
func TestNoFalseNames(t *testing.T) {
	tree(t, map[string]string{"a.rego": `package a

decision := {"decision": true, "reasons": {"granted"}} if {
	input.action.name == "data:read"
	input.action.name != ""
	input.resource.type == "dataset"
	data.scalekit.sync.state in {"fresh", "unverified"}
	input.subject.properties.department in ["finance", "legal"]
	startswith(input.action.name, "data:")
	split(input.action.name, ":")[0] in {"data"}
	is_string(input.token.claims.oid)
	input.token.claims["roles"][_] == "admin"
	data.scalekit.permissions[input.action.name].source == "event"
	sprintf("%s!", [input.action.name]) != "no!"
	data.scalekit.roles["admin"].id != ""
} else := {"decision": false, "reasons": {sprintf("%s_denied", [input.action.name])}}

level := {"data:read": "low", "data:manage": "high"}[input.action.name]

p if level == "low"
`})
	wantLines(t, check(t, author.Check{Catalog: known()}))
}

func TestUnusedPermissions(t *testing.T) {
	tree(t, map[string]string{
		"a.rego":      "package a\n\np if input.action.name in {\"data:read\"}\n",
		"a_test.rego": "package a_test\n\ntest_p if not data.a.p with input.action.name as \"report:export\"\n",
	})
	wantLines(t, check(t, author.Check{Catalog: known()}))
	wantLines(t, check(t, author.Check{Catalog: known(), Unused: true}),
		`warning: no policy mentions the permission "data:manage" [unused-permission]`, `"report:export"`)
	if err := os.WriteFile("data.json", []byte(`{"needs":[{"data:manage":1},"report:export"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLines(t, check(t, author.Check{Catalog: known(), Unused: true}))
}

// An error of the call isn't one of the policies.
func TestAnUnknownBuiltinIsNoFinding(t *testing.T) {
	tree(t, map[string]string{"a.rego": "package a\n\np := 1"})
	_, err := author.Check{Source: author.Source{AllowBuiltins: []string{"http.sent"}}}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), `unknown builtin "http.sent"`) {
		t.Errorf("got %v", err)
	}
}

func TestNoSuchPath(t *testing.T) {
	tree(t, map[string]string{"a.txt": ""})
	for _, path := range []string{"nowhere", "a.txt"} {
		if _, err := (author.Check{Source: author.Source{Paths: []string{path}}}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
