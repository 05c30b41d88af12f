package author

import "github.com/open-policy-agent/opa/v1/ast"

// kindOf tells whether a term is known to be a name of a permission, or a collection of such:
// because Postern or the app says it. A term that leads back to itself says nothing there.
func (f *flow) kindOf(term *ast.Term, s scope) kind {
	if term == nil {
		return 0
	}
	at := visit{at: term, rule: s.rule}
	if known, ok := f.kinds[at]; ok {
		return known
	}
	f.kinds[at] = 0
	f.kinds[at] = f.kindOfValue(term, s)
	return f.kinds[at]
}

func (f *flow) kindOfValue(term *ast.Term, s scope) kind {
	switch value := term.Value.(type) {
	case ast.Var:
		return f.kindOfVariable(value, s)
	case ast.Ref:
		return f.kindOfReference(value, s)
	case *ast.SetComprehension:
		return f.collectionOf(value.Term, s)
	case *ast.ArrayComprehension:
		return f.collectionOf(value.Term, s)
	}
	return 0
}

func (f *flow) collectionOf(term *ast.Term, s scope) kind {
	if f.kindOf(term, s)&aName != 0 {
		return names
	}
	return 0
}

func (f *flow) kindOfVariable(v ast.Var, s scope) (k kind) {
	for _, from := range s.values[v] {
		switch from.how {
		case itself:
			k |= f.kindOf(from.term, s)
		case element:
			k |= elementKind(f.kindOf(from.term, s))
		case key:
			k |= f.keyKind(from.term, s)
		case result:
			k |= f.resultKind(from.term.Value.(ast.Call), s)
		}
	}
	return k
}

func elementKind(collection kind) kind {
	if collection&names != 0 {
		return aName
	}
	return 0
}

// keyKind is the kind of what a collection is indexed with: in the catalog it is a name, and in
// a set it is the element.
func (f *flow) keyKind(collection *ast.Term, s scope) kind {
	ref, ok := collection.Value.(ast.Ref)
	if !ok {
		return 0
	}
	if ref.Equal(ast.MustParseRef("data.scalekit.permissions")) || ref.Equal(ast.MustParseRef("data.scalekit.deleted")) {
		return aName
	}
	for _, rule := range f.compiler.GetRulesExact(ref) {
		if rule.Head.RuleKind() == ast.MultiValue {
			return elementKind(f.kindOfReference(ref, s))
		}
	}
	return 0
}

// resultKind is the kind of what a call returns: sets of names make sets of names.
func (f *flow) resultKind(call ast.Call, s scope) (k kind) {
	operator, ok := call[0].Value.(ast.Ref)
	if !ok {
		return 0
	}
	switch operator.String() {
	case ast.And.Name, ast.Or.Name, ast.Minus.Name:
		return (f.kindOf(call[1], s) | f.kindOf(call[2], s)) & names
	}
	for _, function := range f.compiler.GetRulesExact(operator) {
		k |= f.kindOfRule(function)
	}
	return k
}

func (f *flow) kindOfReference(ref ast.Ref, s scope) kind {
	switch {
	case ref.Equal(ast.MustParseRef("input.action.name")):
		return aName
	case len(ref) == 5 && ref[:3].Equal(ast.MustParseRef("data.scalekit.permissions")) && ref[4].Equal(ast.StringTerm("name")):
		return aName
	}
	if at := heldEnd(ref); at > 0 {
		switch len(ref) - at {
		case 0:
			return names
		case 1:
			return aName
		}
		return 0
	}
	if ref.HasPrefix(ast.DefaultRootRef) {
		return f.kindBelowRule(ref)
	}
	k := f.told[use{ref.String(), s.rule}]
	if !ref.HasPrefix(ast.InputRootRef) && len(ref) == 2 {
		k |= elementKind(f.kindOf(ref[0], s))
	}
	return k
}

// heldEnd returns where the part of a reference ends that is a list of the permissions that
// somebody holds, or 0.
func heldEnd(ref ast.Ref) int {
	for _, held := range []string{"input.subject.properties.permissions", "input.token.claims.permissions"} {
		if list := ast.MustParseRef(held); ref.HasPrefix(list) {
			return len(list)
		}
	}
	const roleEnd = 5 // data.scalekit.roles[name].permissions
	if len(ref) >= roleEnd && ref[:3].Equal(ast.MustParseRef("data.scalekit.roles")) && ref[4].Equal(ast.StringTerm("permissions")) {
		return roleEnd
	}
	return 0
}

func (f *flow) kindBelowRule(ref ast.Ref) (k kind) {
	for i := len(ref); i > 1; i-- {
		for _, rule := range f.compiler.GetRulesExact(ref[:i]) {
			switch len(ref) - i {
			case 0:
				k |= f.kindOfRule(rule)
			case 1:
				k |= elementKind(f.kindOfRule(rule))
			}
		}
	}
	return k
}

func (f *flow) kindOfRule(rule *ast.Rule) (k kind) {
	for ; rule != nil; rule = rule.Else {
		s := f.scopeOf(rule)
		if rule.Head.RuleKind() == ast.MultiValue {
			k |= f.collectionOf(rule.Head.Key, s)
		} else {
			k |= f.kindOf(rule.Head.Value, s)
		}
	}
	return k
}
