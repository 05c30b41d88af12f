package policies_test

import (
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

// compiled is the built-in policy as the sidecar compiles it.
func compiled(t *testing.T) *bundle.Policy {
	t.Helper()
	loaded, err := bundle.Load(t.Context(), policies.FS(), bundle.LoadOptions{Name: "policies"})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := loaded.Compile(bundle.Options{Schemas: policies.Schemas(), Decision: "authz/decision"})
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// embedded parses all Rego, tests included.
func embedded(t *testing.T) map[string]*ast.Module {
	t.Helper()
	parsed := map[string]*ast.Module{}
	err := fs.WalkDir(policies.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".rego" {
			return err
		}
		source, err := fs.ReadFile(policies.FS(), name)
		if err != nil {
			return err
		}
		parsed[name], err = ast.ParseModuleWithOpts(name, string(source), ast.ParserOptions{ProcessAnnotation: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// The tests beside the policies, as `opa test` runs them, with each line covered.
func TestRego(t *testing.T) {
	rules := embedded(t)
	coverage := cover.New()
	ctx := t.Context()
	store := inmem.New()
	txn := storage.NewTransactionOrDie(ctx, store)
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().
		SetTimeout(time.Minute). // each test has 5 s otherwise, which the race detector needs
		SetStore(store).
		SetModules(rules).
		SetCoverageQueryTracer(coverage).
		RunTests(ctx, txn)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for result := range results {
		count++
		if !result.Pass() {
			t.Errorf("%s: %s", result.Location, result)
		}
	}
	if count < 30 {
		t.Errorf("ran %d tests, want them all", count)
	}
	report := coverage.Report(rules)
	for name := range rules {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		if file := report.Files[name]; file.Coverage != 100 {
			t.Errorf("%s: got %.1f %% covered, want all; not covered: %v", name, file.Coverage, file.NotCovered)
		}
	}
}

// What `opa test policies/` does with this directory: all it can read becomes data. Only
// Rego may be among it.
func TestTheDirectoryHoldsNoData(t *testing.T) {
	loaded, err := loader.NewFileLoader().WithProcessAnnotation(true).Filtered([]string{"."}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.Documents) > 0 {
		t.Errorf("got data %v, want none", loaded.Documents)
	}
	if here, within := len(loaded.Modules), len(embedded(t)); here != within {
		t.Errorf("got %d modules in the directory and %d embedded, want as many", here, within)
	}
}

// A typo in a reference is an error, free-form parts are free.
func TestSchemasCatchTypos(t *testing.T) {
	for reference, wantError := range map[string]bool{
		"input.subject.id":                                false,
		"input.subject.properties.department.name":        false,
		"input.action.properties.x":                       false,
		"input.resource.properties.owner[0]":              false,
		"input.context.ip.v6":                             false,
		"input.token.claims.anything.else":                false,
		`input.token.error == "token_expired"`:            false,
		"data.scalekit.roles.admin.permissions":           false,
		`data.scalekit.sync.state == "fresh"`:             false,
		"input.token.valid == 1":                          true,
		"input.token.claim":                               true,
		"input.tokens":                                    true,
		"data.scalekit.role":                              true,
		"data.scalekit.permissions[input.action.name].id": false,
		`data.scalekit.permissions["data:manage"]`:        false,
		"data.scalekit.deleted[input.action.name]":        false,
		"data.scalekit.sync.complete":                     false,
		"data.postern.settings.on_incomplete":             false,
		"data.other.anything":                             false,
		"input.sbject":                                    true,
		"input.subject.proprties":                         true,
		"input.action.nam":                                true,
		"input.resource.organization_id":                  true,
		"input.permission":                                true,
		"data.scalekit.permisions":                        true,
		"data.scalekit.permission":                        true,
		"data.scalekit.sync.completed":                    true,
		"data.postern.setings":                            true,
		"data.postern.settings.onIncomplete":              true,
		"data.scalekit.sync.event_id == null":             false,
		"data.scalekit.sync.revision == 7":                false,
		`data.scalekit.sync.complete == "true"`:           true,
		`data.postern.settings.on_incomplete == true`:     true,
	} {
		source := "# METADATA\n# schemas:\n#   - input: schema.input\n#   - data.scalekit: schema.scalekit\n#   - data.postern: schema.postern\npackage trial\n\np if " + reference + "\n"
		loaded, err := bundle.Load(t.Context(), fstest.MapFS{"trial.rego": {Data: []byte(source)}}, bundle.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = loaded.Compile(bundle.Options{Schemas: policies.Schemas()})
		if (err != nil) != wantError {
			t.Errorf("%s: got %v, want an error: %t", reference, err, wantError)
		}
	}
}

// recorder notes what is read.
type recorder struct {
	storage.Store
	reads []string
}

func (r *recorder) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	r.reads = append(r.reads, path.String())
	return r.Store.Read(ctx, txn, path)
}

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
			wantReads(t, "data.authz.decision", map[string]any{
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
	wantReads(t, "data.authz.decision", map[string]any{"scalekit": map[string]any{
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
			wantReads(t, "data.lib.roles.granted", map[string]any{"scalekit": map[string]any{"permissions": c.permissions, "roles": held}}, map[string]any{
				"action": map[string]any{"name": c.action},
				"token":  map[string]any{"valid": true, "claims": map[string]any{"roles": c.roles}},
			}, c.want, c.reads)
		})
	}
}

// wantReads evaluates a rule over the data and wants its value, a Rego term or "" for
// undefined, from exactly these reads.
func wantReads(t *testing.T, rule string, data, input map[string]any, value string, reads []string) {
	t.Helper()
	store := &recorder{Store: inmem.NewFromObject(data)}
	got, defined := ask(t, store, ast.MustParseRef(rule), input)
	if defined != (value != "") || (defined && ast.MustInterfaceToValue(got).Compare(ast.MustParseTerm(value).Value) != 0) {
		t.Errorf("got %v, want %v", got, value)
	}
	slices.Sort(store.reads)
	slices.Sort(reads)
	if got := slices.Compact(store.reads); !slices.Equal(got, reads) {
		t.Errorf("read %q, want %q", got, reads)
	}
}

// ask evaluates a rule. What preparing it reads isn't recorded.
func ask(t *testing.T, store *recorder, rule ast.Ref, input map[string]any) (value any, defined bool) {
	t.Helper()
	policy := compiled(t)
	query, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(rule)))),
		rego.Compiler(policy.Compiler),
		rego.Store(store),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store.reads = nil
	results, err := query.Eval(t.Context(), rego.EvalInput(input))
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		return nil, false
	}
	return results[0].Expressions[0].Value, true
}
