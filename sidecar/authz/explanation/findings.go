package explanation

import (
	"cmp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// finding is what became of one condition.
type finding struct {
	expr    *ast.Expr
	parts   []*step // of the condition, in the order of evaluation
	outcome string  // empty: it wasn't evaluated to its end
	values  []Value
	tries   int       // how often it failed
	others  [][]Value // what it met when it failed again
}

// findings returns what became of each condition of a frame that was reached.
func (t *tracer) findings(f *frame) (all []finding) {
	o := t.outline(f)
	for _, owner := range o.owners {
		if self := f.body[owner]; isTrue(self) {
			continue // a definition without conditions
		}
		if found, reached := t.finding(f, o, owner); reached {
			all = append(all, found)
		}
	}
	return all
}

func isTrue(expr *ast.Expr) bool {
	term, ok := expr.Terms.(*ast.Term)
	return ok && term.Value.Compare(ast.Boolean(true)) == 0
}

func (t *tracer) finding(f *frame, o *outline, owner int) (found finding, reached bool) {
	found.expr = f.body[owner]
	var stuck *step
	for i, s := range f.steps {
		if s == nil || o.owner[i] != owner {
			continue
		}
		found.parts = append(found.parts, s)
		if s.held == 0 && s.failed > 0 {
			stuck = s
		}
	}
	switch {
	case len(found.parts) == 0:
		return found, false
	case stuck != nil:
		found.tries = stuck.failed
		if len(stuck.failures) > 0 {
			found.values, found.others = stuck.failures[0], stuck.failures[1:]
		}
		found.outcome = t.failure(&found, stuck)
	case f.held || owner < len(f.steps) && f.steps[owner] != nil && f.steps[owner].held > 0:
		found.outcome, found.values = outcomeHolds, f.facts[owner]
	}
	return found, true
}

// failure says how a condition failed.
func (t *tracer) failure(found *finding, stuck *step) string {
	whole := source(found.expr)
	for i, v := range found.values {
		if v.Name == whole && v.Value == outcomeFalse || v.Name == whole && v.Value == outcomeUndefined {
			found.values = slices.Delete(slices.Clone(found.values), i, i+1) // the outcome says it
			return v.Value
		}
	}
	switch {
	case found.expr.Negated:
		return outcomeFalse
	case stuck.expr != found.expr, slices.ContainsFunc(found.values, func(v Value) bool { return v.Value == outcomeUndefined }):
		return outcomeUndefined
	case found.expr.IsEquality(), found.expr.IsEvery():
		return outcomeFalse
	case found.expr.IsCall() && ast.BuiltinMap[found.expr.Operator().String()] != nil:
		return outcomeFalse
	}
	return outcomeUndefined
}

// blocking returns the condition that kept a frame from holding: the last one that was
// reached and never held.
func (t *tracer) blocking(f *frame) (finding, bool) {
	if f.held {
		return finding{}, false
	}
	all := t.findings(f)
	for _, found := range slices.Backward(all) {
		if found.outcome != outcomeHolds && found.outcome != "" {
			return found, true
		}
	}
	return finding{}, false
}

// tell fills in what decided, and what failed.
func (t *tracer) tell(x *Explanation) {
	if decided := t.decided(); decided != nil {
		x.Decided = &Definition{
			Rule: printable(decided.path, maxCondition), At: place(decided.rule.Location), Text: t.head(decided.rule), Value: decided.shown,
		}
	}
	seen := map[string]bool{}
	for _, f := range t.order {
		if f.within != nil && f.within.expr.Negated && f.rule == nil {
			continue // the not around it held
		}
		found, ok := t.blocking(f)
		if !ok || f.owner == nil {
			continue
		}
		c := Condition{
			Rule: printable(f.owner.path, maxCondition), At: place(found.expr.Location), Text: source(found.expr),
			Outcome: found.outcome, Values: slices.Clip(append([]Value{}, found.values...)),
		}
		if key := c.At + c.Text; seen[key] {
			continue
		} else if len(x.Failed) == maxFailed {
			x.CutOff = true
			return
		} else {
			seen[key] = true
		}
		x.Failed = append(x.Failed, c)
	}
}

// decided returns the definition that gave the decision.
func (t *tracer) decided() *frame {
	for _, f := range t.rules[t.decision] {
		if f.held {
			return f
		}
	}
	return nil
}

// head returns the head of a definition as the source has it.
func (t *tracer) head(rule *ast.Rule) string {
	text := ""
	if l := rule.Head.Location; l != nil {
		text = string(l.Text[:min(len(l.Text), 4*maxCondition)])
	}
	switch {
	case text == "":
		text = rule.Head.String()
	case rule.Default:
		text = "default " + text
	case len(rule.Head.Args) > 0 && !strings.Contains(text, "("): // OPA has the name alone
		arguments := make([]string, 0, len(rule.Head.Args))
		for _, argument := range rule.Head.Args {
			arguments = append(arguments, t.argument(argument))
		}
		text += "(" + strings.Join(arguments, ", ") + ")"
	}
	return printable(text, maxCondition)
}

func (t *tracer) argument(term *ast.Term) string {
	v, ok := term.Value.(ast.Var)
	if !ok {
		return show(term.Value)
	}
	if name := t.original(v); name != "" || v.IsGenerated() {
		return cmp.Or(name, "_")
	}
	return string(v)
}
