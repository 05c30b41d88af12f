package author_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// openPlain makes a document of a file that lists names, a line each.
func openPlain(t *testing.T) func(context.Context, string, storage.Store) (storage.Store, func() error, error) {
	opened, closed := 0, 0
	t.Cleanup(func() {
		if opened != closed {
			t.Errorf("%d catalogs were opened and %d closed", opened, closed)
		}
	})
	return func(ctx context.Context, path string, base storage.Store) (storage.Store, func() error, error) {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		live := map[string]any{}
		for name := range strings.FieldsSeq(string(content)) {
			live[name] = map[string]any{"name": name}
		}
		txn := storage.NewTransactionOrDie(ctx, base)
		defer base.Abort(ctx, txn)
		data, err := base.Read(ctx, txn, storage.RootPath)
		if err != nil {
			return nil, nil, err
		}
		data.(map[string]any)["scalekit"] = map[string]any{"permissions": live}
		opened++
		return inmem.NewFromObject(data.(map[string]any)), func() error { closed++; return nil }, nil
	}
}

func runTests(t *testing.T, c author.Test) (*author.Report, error) {
	t.Helper()
	c.Schemas, c.Timeout, c.Open = policies.Schemas(), time.Minute, openPlain(t)
	return c.Run(t.Context())
}

// outcomes are the tests of a report, each with what became of it.
func outcomes(t *testing.T, r *author.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var document struct {
		Tests []struct{ Package, Name, Outcome string }
	}
	if err := json.Unmarshal(b.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, one := range document.Tests {
		list = append(list, fmt.Sprintf("%s.%s=%s", one.Package, one.Name, one.Outcome))
	}
	return strings.Join(list, " ")
}

const livePolicy = `package authz

decision if {
	data.scalekit.permissions[input.action.name]
	input.subject.id != ""
}

never if data.scalekit.permissions["no:such"].name == "x"
`

func TestTestsSeeTheCatalogOfTheirPackage(t *testing.T) {
	asked := func(name, of, want string) string {
		return "test_" + of + " if " + want + "data.authz.decision with input as {\"action\": {\"name\": \"" + name + "\"}, \"subject\": {\"id\": \"u\"}}\n"
	}
	tree(t, map[string]string{
		"policies/authz.rego":          livePolicy,
		"policies/plain_test.rego":     "package plain_test\n\n" + asked("a", "a", "not "),
		"policies/sub/one_test.rego":   "# METADATA\n# scope: package\n# custom:\n#   catalog: ../../fixtures/one.txt\npackage one_test\n\n" + asked("a", "a", "") + asked("b", "b", "not "),
		"policies/sub/below_test.rego": "package one_test.below\n\n" + asked("a", "a", "not "),
		"policies/sub/more_test.rego":  "package one_test\n\n" + asked("a", "more", ""),
		"fixtures/one.txt":             "a",
		"fixtures/all.txt":             "b",
	})
	report, err := runTests(t, author.Test{Source: author.Source{Paths: []string{"policies"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(t, report), "data.plain_test.test_a=pass data.one_test.below.test_a=pass data.one_test.test_more=pass data.one_test.test_a=pass data.one_test.test_b=pass"; len(got) != len(want) || strings.Contains(got, "=fail") {
		t.Errorf("got %s, want %s", got, want)
	}
	report, err = runTests(t, author.Test{Source: author.Source{Paths: []string{"policies"}}, Catalog: "fixtures/all.txt", Only: "test_b$|below"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(t, report), "data.one_test.below.test_a=pass data.one_test.test_b=pass"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFailuresAreShownWithTheirPlace(t *testing.T) {
	tree(t, map[string]string{"authz.rego": livePolicy, "authz_test.rego": `package authz_test

import data.authz

test_good if not authz.decision

test_bad if {
	print("before it fails")
	name := "a"
	authz.decision with input.action.name as name
}

test_table[note] if {
	some note, want in {"one": false, "two": true}
	got := count([1 | authz.decision]) > 0
	got == want
}

test_error if 1 / count([]) == 1

todo_test_later if false
`})
	report, err := runTests(t, author.Test{})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"test_good=pass", "test_bad=fail", "test_table=fail", "later=skip"} {
		if got := outcomes(t, report); !strings.Contains(got, part) {
			t.Errorf("got %s, want %s", got, part)
		}
	}
	var short, verbose, document bytes.Buffer
	if err := errors.Join(report.WriteText(&short, false), report.WriteText(&verbose, true), report.WriteJSON(&document)); err != nil {
		t.Fatal(err)
	}
	for text, parts := range map[string][]string{
		short.String():    {"authz_test.rego:10:\n", "name: \"a\"", "two: FAIL", "FAIL: "},
		verbose.String():  {"test_good: PASS", "before it fails", "one: PASS", "Enter", "SKIPPED: 1/"},
		document.String(): {`"failed_at": {`, `"line": 10`, `"text": "authz.decision with input.action.name as name"`, `"two": false`, `"one": true`, `"output": "before it fails\n"`, `"skipped": 1`},
	} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q isn't in\n%s", part, text)
			}
		}
	}
	if strings.Contains(short.String(), "test_good") {
		t.Errorf("a test that passes is in\n%s", short.String())
	}
}

func TestCoverageIsOfThePoliciesAlone(t *testing.T) {
	tree(t, map[string]string{"authz.rego": livePolicy, "authz_test.rego": `package authz_test

test_live if data.authz.decision with input as {"action": {"name": "a"}, "subject": {"id": "u"}}
	with data.scalekit.permissions as {"a": {}}
`})
	report, err := runTests(t, author.Test{Coverage: true})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := report.WriteText(&text, false); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); got != "PASS: 1/1\ncoverage: 75.0 % of 4 lines\nnot covered: authz.rego:8\n" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCantBeTested(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		only  string
		want  string
	}{
		"syntax":          {map[string]string{"a_test.rego": "package a\n\ntest_a if {"}, "", "a_test.rego:3"},
		"sloppiness":      {map[string]string{"a_test.rego": "package a_test\n\ntest_a if { x := 1 }"}, "", "a_test.rego:3"},
		"a builtin":       {map[string]string{"a.rego": "package a\n\np := http.send({})", "a_test.rego": "package a_test\n\ntest_a if data.a.p"}, "", "--allow-builtin http.send"},
		"none":            {map[string]string{"a.rego": "package a\n\np := 1"}, "", "no test was run"},
		"none of them":    {map[string]string{"a_test.rego": "package a_test\n\ntest_a if true"}, "test_b", "no test was run"},
		"no such catalog": {map[string]string{"a_test.rego": "# METADATA\n# scope: package\n# custom:\n#   catalog: nowhere.txt\npackage a_test\n\ntest_a if true"}, "", "a_test.rego:1:;;custom.catalog: opening the catalog of tests: ;;nowhere.txt"},
		"of a rule":       {map[string]string{"a_test.rego": "package a_test\n\n# METADATA\n# custom:\n#   catalog: c.txt\ntest_a if true"}, "", "a_test.rego:3:;;custom.catalog: want it in the METADATA of the package, got it in that of a rule"},
		"no catalog name": {map[string]string{"d/a_test.rego": "# METADATA\n# scope: package\n# custom:\n#   catalog: 7\npackage a_test\n\ntest_a if true"}, "", "d/a_test.rego:1:;;custom.catalog: want the path of a catalog file, got 7"},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, c.files)
			_, err := runTests(t, author.Test{Only: c.only})
			message := fmt.Sprint(err)
			var unusable *author.MistakesError
			if errors.As(err, &unusable) {
				var b bytes.Buffer
				if err := author.WriteText(&b, unusable.Findings); err != nil {
					t.Fatal(err)
				}
				message = b.String()
			}
			wantLines(t, []string{message}, c.want)
		})
	}
}

