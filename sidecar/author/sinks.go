package author

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// sink takes a term for what k says, and so the texts that it comes from.
func (f *flow) sink(term *ast.Term, k kind, s scope) {
	if k&^aDead == 0 || f.seen[visit{term, s.rule, k}] {
		return
	}
	f.seen[visit{term, s.rule, k}] = true
	switch value := term.Value.(type) {
	case ast.String:
		if k&aName != 0 && value != "" { // which asks whether there is a name
			f.mention(string(value), term.Location, k, s)
		}
	case ast.Var:
		f.sinkVariable(value, k, s)
	case ast.Ref:
		f.sinkReference(value, k, s)
	default:
		for _, one := range members(value, k) {
			f.sink(one, asName(k), s)
		}
	}
}

// members are the terms of a literal, or the head of a comprehension, that are names if the
// collection is of kind k.
func members(collection ast.Value, k kind) (found []*ast.Term) {
	collect := func(one *ast.Term) { found = append(found, one) }
	if k&names != 0 {
		switch value := collection.(type) {
		case ast.Set:
			value.Foreach(collect)
		case *ast.Array:
			value.Foreach(collect)
		case ast.Object:
			value.Foreach(func(_, one *ast.Term) { collect(one) })
		case *ast.SetComprehension:
			collect(value.Term)
		case *ast.ArrayComprehension:
			collect(value.Term)
		case *ast.ObjectComprehension:
			collect(value.Value)
		}
	}
	if k&asKeys != 0 {
		switch value := collection.(type) {
		case ast.Set:
			value.Foreach(collect)
		case ast.Object:
			value.Foreach(func(key, _ *ast.Term) { collect(key) })
		case *ast.SetComprehension:
			collect(value.Term)
		case *ast.ObjectComprehension:
			collect(value.Key)
		}
	}
	return found
}

// asName is the kind of what a collection of kind k holds.
func asName(k kind) kind { return aName | k&aDead }

func asNameIf(k, has kind) kind {
	if k&has == 0 {
		return 0
	}
	return asName(k)
}

func (f *flow) sinkVariable(v ast.Var, k kind, s scope) {
	for i, argument := range s.rule.Head.Args {
		if argument.Value.Compare(v) == 0 {
			f.takeArgument(s.rule, i, k)
		}
	}
	for _, from := range s.values[v] {
		switch from.how {
		case itself:
			f.sink(from.term, k, s)
		case element:
			f.sink(from.term, asNames(k, names), s)
		case key:
			f.sink(from.term, asNames(k, asKeys), s)
		case result:
			f.sinkResult(from.term.Value.(ast.Call), k)
		}
	}
}

// asNames is the kind of the collection that a term of kind k is from.
func asNames(k, collection kind) kind {
	if k&aName == 0 {
		return 0
	}
	return collection | k&aDead
}

// takeArgument notes what a function uses an argument as, for its callers.
func (f *flow) takeArgument(function *ast.Rule, i int, k kind) {
	path := function.Ref().GroundPrefix().String()
	for len(f.takes[path]) <= i {
		f.takes[path] = append(f.takes[path], 0)
	}
	// A use among the deletions is lenient: it gives way to a strict one.
	old := f.takes[path][i]
	grown := old | k
	if old != 0 && (old&aDead == 0 || k&aDead == 0) {
		grown &^= aDead
	}
	if grown != old {
		f.takes[path][i], f.grown = grown, true
	}
}

// sinkResult takes what functions return for what k says.
func (f *flow) sinkResult(call ast.Call, k kind) {
	operator, ok := call[0].Value.(ast.Ref)
	if !ok {
		return
	}
	for _, function := range f.compiler.GetRulesExact(operator) {
		f.sinkRule(function, k)
	}
}

// sinkReference takes a value below a rule, or below a variable.
func (f *flow) sinkReference(ref ast.Ref, k kind, s scope) {
	if ref.HasPrefix(ast.InputRootRef) {
		f.tell(ref, k, s)
		return
	}
	if _, ok := ref[0].Value.(ast.Var); ok && !ref.HasPrefix(ast.DefaultRootRef) {
		f.tell(ref, k, s)
		f.sinkBelow(ref[0], ref[1:], k, s)
		return
	}
	for i := len(ref); i > 1; i-- {
		for _, rule := range f.compiler.GetRulesExact(ref[:i]) {
			switch {
			case i == len(ref):
				f.sinkRule(rule, k)
			case rule.Head.RuleKind() == ast.SingleValue:
				f.sinkBelow(rule.Head.Value, ref[i:], k, f.scopeOf(rule))
			case len(ref)-i == 1: // of a set the index is the element
				f.sinkRule(rule, asNames(k, names))
			}
		}
	}
}

// tell notes that a rule uses a reference for what k says, so that other conditions of the rule
// on the same reference are about names, too.
func (f *flow) tell(ref ast.Ref, k kind, s scope) {
	at := use{ref.String(), s.rule}
	if grown := f.told[at] | k&(aName|names); grown != f.told[at] {
		f.told[at], f.grown = grown, true
	}
}

// sinkBelow takes what stands in a collection at a path, of which parts may be unknown.
func (f *flow) sinkBelow(term *ast.Term, path []*ast.Term, k kind, s scope) {
	object, ok := term.Value.(ast.Object)
	switch {
	case len(path) == 0:
		f.sink(term, k, s)
	case ok:
		object.Foreach(func(key, value *ast.Term) {
			if !path[0].IsGround() || key.Equal(path[0]) {
				f.sinkBelow(value, path[1:], k, s)
			}
		})
	case len(path) == 1:
		f.sink(term, asNames(k, names), s)
	default:
		v, _ := term.Value.(ast.Var)
		for _, from := range s.values[v] {
			if ref, ok := from.term.Value.(ast.Ref); ok && from.how == itself && !f.seen[visit{path[0], s.rule, k}] {
				f.seen[visit{path[0], s.rule, k}] = true
				f.sinkReference(append(ref.Copy(), path...), k, s)
			}
		}
	}
}

// sinkRule takes the value of a rule.
func (f *flow) sinkRule(rule *ast.Rule, k kind) {
	for ; rule != nil; rule = rule.Else {
		s := f.scopeOf(rule)
		if rule.Head.RuleKind() == ast.MultiValue {
			f.sink(rule.Head.Key, asNameIf(k, names|asKeys), s)
		} else if rule.Head.Value != nil {
			f.sink(rule.Head.Value, k, s)
		}
	}
}

func (f *flow) mention(name string, location *ast.Location, k kind, s scope) {
	if location == nil {
		location = s.rule.Location
	}
	id := fmt.Sprintf("%s %d %d %s", location.File, location.Row, location.Col, name)
	before, known := f.found[id]
	f.found[id] = mention{name, location, k&aDead != 0 && (!known || before.deletion)}
}
