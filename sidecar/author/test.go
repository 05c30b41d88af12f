package author

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/postern-authz/postern/bundle"
)

// Test says how to run the tests of policies, which are the rules test_… in files that end in
// _test.rego.
//
// Tests see data.scalekit as of a catalog file: the one that the METADATA of their package
// names, as `custom: {catalog: FILE}` relative to the file that says so, else Catalog. Without
// either it is what the test itself puts there.
type Test struct {
	Source
	// Open makes a data document of a catalog file over a base store. The caller calls done.
	Open     func(ctx context.Context, file string, base storage.Store) (document storage.Store, done func() error, err error)
	Catalog  string         // a file, or empty
	Settings map[string]any // data.postern
	Only     string         // a regular expression that the full name of a test has to match; empty: any
	Coverage bool           // note which lines of the policies were evaluated
	Timeout  time.Duration  // of each test
}

// MistakesError reports policies that can't be used.
type MistakesError struct{ Findings []Finding }

// Error counts the mistakes.
func (e *MistakesError) Error() string {
	if len(e.Findings) == 1 {
		return "the policies can't be used: 1 mistake"
	}
	return fmt.Sprintf("the policies can't be used: %d mistakes", len(e.Findings))
}

// ErrNoTests reports that nothing was run, which is no proof of anything.
var ErrNoTests = errors.New("no test was run")

// Run runs the tests, each group that shares a catalog by itself. Policies are compiled as the
// sidecar compiles them; if they can't be, the error is a [MistakesError].
func (c Test) Run(ctx context.Context) (*Report, error) {
	loaded, err := c.load(ctx)
	if errors.Is(err, ErrPath) || (err != nil && ctx.Err() != nil) {
		return nil, err
	}
	if err != nil {
		return nil, &MistakesError{sorted(mistakes(err))}
	}
	policy, err := loaded.Compile(c.options())
	if err != nil {
		return nil, &MistakesError{sorted(mistakes(err))}
	}
	groups, err := c.groups(loaded)
	if err != nil {
		return nil, err
	}
	r := &runs{Test: c, bundle: loaded, data: policy.Data, report: &Report{}}
	r.data["postern"] = c.Settings
	if c.Coverage {
		r.coverage = cover.New()
	}
	for _, file := range slices.Sorted(maps.Keys(groups)) {
		if err := r.group(ctx, file, groups[file].packages); err != nil {
			if errors.Is(err, ErrCatalog) && groups[file].says != nil {
				err = &MistakesError{[]Finding{at(groups[file].says, LevelError, RuleLoad, "custom.catalog: %v", err)}}
			}
			return nil, err
		}
	}
	if len(r.report.Results) == 0 {
		return nil, ErrNoTests
	}
	slices.SortFunc(r.report.Results, func(a, b *tester.Result) int {
		return cmp.Or(a.Location.Compare(b.Location), cmp.Compare(a.Name, b.Name))
	})
	if c.Coverage {
		r.report.Coverage = policyCoverage(r.coverage, loaded.Modules())
	}
	return r.report, nil
}

// ErrCatalog reports a catalog of tests that can't be opened.
var ErrCatalog = errors.New("opening the catalog of tests")

// group is the packages with tests that share a catalog.
type group struct {
	packages []ast.Ref
	says     *ast.Location // which METADATA names it; nil for the one of the call
}

// groups returns the packages with tests by the catalog that they are run with.
func (c Test) groups(loaded *bundle.Bundle) (map[string]*group, error) {
	modules := loaded.Modules()
	named, says := map[string]string{}, map[string]*ast.Location{} // catalogs by package
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		for _, annotation := range modules[name].Annotations {
			value, ok := annotation.Custom["catalog"]
			if !ok || !bundle.IsTest(name) {
				continue
			}
			if annotation.Scope != "package" {
				return nil, &MistakesError{[]Finding{at(annotation.Loc(), LevelError, RuleLoad, "custom.catalog: want it in the METADATA of the package, got it in that of a %s", annotation.Scope)}}
			}
			file, ok := value.(string)
			if !ok || file == "" {
				return nil, &MistakesError{[]Finding{at(annotation.Loc(), LevelError, RuleLoad, "custom.catalog: want the path of a catalog file, got %v", value)}}
			}
			if !filepath.IsAbs(file) {
				file = filepath.Join(filepath.Dir(name), file)
			}
			path := modules[name].Package.Path.String()
			named[path], says[path] = file, annotation.Loc()
		}
	}
	groups, seen := map[string]*group{}, map[string]bool{}
	for name, module := range modules {
		path := module.Package.Path.String()
		if !bundle.IsTest(name) || seen[path] {
			continue
		}
		seen[path] = true
		file := cmp.Or(named[path], c.Catalog)
		if groups[file] == nil {
			groups[file] = &group{says: says[path]}
		}
		groups[file].packages = append(groups[file].packages, module.Package.Path)
	}
	return groups, nil
}