// A test that doesn't end is ended, and is an error.
func TestATestIsBoundInTime(t *testing.T) {
	tree(t, map[string]string{"a_test.rego": "package a_test\n\ntest_a if count([1 | some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x * y == 7]) == 2"})
	c := author.Test{Source: author.Source{Schemas: policies.Schemas()}, Timeout: 20 * time.Millisecond}
	report, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const stock = 5 * time.Second // what OPA's runner gives a test
	if got := outcomes(t, report); got != "data.a_test.test_a=error" || report.Failed() != 1 || report.Results[0].Duration >= stock {
		t.Errorf("got %s after %s", got, report.Results[0].Duration)
	}
}

// The tests of what is shipped pass, and cover it.
func TestShippedPoliciesPassTheirTests(t *testing.T) {
	report, err := runTests(t, author.Test{Source: author.Source{Paths: []string{filepath.Join("..", "..", "policies")}}, Coverage: true})
	if err != nil {
		t.Fatal(err)
	}
	if report.Failed() > 0 || report.Coverage.Coverage != 100 {
		t.Errorf("%d failed, %.1f %% are covered", report.Failed(), report.Coverage.Coverage)
	}
}

// What goes wrong while a catalog is put away again is told, too.
func TestACatalogThatCannotBeClosed(t *testing.T) {
	tree(t, map[string]string{"p/a_test.rego": "package a_test\n\ntest_x if true\n"})
	stuck := errors.New("stuck")
	_, err := author.Test{
		Source: author.Source{Paths: []string{"p"}}, Timeout: time.Minute, Catalog: "catalog",
		Open: func(_ context.Context, _ string, base storage.Store) (storage.Store, func() error, error) {
			return base, func() error { return stuck }, nil
		},
	}.Run(t.Context())
	if !errors.Is(err, stuck) {
		t.Errorf("got %v", err)
	}
}
