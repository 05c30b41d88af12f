package explanation

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// line is one line of the text.
type line struct {
	at, text, outcome string
	depth             int
	title             bool
}

// writer makes the lines of an explanation.
type writer struct {
	t      *tracer
	lines  []line
	bytes  int
	told   map[*frame]bool
	cutOff bool
}

// render tells an explanation to a person. t is nil where no policy was asked.
func render(t *tracer, x *Explanation, v Verdict) string {
	w := &writer{t: t, told: map[*frame]bool{}}
	if t != nil {
		w.decision(v.Value != nil)
	}
	x.CutOff = x.CutOff || w.cutOff
	var b strings.Builder
	b.WriteString(verdictLine(v))
	if v.Message != "" {
		b.WriteString("\n  " + printable(v.Message, maxText/16))
	}
	b.WriteString("\n")
	if len(w.lines) > 0 {
		b.WriteString("\n")
		layOut(&b, w.lines)
	}
	section(&b, "read from data:", x.Reads, func(r Read) string { return r.Path + " = " + r.Value })
	section(&b, "errors of builtins:", x.Errors, func(text string) string { return text })
	if x.Note != "" {
		b.WriteString("\n" + x.Note + "\n")
	}
	if x.CutOff {
		b.WriteString("\ncut off: there was more than an explanation tells\n")
	}
	return bounded(b.String())
}

func verdictLine(v Verdict) string {
	word := "deny"
	if v.Allow {
		word = "allow"
	}
	reasons := make([]string, 0, maxReasons)
	for i, reason := range v.Reasons {
		if i == maxReasons {
			reasons = append(reasons, ellipsis)
			break
		}
		reasons = append(reasons, printable(reason, maxValue))
	}
	return strings.TrimRight(word+"  "+strings.Join(reasons, ", "), " ")
}

func section[T any](b *strings.Builder, title string, all []T, text func(T) string) {
	if len(all) == 0 {
		return
	}
	b.WriteString("\n" + title + "\n")
	for _, one := range all {
		b.WriteString("  " + text(one) + "\n")
	}
}

// bounded cuts the text at the end of a line.
func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	text = text[:maxText]
	return text[:strings.LastIndexByte(text, '\n')+1] + ellipsis + "\n"
}

// widest text that outcomes are put behind in one column.
const widest = 76

func layOut(b *strings.Builder, lines []line) {
	place, text := 0, 0
	for _, l := range lines {
		place = max(place, utf8.RuneCountInString(l.at))
		if n := 2*l.depth + utf8.RuneCountInString(l.text); l.outcome != "" && n <= widest {
			text = max(text, n)
		}
	}
	for _, l := range lines {
		if l.title {
			b.WriteString("\n" + l.text + "\n")
			continue
		}
		row := fmt.Sprintf("%-*s  %s%s", place, l.at, strings.Repeat("  ", l.depth), l.text)
		if l.outcome != "" {
			row += strings.Repeat(" ", max(0, place+2+text-utf8.RuneCountInString(row))) + "  " + l.outcome
		}
		b.WriteString(row + "\n")
	}
}

func (w *writer) add(l line) {
	w.bytes += len(l.at) + len(l.text) + len(l.outcome) + 2*l.depth + 4
	if w.bytes > maxText || l.depth > maxDepth {
		w.cutOff = true
		return
	}
	w.lines = append(w.lines, l)
}

// decision tells what decided, and then what was tried before it.
func (w *writer) decision(valid bool) {
	decided := w.t.decided()
	switch {
	case decided != nil && valid:
		w.definition(decided, 0, "decided")
	case decided != nil:
		w.definition(decided, 0, "")
	}
	var before []*frame
	for _, f := range w.t.rules[w.t.decision] {
		if !f.held {
			before = append(before, f)
		}
	}
	if len(before) > 0 && decided != nil {
		w.add(line{text: "what else could have decided:", title: true})
	}
	for _, f := range before {
		w.definition(f, 0, "")
	}
}

// definition tells one evaluation of a rule's definition.
func (w *writer) definition(f *frame, depth int, outcome string) {
	if w.told[f] || w.cutOff {
		return
	}
	w.told[f] = true
	if outcome == "" {
		switch {
		case f.held:
			outcome = outcomeHolds
		case len(f.rule.Head.Args) > 0 && len(f.steps) == 0:
			outcome = "isn't for these arguments"
		default:
			outcome = "doesn't hold"
		}
	}
	if value := f.rule.Head.Value; outcome == outcomeHolds && f.shown != "" && value != nil && !value.IsGround() {
		outcome = "gives " + f.shown
	}
	w.add(line{at: place(f.rule.Location), text: w.t.head(f.rule), outcome: outcome, depth: depth})
	w.conditions(f, depth+1, nil)
}

