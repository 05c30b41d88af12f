// Package policiestest holds what tests of policies share: running the Rego tests beside a
// policy, compiling it as the sidecar does, and asking it while noting what it reads.
//
// It promises that a policy that passes here is one that the sidecar takes: sources are joined
// and compiled by the same code, against the schemas that the sidecar knows.
package policiestest

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

// Compile joins sources of policy and compiles them as the sidecar does.
func Compile(t testing.TB, sources ...fs.FS) *bundle.Policy {
	t.Helper()
	policy, err := TryCompile(t, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// TryCompile is [Compile] that tells why it can't.
func TryCompile(t testing.TB, sources ...fs.FS) (*bundle.Policy, error) {
	t.Helper()
	bundles := make([]*bundle.Bundle, len(sources))
	for i, source := range sources {
		var err error
		if bundles[i], err = bundle.Load(t.Context(), source, bundle.LoadOptions{}); err != nil {
			return nil, err
		}
	}
	joined, err := bundle.Join(bundles)
	if err != nil {
		return nil, err
	}
	return joined.Compile(bundle.Options{Schemas: policies.Schemas()})
}

// Parse parses all Rego of a source, tests included, by the names of the files.
func Parse(t testing.TB, source fs.FS) map[string]*ast.Module {
	t.Helper()
	parsed := map[string]*ast.Module{}
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".rego" {
			return err
		}
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		parsed[name], err = ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{ProcessAnnotation: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// RunRego runs the tests of a directory as `opa test` does, beside the policies of others, and
// wants at least so many. All have to pass and cover each line of the directory, and no builtin
// may fail: with bad input that would be the end of a rule, which none of its tests saw.
func RunRego(t *testing.T, atLeast int, directory string, others ...string) {
	t.Helper()
	withoutTheirTests := func(file string, _ fs.FileInfo, _ int) bool {
		return strings.HasSuffix(file, "_test.rego") && !within(directory, file)
	}
	loaded, err := loader.NewFileLoader().WithProcessAnnotation(true).Filtered(append(others, directory), withoutTheirTests)
	if err != nil {
		t.Fatal(err)
	}
	store, err := loaded.Store()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	txn := storage.NewTransactionOrDie(ctx, store)
	defer store.Abort(ctx, txn)
	modules := loaded.ParsedModules()
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetTimeout(time.Minute). // each test has 5 s otherwise, which the race detector needs
		SetStore(store).
		SetModules(modules).
		RaiseBuiltinErrors(true).
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
	if count < atLeast {
		t.Errorf("ran %d tests, want at least %d", count, atLeast)
	}
	wantCovered(t, coverage.Report(modules), modules, directory)
}

func wantCovered(t *testing.T, report cover.Report, modules map[string]*ast.Module, directory string) {
	t.Helper()
	for name := range modules {
		if strings.HasSuffix(name, "_test.rego") || !within(directory, name) {
			continue
		}
		if file := report.Files[name]; file == nil || file.Coverage != 100 {
			t.Errorf("%s: want all covered, got %+v", name, file)
		}
	}
}

func within(directory, file string) bool {
	relative, err := filepath.Rel(directory, file)
	return err == nil && filepath.IsLocal(relative)
}
