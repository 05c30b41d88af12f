package author

import (
	"maps"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// wholeReads finds where a rule makes storage hand out all permissions, or all deletions:
// OPA asks for one record where each part of the reference is known when it gets there, and
// for the collection otherwise. Rules come from the compiler, which has brought their
// conditions into the order of evaluation.
func wholeReads(rules []*ast.Rule) []Finding {
	var w wholeWalk
	for _, rule := range rules {
		for ; rule != nil; rule = rule.Else {
			w.rule, w.at = rule, rule.Location
			known := map[ast.Var]bool{}
			for _, argument := range rule.Head.Args {
				learn(known, argument)
			}
			w.body(rule.Body, known)
			w.terms(rule.Head, known)
		}
	}
	return w.found
}

type wholeWalk struct {
	rule  *ast.Rule
	at    *ast.Location // of the condition, for what the compiler wrote in it
	found []Finding
}

// body follows the conditions in their order; known are the variables that have a value
// before.
func (w *wholeWalk) body(body ast.Body, known map[ast.Var]bool) {
	known = maps.Clone(known)
	defer func(outer *ast.Location) { w.at = outer }(w.at)
	for _, expression := range body {
		if expression.Location != nil {
			w.at = expression.Location
		}
		if every, ok := expression.Terms.(*ast.Every); ok {
			w.terms(every.Domain, known)
			within := maps.Clone(known)
			learn(within, every.Key)
			learn(within, every.Value)
			w.body(every.Body, within)
			continue
		}
		if !mocked(expression) {
			w.terms(expression, known)
		}
		learn(known, expression)
	}
}

// mocked reports whether an expression brings a catalog of its own.
func mocked(expression *ast.Expr) bool {
	for _, with := range expression.With {
		if target, ok := with.Target.Value.(ast.Ref); ok && target.HasPrefix(ast.DefaultRootRef) && target[:min(2, len(target))].String() == "data.scalekit" {
			return true
		}
	}
	return false
}

// terms looks at the references in x, and into its comprehensions.
func (w *wholeWalk) terms(x any, known map[ast.Var]bool) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension:
			w.comprehension(x.Body, known, x.Term)
			return true
		case *ast.SetComprehension:
			w.comprehension(x.Body, known, x.Term)
			return true
		case *ast.ObjectComprehension:
			w.comprehension(x.Body, known, x.Key, x.Value)
			return true
		case *ast.Term:
			if ref, ok := x.Value.(ast.Ref); ok {
				w.reference(ref, x.Location, known)
			}
		}
		return false
	}).Walk(x)
}

func (w *wholeWalk) comprehension(body ast.Body, known map[ast.Var]bool, heads ...*ast.Term) {
	w.body(body, known)
	within := maps.Clone(known)
	learn(within, body)
	for _, head := range heads {
		w.terms(head, within)
	}
}

// learn notes the variables of x, which have a value after it. What is within a comprehension
// stays there.
func learn(known map[ast.Var]bool, x any) {
	visitor := ast.NewVarVisitor().WithParams(ast.VarVisitorParams{SkipClosures: true})
	visitor.Walk(x)
	for v := range visitor.Vars() {
		known[v] = true
	}
}

func (w *wholeWalk) reference(ref ast.Ref, location *ast.Location, known map[ast.Var]bool) {
	if !ref.HasPrefix(ast.DefaultRootRef) {
		return
	}
	open := func(i int) bool { // the part isn't there, or is to be found by going through all
		if i >= len(ref) {
			return true
		}
		v, isVar := ref[i].Value.(ast.Var)
		return isVar && !known[v]
	}
	part := func(i int) string {
		s, _ := ref[i].Value.(ast.String)
		return string(s)
	}
	what := ""
	switch {
	case open(1):
		what = "data"
	case part(1) != "scalekit":
	case open(2):
		what = "data.scalekit"
	case part(2) == "permissions" && open(3), part(2) == "deleted" && open(3):
		what = "data.scalekit." + part(2)
	}
	if what == "" {
		return
	}
	if location == nil {
		location = w.at
	}
	w.found = append(w.found, at(location, LevelWarning, RuleWhole, "this reads all of %s, which is built anew after each change and fails beyond --max-document; %s", what, w.instead(location)))
}

// instead says what to write, going by the line in the source.
func (w *wholeWalk) instead(location *ast.Location) string {
	line := sourceLine(w.rule, location.Row)
	switch {
	case strings.Contains(line, "count("):
		return "data.scalekit.sync.count is the number of live permissions, and one of them is read by its name: data.scalekit.permissions[name]"
	case strings.Contains(line, "object.get("):
		return "write data.scalekit.permissions[name], which reads one and is undefined where object.get gives its default"
	default:
		return "read one by its name, data.scalekit.permissions[name], where name has its value before: `some name in names` goes first"
	}
}

// sourceLine returns a line of the rule's source, or nothing.
func sourceLine(rule *ast.Rule, row int) string {
	lines := strings.Split(string(rule.Loc().Text), "\n")
	if i := row - rule.Loc().Row; i >= 0 && i < len(lines) {
		return lines[i]
	}
	return ""
}
