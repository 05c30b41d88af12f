package explanation

import (
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// outline groups the expressions of a compiled body by the conditions of the source that the
// compiler made them of: it takes an expression apart, and puts the parts in front.
type outline struct {
	owner  []int // by expression: the one that stands for its whole condition
	owners []int // in order
}

func (t *tracer) outline(f *frame) *outline {
	if len(f.body) == 0 { // OPA doesn't tell it
		return &outline{}
	}
	known := t.outlines[f.body[0]]
	if known == nil {
		known = outlineOf(f.body)
		t.outlines[f.body[0]] = known
	}
	return known
}

func outlineOf(body ast.Body) *outline {
	o := &outline{owner: make([]int, len(body))}
	for i := len(body) - 1; i >= 0; i-- {
		o.owner[i] = i
		for j := len(body) - 1; j > i; j-- {
			if o.owner[j] == j && within(body[i].Location, body[j].Location) {
				o.owner[i] = j
				break
			}
		}
	}
	for i, owner := range o.owner {
		if i == owner {
			o.owners = append(o.owners, i)
		}
	}
	return o
}

// within reports whether a part of the source is a part of another.
func within(part, whole *ast.Location) bool {
	return part != nil && whole != nil && part.File == whole.File && len(part.Text) > 0 &&
		whole.Offset <= part.Offset && part.Offset+len(part.Text) <= whole.Offset+len(whole.Text)
}

// source returns the text of an expression, from the source if that is there.
func source(node ast.Node) string {
	if l := node.Loc(); l != nil && len(l.Text) > 0 {
		text := l.Text[:min(len(l.Text), 4*maxCondition)]
		if expr, ok := node.(*ast.Expr); ok && expr.IsEvery() { // on one line its conditions want to be told apart
			text = regexp.MustCompile(`([^\s{\[(|,;])[ \t]*\n\s*([^\s}\])])`).ReplaceAll(text, []byte("$1; $2"))
		}
		return printable(string(text), maxCondition)
	}
	return printable(node.String(), maxCondition)
}

// values returns what stands behind the references and variables of the condition that the
// expression at index belongs to, as far as the evaluation has come.
func (t *tracer) values(e topdown.Event, o *outline, index int) []Value {
	f := t.frames[e.QueryID]
	if index >= len(o.owner) {
		return nil
	}
	body := f.body
	g := gathering{t: t, e: e, rule: f.owner, whole: source(body[o.owner[index]]), parts: map[ast.Var]string{}}
	for i := 0; i <= index; i++ {
		if o.owner[i] == o.owner[index] {
			g.expr(body[i])
		}
	}
	return g.values
}

// gathering collects the values of one condition.
type gathering struct {
	t      *tracer
	e      topdown.Event
	rule   *frame
	whole  string             // the text of the condition
	parts  map[ast.Var]string // the compiler's variables, and what of the source they stand for
	values []Value
}

func (g *gathering) expr(expr *ast.Expr) {
	switch terms := expr.Terms.(type) {
	case *ast.Term:
		switch {
		case !expr.Negated:
			g.term(terms, source(expr))
		case len(g.t.named(expr)) == 0: // else the rule tells
			g.term(terms, "")
		}
	case []*ast.Term:
		operands := terms[1:]
		if expr.IsEquality() && len(operands) == 2 && g.made(operands[0]) {
			g.named(source(expr), operands[0], operands[1])
			return
		}
		for i, operand := range operands {
			if i > 0 && i == len(operands)-1 && g.made(operand) && !g.stands(operand) {
				g.named(source(expr), operand, nil) // what the call gave
				continue
			}
			g.term(operand, "")
		}
	case *ast.Every:
		g.term(terms.Domain, "")
	}
}

// made reports whether a term is a variable of the compiler's own.
func (g *gathering) made(term *ast.Term) bool {
	v, ok := term.Value.(ast.Var)
	return ok && v.IsGenerated() && g.t.original(v) == ""
}

// stands reports whether a variable of the compiler's stands for a part that has been told.
func (g *gathering) stands(term *ast.Term) bool {
	v, ok := term.Value.(ast.Var)
	return ok && g.parts[v] != ""
}

// named adds the value of a variable that the compiler put in place of a part of the source.
func (g *gathering) named(name string, variable, meaning *ast.Term) {
	g.parts[variable.Value.(ast.Var)] = name
	plugged := g.e.Plug(variable)
	if _, unbound := plugged.Value.(ast.Var); !unbound {
		g.add(name, plugged.Value)
		return
	}
	if meaning != nil {
		g.term(meaning, name)
	}
}

// term adds the value of a variable or a reference; what else there is shows in the source.
func (g *gathering) term(term *ast.Term, name string) {
	switch v := term.Value.(type) {
	case ast.Var:
		if g.made(term) || v.IsWildcard() {
			return
		}
		if plugged := g.e.Plug(term); plugged.Value.Compare(v) != 0 {
			g.add(g.variable(v), plugged.Value)
		}
	case ast.Ref:
		g.ref(v, name)
	}
}

// original returns the name in the source of a variable that the compiler renamed, or nothing.
func (t *tracer) original(v ast.Var) string {
	if name := t.compiler.RewrittenVars[v]; !name.IsGenerated() && !name.IsWildcard() {
		return string(name)
	}
	return ""
}

func (g *gathering) variable(v ast.Var) string {
	if original := g.t.original(v); original != "" {
		return original
	}
	if part := g.parts[v]; part != "" {
		return part
	}
	return string(v)
}

func (g *gathering) ref(ref ast.Ref, name string) {
	plugged, ok := g.e.Plug(ast.NewTerm(ref)).Value.(ast.Ref)
	if !ok {
		return
	}
	n := groundLength(plugged)
	if n == len(plugged) && slices.ContainsFunc(ref, func(term *ast.Term) bool { return g.made(term) && !g.stands(term) }) {
		return // an element of a collection, which a variable has
	}
	if n < len(plugged) { // it goes through a collection
		plugged, name = plugged[:n], g.spell(ref[:n])
	}
	if name == "" {
		name = g.spell(ref)
	}
	value, defined, known := g.resolve(plugged)
	for _, term := range ref[1:] {
		if _, variable := term.Value.(ast.Var); variable {
			g.term(term, "")
		}
	}
	switch {
	case !known:
	case defined:
		g.add(name, value)
	default:
		g.text(name, outcomeUndefined)
	}
}

// groundLength is how many elements of a reference are known, from its head on.
func groundLength(ref ast.Ref) int {
	for i, term := range ref {
		if i > 0 && !term.IsGround() {
			return i
		}
	}
	return len(ref)
}

// resolve finds what a reference stands for.
func (g *gathering) resolve(ref ast.Ref) (value ast.Value, defined, known bool) {
	switch head := ref[0].Value.(type) {
	case ast.Var:
		if head.Compare(ast.InputRootDocument.Value) == 0 {
			input := g.e.Input()
			if input == nil {
				return nil, false, true
			}
			found, err := input.Value.Find(ref[1:])
			return found, err == nil, true
		}
		if head.Compare(ast.DefaultRootDocument.Value) != 0 {
			return nil, false, false
		}
		return g.data(ref)
	case ast.Call, *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
		return nil, false, false
	default:
		found, err := head.Find(ref[1:])
		return found, err == nil, true
	}
}

func (g *gathering) data(ref ast.Ref) (value ast.Value, defined, known bool) {
	for n := len(ref); n > 1; n-- {
		path := ref[:n].String()
		if _, rule := g.t.rules[path]; !rule {
			continue
		}
		given, held := g.t.given(path)
		if !held {
			return nil, false, true
		}
		found, err := given.Find(ref[n:])
		return found, err == nil, true
	}
	return g.t.reads.find(ref)
}

// spell writes a reference as the source may have it: without the package that it is in, and
// with the names of variables.
func (g *gathering) spell(ref ast.Ref) string {
	head := g.variable(headOf(ref))
	rest := ref[1:]
	if g.rule != nil && g.rule.rule != nil {
		own := g.rule.rule.Module.Package.Path
		if len(ref) > len(own) && ref.HasPrefix(own) {
			if name, ok := ref[len(own)].Value.(ast.String); ok {
				head, rest = string(name), ref[len(own)+1:]
			}
		}
	}
	var b strings.Builder
	b.WriteString(head)
	for _, term := range rest {
		switch v := term.Value.(type) {
		case ast.String:
			writeSegment(&b, string(v))
		case ast.Var:
			b.WriteString("[" + g.variable(v) + "]")
		default:
			b.WriteString("[" + show(v) + "]")
		}
	}
	return printable(b.String(), maxCondition)
}

func headOf(ref ast.Ref) ast.Var {
	if head, ok := ref[0].Value.(ast.Var); ok {
		return head
	}
	return "…"
}

func (g *gathering) add(name string, value ast.Value) {
	if value.Compare(ast.Boolean(true)) == 0 && name == g.whole {
		return // the outcome says as much
	}
	if g.has(name) {
		return
	}
	if text := g.t.show(value); text != name { // a literal is its own value
		g.text(name, text)
	}
}

func (g *gathering) has(name string) bool {
	return slices.ContainsFunc(g.values, func(v Value) bool { return v.Name == name })
}

func (g *gathering) text(name, text string) {
	if g.has(name) || len(g.values) == maxValues {
		return
	}
	g.values = append(g.values, Value{Name: name, Value: text})
}
