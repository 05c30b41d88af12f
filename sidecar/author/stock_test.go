package author_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
	"github.com/postern-authz/postern/sidecar/author"
)

// Each test ends as it does in a stock opa: those of the shipped policies, and some that fail,
// err, are skipped, or have several cases.
func TestVerdictsAreThoseOfAStockOPA(t *testing.T) {
	opa, err := filepath.Abs(filepath.Join(policiestest.StockOPA(t, "../.."), "opa"))
	if err != nil {
		t.Fatal(err)
	}
	tree(t, map[string]string{"policies/more/more_test.rego": `package more_test

test_good if true

test_bad if data.authz.decision.decision

test_bad if 1 == 2

test_conflict if f(1) == 1

f(_) := x if some x in [1, 2]

test_cases[name] if {
	some name, value in {"a": 1, "b": 2}
	value == 1
}

` + "todo" + `_test_later if false
`})
	if err := os.CopyFS("policies", policies.FS()); err != nil {
		t.Fatal(err)
	}
	report, err := runTests(t, author.Test{Source: author.Source{Paths: []string{"policies"}}})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(outcomes(t, report))
	slices.Sort(got)
	output, _ := exec.CommandContext(t.Context(), opa, "test", "--format=json", "--timeout=60s", "policies").Output() // fails, as tests do
	var stock []struct {
		Package, Name string
		Fail, Skip    bool
		Error         any
	}
	if err := json.Unmarshal(output, &stock); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var want []string
	for _, one := range stock {
		outcome := "pass"
		switch {
		case one.Skip:
			outcome = "skip"
		case one.Error != nil:
			outcome = "error"
		case one.Fail:
			outcome = "fail"
		}
		want = append(want, one.Package+"."+one.Name+"="+outcome)
	}
	slices.Sort(want)
	if len(want) < 100 || !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