// conditions tells the conditions of a frame: all if it held, else the one that it failed by.
// around is the condition that the frame is the same as, but for a not.
func (w *writer) conditions(f *frame, depth int, around *finding) {
	blocking, failed := w.t.blocking(f)
	for _, found := range w.t.findings(f) {
		switch {
		case failed && found.expr == blocking.expr:
		case failed && !collects(found):
			continue
		case !failed && !f.held:
			continue
		}
		if around != nil && sameSource(found.expr, around.expr) {
			found.values = slices.DeleteFunc(slices.Clone(found.values), func(v Value) bool { return slices.Contains(around.values, v) })
			w.values(found, depth)
			w.below(found, depth)
			continue
		}
		if f.rule != nil && f.held && within(found.expr.Location, f.rule.Head.Location) {
			w.values(found, depth)
			w.below(found, depth)
			continue
		}
		w.condition(found, depth)
	}
}

func sameSource(a, b *ast.Expr) bool {
	return a.Location != nil && b.Location != nil && a.Location.Offset == b.Location.Offset && a.Location.File == b.Location.File
}

// collects reports whether a condition gathers what others hold for: why that is so little may
// be why a later one fails.
func collects(found finding) bool {
	for _, s := range found.parts {
		if s.expr.IsEvery() || s.expr.Negated {
			continue
		}
		for _, child := range s.children {
			if child.rule == nil && !child.held {
				return true
			}
		}
	}
	return false
}

func (w *writer) condition(found finding, depth int) {
	outcome := found.outcome
	if found.tries > 1 {
		outcome += fmt.Sprintf(" (%d times)", found.tries)
	}
	text := source(found.expr)
	for _, v := range found.values {
		if v.Name == text && found.outcome == outcomeHolds {
			outcome = v.Value
		}
	}
	w.add(line{at: place(found.expr.Location), text: text, outcome: outcome, depth: depth})
	w.values(found, depth+1)
	w.below(found, depth+1)
}

func (w *writer) values(found finding, depth int) {
	width := 0
	whole := source(found.expr) // what that gave is its outcome
	found.values = slices.DeleteFunc(slices.Clone(found.values), func(v Value) bool { return v.Name == whole })
	for _, v := range found.values {
		width = max(width, utf8.RuneCountInString(v.Name))
	}
	for _, v := range found.values {
		w.add(line{text: fmt.Sprintf("%-*s = %s", width, v.Name, v.Value), depth: depth})
	}
	for _, other := range found.others {
		var differing []string
		for _, v := range other {
			if v.Name != whole && !slices.Contains(found.values, v) {
				differing = append(differing, v.Name+" = "+v.Value)
			}
		}
		if len(differing) > 0 {
			w.add(line{text: "again: " + strings.Join(differing, ", "), depth: depth})
		}
	}
}

// below tells what a condition rests on: functions and bodies that were evaluated for it, and
// the rules that it names.
func (w *writer) below(found finding, depth int) {
	for _, s := range found.parts {
		for _, child := range s.children {
			w.child(child, s, found, depth)
		}
		for _, path := range w.t.named(s.expr) {
			w.rule(path, depth)
		}
	}
}

func (w *writer) child(child *frame, s *step, found finding, depth int) {
	holds := found.outcome == outcomeHolds
	switch {
	case child.rule != nil && len(child.rule.Head.Args) == 0:
		// A rule that isn't a function is told where it is named, once.
	case child.rule != nil:
		if child.held == holds {
			w.definition(child, depth, "")
		}
	case s.expr.Negated:
		w.conditions(child, depth, &found)
	case s.expr.IsEvery():
		w.every(child, holds, depth)
	case !child.held:
		w.conditions(child, depth, nil)
	}
}

// every tells of the elements that an every fails by.
func (w *writer) every(domain *frame, holds bool, depth int) {
	if holds {
		return
	}
	for _, s := range domain.steps {
		if s == nil {
			continue
		}
		for _, body := range s.children {
			if !body.held {
				w.conditions(body, depth, nil)
			}
		}
	}
}

// named returns the rules that an expression names, functions left out.
func (t *tracer) named(expr *ast.Expr) (paths []string) {
	for _, term := range termsOf(expr) {
		ref, ok := term.Value.(ast.Ref)
		if !ok {
			continue
		}
		for n := len(ref); n > 1; n-- {
			path := ref[:n].String()
			if _, known := t.rules[path]; known && !slices.Contains(paths, path) {
				paths = append(paths, path)
				break
			}
		}
	}
	return paths
}

func termsOf(expr *ast.Expr) []*ast.Term {
	switch terms := expr.Terms.(type) {
	case *ast.Term:
		return []*ast.Term{terms}
	case []*ast.Term:
		return terms[1:]
	case *ast.Every:
		return []*ast.Term{terms.Domain}
	}
	return nil
}

// rule tells the definitions of a rule that matter: those that held, and where none did, or
// only one that stands in for others, those that didn't.
func (w *writer) rule(path string, depth int) {
	var others, held bool
	for _, f := range w.t.rules[path] {
		if f.held {
			held = true
			others = others || f.rule.Default || w.t.alternative[f.rule] || f.shown == outcomeFalse
		}
	}
	for _, f := range w.t.rules[path] {
		if f.held || others || !held {
			w.definition(f, depth, "")
		}
	}
}