// runs are the runs of all groups.
type runs struct {
	Test
	bundle   *bundle.Bundle
	data     map[string]any
	coverage *cover.Cover
	report   *Report
}

// group runs the tests of some packages with a catalog, and again those that fail, to see where.
func (r *runs) group(ctx context.Context, file string, packages []ast.Ref) (err error) {
	document := inmem.NewFromObject(r.data)
	if file != "" {
		opened, done, failure := r.Open(ctx, file, document)
		if failure != nil {
			return fmt.Errorf("%w: %w", ErrCatalog, failure)
		}
		document = opened
		defer func() { err = errors.Join(err, done()) }()
	}
	results, _, err := r.run(ctx, document, packages, r.Only, false)
	if err != nil {
		return err
	}
	if err := r.trace(ctx, document, packages, results); err != nil {
		return err
	}
	r.report.Results = append(r.report.Results, results...)
	return nil
}

// trace runs the tests of results that failed again, to see where, and puts what comes of it in
// their place.
func (r *runs) trace(ctx context.Context, document storage.Store, packages []ast.Ref, results []*tester.Result) error {
	var failed []string
	for _, result := range results {
		if result.Fail {
			failed = append(failed, regexp.QuoteMeta(result.Package+"."+result.Name))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	again, compiler, err := r.run(ctx, document, packages, "^("+strings.Join(failed, "|")+")$", true)
	if err != nil {
		return err
	}
	for _, traced := range again {
		i := slices.IndexFunc(results, func(result *tester.Result) bool {
			return result.Package == traced.Package && result.Name == traced.Name
		})
		if i < 0 || !traced.Fail {
			continue
		}
		if failedAt(traced.Trace) == nil {
			if traced.Trace, err = r.traceUnindexed(ctx, document, compiler, traced); err != nil {
				return err
			}
		}
		results[i] = traced
	}
	return nil
}

// traceUnindexed evaluates a test without the index of rules, which passes over one whose
// conditions can't hold before there is anything to trace.
func (r *runs) traceUnindexed(ctx context.Context, document storage.Store, compiler *ast.Compiler, test *tester.Result) ([]*topdown.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	query, err := rego.New(rego.Query(test.Package+"."+test.Name), rego.Compiler(compiler), rego.Store(document)).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	tracer := topdown.NewBufferTracer()
	_, err = query.Eval(ctx, rego.EvalQueryTracer(tracer), rego.EvalRuleIndexing(false))
	return *tracer, err
}

// run runs some tests, and returns the compiler that it has used.
func (r *runs) run(ctx context.Context, document storage.Store, packages []ast.Ref, only string, traced bool) ([]*tester.Result, *ast.Compiler, error) {
	compiler, err := r.bundle.NewCompiler(r.options())
	if err != nil {
		return nil, nil, err
	}
	txn, err := document.NewTransaction(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer document.Abort(ctx, txn)
	runner := tester.NewRunner().
		SetCompiler(compiler.WithEnablePrintStatements(true).WithRewriteTestRules(traced)).
		SetStore(document).
		SetModules(r.bundle.Modules()).
		SetPrefixMatchers(packages...).
		SetTimeout(r.Timeout).
		Filter(only).
		EnableTracing(traced)
	if r.coverage != nil && !traced {
		runner.SetCoverageRuns(nil).SetCoverageQueryTracer(r.coverage)
	}
	finished, err := runner.RunTests(ctx, txn)
	if err != nil {
		return nil, nil, err
	}
	var results []*tester.Result
	for result := range finished {
		// A prefix also matches the packages below, which may be of another group.
		if slices.ContainsFunc(packages, func(path ast.Ref) bool { return path.String() == result.Package }) {
			results = append(results, result)
		}
	}
	return results, compiler, ctx.Err()
}

// policyCoverage is the coverage of policies: how much of the tests themselves was evaluated
// says nothing.
func policyCoverage(coverage *cover.Cover, modules map[string]*ast.Module) *cover.Report {
	maps.DeleteFunc(modules, func(name string, _ *ast.Module) bool { return bundle.IsTest(name) })
	report := coverage.Report(modules)
	maps.DeleteFunc(report.Files, func(name string, _ *cover.FileReport) bool { return modules[name] == nil })
	report.CoveredLines, report.NotCoveredLines, report.Coverage = 0, 0, 0
	for _, file := range report.Files {
		report.CoveredLines += file.CoveredLines
		report.NotCoveredLines += file.NotCoveredLines
	}
	if all := report.CoveredLines + report.NotCoveredLines; all > 0 {
		report.Coverage = 100 * float64(report.CoveredLines) / float64(all)
	}
	return &report
}
