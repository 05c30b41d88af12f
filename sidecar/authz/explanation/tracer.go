package explanation

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// tracer makes of OPA's events a tree of what was evaluated: definitions of rules and bodies
// of expressions, with what became of each condition in them. It keeps a bounded part.
type tracer struct {
	compiler *ast.Compiler
	reads    *recorder
	decision string // the path of the rule that answers

	frames      map[uint64]*frame // by query
	order       []*frame
	rules       map[string][]*frame
	paths       []string // of rules, in the order of evaluation
	alternative map[*ast.Rule]bool
	outlines    map[*ast.Expr]*outline // by the first expression of a body

	steps  int
	held   int // bytes of values
	cutOff bool
}

// frame is one evaluation of a rule's definition, or of a body within one.
type frame struct {
	rule   *ast.Rule // nil: a body
	path   string    // of the rule
	owner  *frame    // of the definition that a body stands in; itself for a definition
	within *step     // the condition that it was evaluated for
	body   ast.Body  // empty where OPA doesn't tell it
	steps  []*step   // by the place in the body; nil: wasn't reached
	last   *step     // the one being evaluated

	held  bool
	value ast.Value       // what a rule gave that is no function
	shown string          // the same, or what a function gave
	facts map[int][]Value // what the conditions met when the frame first held
}

// step is one expression of a body.
type step struct {
	expr     *ast.Expr
	held     int
	failed   int
	failures [][]Value // what the first of them met
	children []*frame
}

const maxFailures = 3 // of one step whose values are remembered

func newTracer(compiler *ast.Compiler, reads *recorder, decision ast.Ref) *tracer {
	return &tracer{
		compiler: compiler, reads: reads, decision: decision.String(),
		frames: map[uint64]*frame{}, rules: map[string][]*frame{},
		alternative: map[*ast.Rule]bool{}, outlines: map[*ast.Expr]*outline{},
	}
}

// Enabled says that there is something to trace for.
func (t *tracer) Enabled() bool { return true }

// Config asks for bare events: variables are looked up where they are shown.
func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent takes one event.
func (t *tracer) TraceEvent(e topdown.Event) {
	switch e.Op {
	case topdown.EnterOp:
		t.enter(e)
	case topdown.EvalOp:
		t.eval(e)
	case topdown.FailOp:
		t.fail(e)
	case topdown.RedoOp:
		t.redo(e)
	case topdown.ExitOp:
		t.exit(e)
	default: // how OPA came there
	}
}

func (t *tracer) enter(e topdown.Event) {
	f := &frame{}
	switch node := e.Node.(type) {
	case *ast.Rule:
		f.rule, f.path, f.owner, f.body = node, node.Ref().GroundPrefix().String(), f, node.Body
		if node.Else != nil {
			t.alternative[node.Else] = true
		}
	case ast.Body:
		f.body = node
	}
	t.add(e, f)
}

// add hangs a frame below the condition that is being evaluated.
func (t *tracer) add(e topdown.Event, f *frame) {
	if len(t.frames) == maxFrames {
		t.cutOff = true
		return
	}
	parent := t.frames[e.ParentID]
	if e.QueryID == e.ParentID { // the question itself
		parent = nil
	}
	if parent == nil && len(t.frames) > 0 {
		return // below what was left out
	}
	if parent != nil {
		f.within = parent.last
		if f.owner == nil {
			f.owner = parent.owner
		}
		if parent.last != nil {
			parent.last.adopt(f)
		}
	}
	f.steps = make([]*step, 0, len(f.body))
	t.frames[e.QueryID] = f
	t.order = append(t.order, f)
	if f.rule != nil && len(f.rule.Head.Args) == 0 {
		if len(t.rules[f.path]) == 0 {
			t.paths = append(t.paths, f.path)
		}
		t.rules[f.path] = append(t.rules[f.path], f)
	}
}

// adopt keeps the first children and the last ones: in a loop those are where it began, and
// where it ended.
func (s *step) adopt(f *frame) {
	if len(s.children) < maxChildren {
		s.children = append(s.children, f)
		return
	}
	copy(s.children[maxChildren/2:], s.children[maxChildren/2+1:])
	s.children[maxChildren-1] = f
}

