package policiestest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/bundle"
)

// Recorder is a store that notes what is read of it. It is for one evaluation at a time.
type Recorder struct {
	storage.Store
	Reads []string // the paths, in the order in which they were read
}

// Read notes the path, and reads.
func (r *Recorder) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	r.Reads = append(r.Reads, path.String())
	return r.Store.Read(ctx, txn, path)
}

// Answer is what a rule said, and what it read for it.
type Answer struct {
	Value any      // nil if undefined
	Reads []string // the paths, sorted, each once, such as /scalekit/permissions/data:manage
}

// OfCatalog returns the reads of the catalog alone.
func (a Answer) OfCatalog() (reads []string) {
	for _, read := range a.Reads {
		if strings.HasPrefix(read, "/scalekit") {
			reads = append(reads, read)
		}
	}
	return reads
}

// Ask evaluates a rule of a policy, such as data.authz.decision, with the policy's own data and
// this beside it. What preparing the question reads isn't noted.
func Ask(t testing.TB, policy *bundle.Policy, rule string, data map[string]any, input any) Answer {
	t.Helper()
	all := maps.Clone(policy.Data)
	maps.Copy(all, data)
	store := &Recorder{Store: inmem.NewFromObject(all)}
	query, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ast.MustParseRef(rule))))),
		rego.Compiler(policy.Compiler),
		rego.Store(store),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store.Reads = nil
	results, err := query.Eval(t.Context(), rego.EvalInput(input))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(store.Reads)
	answer := Answer{Reads: slices.Compact(store.Reads)}
	if len(results) > 0 {
		answer.Value = results[0].Expressions[0].Value
	}
	return answer
}

// WantReads asks a rule and wants its value, a Rego term or "" for undefined, from exactly
// these reads.
func WantReads(t *testing.T, policy *bundle.Policy, rule string, data map[string]any, input any, value string, reads []string) {
	t.Helper()
	got := Ask(t, policy, rule, data, input)
	if !got.Is(t, value) {
		t.Errorf("got %v, want %v", got.Value, value)
	}
	if !slices.Equal(got.Reads, slices.Sorted(slices.Values(reads))) {
		t.Errorf("read %q, want %q", got.Reads, reads)
	}
}

// Is tells whether the answer is the value of a Rego term, or undefined for "". A set is equal
// to an array of its elements in order, as it is in JSON.
func (a Answer) Is(t testing.TB, term string) bool {
	t.Helper()
	if term == "" || a.Value == nil {
		return term == "" && a.Value == nil
	}
	parsed, err := ast.ParseTerm(term)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ast.JSON(parsed.Value)
	if err != nil {
		t.Fatal(err)
	}
	return ast.MustInterfaceToValue(a.Value).Compare(ast.MustInterfaceToValue(want)) == 0
}
