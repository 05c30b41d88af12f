// Package explanation says why a policy decided as it did: which definition of a rule
// decided, which conditions failed, with the values that they met and where they stand.
//
// It evaluates the question once more, with OPA's tracer and without the shortcuts of an
// evaluation that only has to be fast: rules that OPA's index would skip are tried, so that
// every condition that failed shows.
//
// Invariants:
//
//   - An explanation never changes a decision: that was made before.
//   - Memory is bounded whatever policy and question are: what is beyond the limits is left
//     out, and the explanation says so.
//   - What is shown is valid UTF-8 on lines of bounded length, and holds no control
//     characters: a terminal shows it and obeys nothing in it.
package explanation

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Limits of an explanation.
const (
	maxFrames    = 4000      // definitions and bodies that are remembered
	maxSteps     = 20_000    // conditions in them
	maxHeld      = 512 << 10 // bytes of values that are remembered
	maxChildren  = 8         // evaluations below one condition: the first half, and the last
	maxValues    = 8         // values beside one condition
	maxFailed    = 100       // conditions that are listed as failed
	maxReads     = 100       // places of the data document that are listed as read
	maxErrors    = 20        // errors of builtins that are listed
	maxText      = 64 << 10  // bytes of the text
	maxDepth     = 24        // levels of the text
	maxValue     = 160       // bytes of one value
	maxCondition = 120       // bytes of one condition's source
	maxPlace     = 100       // bytes of file:line
	maxReasons   = 20        // reasons in the first line
)

// Outcomes of a condition.
const (
	outcomeHolds     = "holds"
	outcomeFalse     = "false"
	outcomeUndefined = "undefined"
)

// Explanation tells why a question was decided as it was. Its texts are bounded, and
// printable as they are.
type Explanation struct {
	// Decided is the definition that gave the decision; nil when none did, or no policy was
	// asked.
	Decided *Definition `json:"decided"`
	// Failed are the conditions that kept their definitions from holding, in the order of
	// evaluation, each once.
	Failed []Condition `json:"failed"`
	// Reads are the places of the data document that were asked for.
	Reads []Read `json:"reads"`
	// Errors are those of builtins, which make the expression around them undefined.
	Errors []string `json:"errors,omitempty"`
	// CutOff: a limit was met, and not everything is told.
	CutOff bool `json:"cut_off"`
	// Note says what else is to be known of this explanation.
	Note string `json:"note,omitempty"`
	// Text tells the same to a person.
	Text string `json:"text"`
}

// Definition is one definition of a rule.
type Definition struct {
	Rule  string `json:"rule"`            // its path, such as data.authz.decision
	At    string `json:"at"`              // file:line
	Text  string `json:"text"`            // its head, from the source
	Value string `json:"value,omitempty"` // what it gave, as Rego
}

// Condition is an expression of a policy that didn't hold.
type Condition struct {
	Rule    string  `json:"rule"`    // whose definition it stands in
	At      string  `json:"at"`      // file:line
	Text    string  `json:"text"`    // from the source
	Outcome string  `json:"outcome"` // false or undefined
	Values  []Value `json:"values"`  // of the references and variables in it
}

// Value is what a reference or a variable stood for.
type Value struct {
	Name  string `json:"name"`  // as in the source
	Value string `json:"value"` // as Rego, cut when it is long; "undefined" when it had none
}

// Read is a place of the data document that was asked for.
type Read struct {
	Path  string `json:"path"`  // such as data.scalekit.permissions["data:manage"]
	Value string `json:"value"` // as Rego, cut when it is long; "undefined" when nothing is there
}

// Evaluation is what is to be explained.
type Evaluation struct {
	Compiler *ast.Compiler
	Store    storage.Store
	Txn      storage.Transaction // on Store, the one that the decision was made in
	Decision ast.Ref             // the rule that answers
	Input    ast.Value
	Cancel   topdown.Cancel // ends the evaluation
	Verdict  Verdict
}

// Verdict is how the question was decided.
type Verdict struct {
	Allow   bool
	Reasons []string
	Message string    // of a failed evaluation; else empty
	Value   ast.Value // what the decision rule gave; nil: nothing, or it isn't known
}

// Notes of an explanation.
const (
	noteStopped = "the evaluation that explains ended before it was through; what came until then is told"
	noteDiffers = "evaluated once more, the policy gave another answer: it isn't a function of question and data alone (time, randomness, the network), and what is told here may not be what decided"
)

// Explain evaluates once more and tells why. It never fails: an explanation that could not
// be made whole says so.
func Explain(ctx context.Context, e Evaluation) *Explanation {
	reads := newRecorder(e.Store)
	t := newTracer(e.Compiler, reads, e.Decision)
	x := &Explanation{Failed: []Condition{}, Reads: []Read{}}
	value, err := evaluate(ctx, e, reads, t, x)
	switch {
	case err != nil:
		x.Note = noteStopped
	case e.Verdict.Value != nil && (value == nil || value.Compare(e.Verdict.Value) != 0):
		x.Note = noteDiffers
	}
	t.tell(x)
	if e.Verdict.Value == nil {
		x.Decided = nil
	}
	x.Reads = append(x.Reads, reads.list...)
	x.CutOff = x.CutOff || t.cutOff || reads.cutOff
	x.Text = render(t, x, e.Verdict)
	return x
}

// Unasked explains a decision that was made before any policy was asked; why is a sentence.
func Unasked(v Verdict, why string) *Explanation {
	x := &Explanation{Failed: []Condition{}, Reads: []Read{}, Note: printable(why, maxText/4)}
	x.Text = render(nil, x, v)
	return x
}

func evaluate(ctx context.Context, e Evaluation, reads *recorder, t *tracer, x *Explanation) (ast.Value, error) {
	query, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(e.Decision)))),
		rego.Compiler(e.Compiler),
		rego.Store(reads),
		rego.Transaction(e.Txn),
		rego.GenerateJSON(func(term *ast.Term, _ *rego.EvalContext) (any, error) { return term.Value, nil }),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	reads.forget() // what preparing read
	var builtins []topdown.Error
	results, err := query.Eval(ctx,
		rego.EvalTransaction(e.Txn),
		rego.EvalParsedInput(e.Input),
		rego.EvalExternalCancel(e.Cancel),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalQueryTracer(t),
		rego.EvalRuleIndexing(false), // what the index skips shows as failed, with its values
		rego.EvalEarlyExit(false),
		rego.EvalBuiltinErrorList(&builtins),
	)
	x.addErrors(builtins)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, nil //nolint:nilnil // no value, and that is no error
	}
	value, _ := results[0].Expressions[0].Value.(ast.Value)
	return value, nil
}

func (x *Explanation) addErrors(builtins []topdown.Error) {
	seen := map[string]bool{}
	for _, failed := range builtins {
		text := place(failed.Location) + ": " + printable(failed.Message, maxValue)
		if seen[text] {
			continue
		}
		if len(x.Errors) == maxErrors {
			x.CutOff = true
			return
		}
		seen[text] = true
		x.Errors = append(x.Errors, text)
	}
}