// at returns the frame and the step of an event, or nil for what was left out.
func (t *tracer) at(e topdown.Event, expr *ast.Expr) (*frame, *step) {
	f := t.frames[e.QueryID]
	if f == nil || expr.Index < 0 || expr.Index >= len(f.steps) {
		return f, nil
	}
	return f, f.steps[expr.Index]
}

func (t *tracer) eval(e topdown.Event) {
	expr, ok := e.Node.(*ast.Expr)
	if !ok {
		return
	}
	f, s := t.at(e, expr)
	if f == nil {
		return // below what was left out
	}
	if s == nil {
		if s = t.addStep(f, expr); s == nil {
			return
		}
	}
	f.passed(expr.Index)
	f.last = s
}

// passed notes that the expressions before one that is evaluated have held, where OPA doesn't
// tell so: where they are negated.
func (f *frame) passed(index int) {
	if index > 0 && f.steps[index-1] != nil && f.steps[index-1].expr.Negated {
		f.steps[index-1].held++
	}
}

func (t *tracer) addStep(f *frame, expr *ast.Expr) *step {
	if t.steps == maxSteps || expr.Index < 0 || expr.Index > maxSteps {
		t.cutOff = true
		return nil
	}
	for len(f.steps) <= expr.Index {
		f.steps = append(f.steps, nil)
	}
	t.steps++
	s := &step{expr: expr}
	f.steps[expr.Index] = s
	return s
}

func (t *tracer) fail(e topdown.Event) {
	expr, ok := e.Node.(*ast.Expr)
	if !ok {
		return
	}
	f, s := t.at(e, expr)
	if s == nil {
		return
	}
	s.failed++
	if len(s.failures) < maxFailures {
		s.failures = append(s.failures, t.values(e, t.outline(f), expr.Index))
	}
}

func (t *tracer) redo(e topdown.Event) {
	expr, ok := e.Node.(*ast.Expr)
	if !ok {
		return
	}
	if f, s := t.at(e, expr); s != nil {
		s.held++
		f.last = s
	}
}

func (t *tracer) exit(e topdown.Event) {
	f := t.frames[e.QueryID]
	if f == nil {
		return
	}
	if rule, ok := e.Node.(*ast.Rule); ok {
		t.gave(e, f, rule)
	}
	if f.held {
		return // another solution: the first is told
	}
	f.held = true
	f.passed(len(f.steps))
	o := t.outline(f)
	f.facts = make(map[int][]Value, len(o.owners))
	for _, owner := range o.owners {
		f.facts[owner] = t.values(e, o, owner)
	}
}

// gave remembers what a definition gave.
func (t *tracer) gave(e topdown.Event, f *frame, rule *ast.Rule) {
	if f.held && rule.Head.RuleKind() == ast.SingleValue {
		return
	}
	var value *ast.Term
	switch {
	case rule.Head.Key != nil && rule.Head.Value == nil:
		value = e.Plug(ast.SetTerm(rule.Head.Key))
	case rule.Head.Value != nil && rule.Ref().IsGround():
		value = e.Plug(rule.Head.Value)
	case rule.Head.Value != nil:
		ref := rule.Ref()
		value = e.Plug(ast.ObjectTerm(ast.Item(ref[len(ref)-1], rule.Head.Value)))
	default:
		return
	}
	if len(rule.Head.Args) > 0 {
		f.shown = t.show(value.Value)
		return
	}
	f.value = joined(f.value, value.Value)
	f.shown = t.show(f.value)
}

// joined adds what a definition gave to what it gave before: sets and objects are given piece
// by piece.
func joined(before, more ast.Value) ast.Value {
	switch b := before.(type) {
	case ast.Set:
		if m, ok := more.(ast.Set); ok && b.Len() < maxValue {
			return b.Union(m)
		}
		return before
	case ast.Object:
		if m, ok := more.(ast.Object); ok && b.Len() < maxValue {
			if both, ok := b.Merge(m); ok {
				return both
			}
		}
		return before
	}
	return more
}

// show renders a value that is to be remembered.
func (t *tracer) show(value ast.Value) string {
	if t.held >= maxHeld {
		t.cutOff = true
		return ellipsis
	}
	shown := show(value)
	t.held += len(shown)
	return shown
}

// given returns what a rule gave, by all of its definitions.
func (t *tracer) given(path string) (value ast.Value, held bool) {
	for _, f := range t.rules[path] {
		if f.held && f.value != nil {
			value, held = joined(value, f.value), true
		}
	}
	return value, held
}
