package author

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/lineage"
)

// Report is what became of tests.
type Report struct {
	Results  []*tester.Result // in the order of places
	Coverage *cover.Report    // of the policies without their tests; nil unless asked for
}

// Failed counts the tests that failed or ended in an error. One that is skipped, as its name
// asks for, did neither.
func (r *Report) Failed() (count int) {
	for _, result := range r.Results {
		if result.Fail || result.Error != nil {
			count++
		}
	}
	return count
}

// WriteText writes the results as OPA does: those that failed, with the condition that did,
// and how many passed. Verbose adds those that passed, what they print, and the trace of
// those that failed. Lines that weren't covered follow if coverage was asked for.
func (r *Report) WriteText(w io.Writer, verbose bool) error {
	results := make(chan *tester.Result, len(r.Results))
	for _, result := range r.Results {
		shown := *result
		if verbose {
			shown.Trace = lineage.Filter(result.Trace, func(event *topdown.Event) bool {
				return event.Op == topdown.NoteOp || event.Op == topdown.FailOp
			})
		}
		results <- &shown
	}
	close(results)
	if err := (tester.PrettyReporter{Output: w, Verbose: verbose, FailureLine: true, LocalVars: true}).Report(results); err != nil {
		return err
	}
	if r.Coverage == nil {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "coverage: %.1f %% of %d lines\n", r.Coverage.Coverage, r.Coverage.CoveredLines+r.Coverage.NotCoveredLines)
	for _, stretch := range r.notCovered() {
		fmt.Fprintf(&b, "not covered: %s\n", stretch)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// notCovered lists stretches of lines, as file:line or file:line-line.
func (r *Report) notCovered() (stretches []string) {
	for _, name := range slices.Sorted(maps.Keys(r.Coverage.Files)) {
		rows := map[int]bool{}
		for _, part := range r.Coverage.Files[name].NotCovered {
			for row := part.Start.Row; row <= part.End.Row; row++ {
				rows[row] = true
			}
		}
		for _, first := range slices.Sorted(maps.Keys(rows)) {
			if rows[first-1] {
				continue
			}
			last := first
			for rows[last+1] {
				last++
			}
			if first == last {
				stretches = append(stretches, fmt.Sprintf("%s:%d", name, first))
			} else {
				stretches = append(stretches, fmt.Sprintf("%s:%d-%d", name, first, last))
			}
		}
	}
	return stretches
}

// place is where something is in a file, from 1.
type place struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text,omitempty"` // the condition that stands there
}

// told is one test in JSON.
type told struct {
	Package  string          `json:"package"`
	Name     string          `json:"name"`
	At       place           `json:"at"`
	Outcome  string          `json:"outcome"` // pass, fail, error, skip
	Millis   float64         `json:"duration_ms"`
	Error    string          `json:"error,omitempty"`
	FailedAt *place          `json:"failed_at,omitempty"`
	Cases    map[string]bool `json:"cases,omitempty"` // whether each passed, of a test with several
	Output   string          `json:"output,omitempty"`
}

// WriteJSON writes {"tests":[…],"passed":…,"failed":…,"skipped":…,"coverage":…}; the coverage
// as OPA tells it, with the stretches that weren't covered listed.
func (r *Report) WriteJSON(w io.Writer) error {
	type coverage struct {
		*cover.Report
		NotCovered []string `json:"not_covered"`
	}
	document := struct {
		Tests    []told    `json:"tests"`
		Passed   int       `json:"passed"`
		Failed   int       `json:"failed"`
		Skipped  int       `json:"skipped"`
		Coverage *coverage `json:"coverage,omitempty"`
	}{Tests: make([]told, 0, len(r.Results)), Failed: r.Failed()}
	for _, result := range r.Results {
		one := tell(result)
		document.Tests = append(document.Tests, one)
		switch one.Outcome {
		case "pass":
			document.Passed++
		case "skip":
			document.Skipped++
		}
	}
	if r.Coverage != nil {
		document.Coverage = &coverage{r.Coverage, append([]string{}, r.notCovered()...)}
	}
	printed := json.NewEncoder(w)
	printed.SetIndent("", "  ")
	printed.SetEscapeHTML(false)
	return printed.Encode(document)
}

func tell(result *tester.Result) told {
	one := told{
		Package: result.Package, Name: result.Name, At: place{File: result.Location.File, Line: result.Location.Row},
		Outcome: "pass", Millis: float64(result.Duration.Microseconds()) / 1000, Output: string(result.Output),
	}
	switch {
	case result.Skip:
		one.Outcome = "skip"
	case result.Error != nil:
		one.Outcome, one.Error = "error", result.Error.Error()
	case result.Fail:
		one.Outcome, one.FailedAt = "fail", failedAt(result.Trace)
	}
	for name, part := range result.SubResults.Iter {
		if len(part.SubResults) == 0 {
			if one.Cases == nil {
				one.Cases = map[string]bool{}
			}
			one.Cases[strings.Join(name, "/")] = !part.Fail
		}
	}
	return one
}

// failedAt finds the last condition that failed.
func failedAt(trace []*topdown.Event) *place {
	for _, event := range slices.Backward(trace) {
		expression, ok := event.Node.(*ast.Expr)
		if event.Op == topdown.FailOp && ok && event.Location != nil && event.QueryID != 0 {
			return &place{event.Location.File, event.Location.Row, string(expression.Loc().Text)}
		}
	}
	return nil
}
