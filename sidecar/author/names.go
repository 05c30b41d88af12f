package author

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// mention is a text in a policy that stands for a permission.
type mention struct {
	name     string
	at       *ast.Location
	deletion bool // it is looked up among the deletions, where a deleted one belongs
}

// kind is what a term stands for, as far as names of permissions go.
type kind uint8

const (
	aName  kind = 1 << iota // the name of a permission
	aDead                   // with aName or names: of a deleted one, if it is looked up
	names                   // a collection of names: its elements
	asKeys                  // a collection of which the keys are names
)

// flow follows names of permissions through rules: from where Postern takes one for such, or
// says one, to the texts that a policy writes. It follows variables, constants in rules, sets,
// comprehensions and the arguments of functions, and gives up where that isn't plain: what it
// doesn't find is not told, and no text is told that can't meet a name.
//
// Rules come from the compiler: imports and dynamic parts of references are resolved, and each
// call has its result in a variable.
type flow struct {
	compiler *ast.Compiler
	scopes   map[*ast.Rule]scope
	takes    map[string][]kind // of a function by its path: what each argument is used as
	grown    bool              // takes or told grew since they were last looked at
	seen     map[visit]bool
	kinds    map[visit]kind     // of the terms that were asked for
	told     map[use]kind       // of references into the question or a variable: what their rule uses them as
	found    map[string]mention // by place and name
}

// scope is where the values of a rule's variables come from.
type scope struct {
	rule   *ast.Rule
	values map[ast.Var][]origin
}

// origin is one place where a variable has its value from: a term, an element of it, one of
// its keys, or the result of a call.
type origin struct {
	term *ast.Term
	how  originKind
}

type originKind uint8

const (
	itself originKind = iota
	element
	key
	result
)

type visit struct {
	at   *ast.Term
	rule *ast.Rule
	kind kind
}

// use is a reference in a rule, as it is written.
type use struct {
	ref  string
	rule *ast.Rule
}

// mostRounds bounds how often arguments of functions are followed into their callers: as many
// functions may call each other.
const mostRounds = 16

// followNames finds the texts in rules that stand for permissions, in the order of places.
func followNames(compiler *ast.Compiler, rules []*ast.Rule) []mention {
	f := &flow{compiler: compiler, scopes: map[*ast.Rule]scope{}, takes: map[string][]kind{}, told: map[use]kind{}, found: map[string]mention{}}
	f.follow(rules)
	if f.takeDeclared() {
		f.follow(rules)
	}
	all := make([]mention, 0, len(f.found))
	for _, m := range f.found {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b mention) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	return all
}

// follow goes through all rules until no argument of a function is found any more.
func (f *flow) follow(rules []*ast.Rule) {
	for round := 0; round == 0 || (f.grown && round < mostRounds); round++ {
		f.grown = false
		f.seen, f.kinds = map[visit]bool{}, map[visit]kind{}
		for _, rule := range rules {
			for ; rule != nil; rule = rule.Else {
				f.rule(f.scopeOf(rule))
			}
		}
	}
}

// takeDeclared believes the METADATA of functions, `custom: {permission_arguments: [0]}`, about
// arguments that nothing was found of. It reports whether there are any.
func (f *flow) takeDeclared() (found bool) {
	for _, module := range f.compiler.Modules {
		for _, annotation := range module.Annotations {
			declared, _ := annotation.Custom["permission_arguments"].([]any)
			path := annotation.GetTargetPath()
			for _, function := range f.compiler.GetRulesExact(path) {
				for _, place := range declared {
					i, err := strconv.Atoi(fmt.Sprint(place))
					if err == nil && i >= 0 && i < len(function.Head.Args) && f.taken(path.String(), i) == 0 {
						f.takeArgument(function, i, aName|names)
						found = true
					}
				}
			}
		}
	}
	return found
}

// taken is what a function is known to use an argument as.
func (f *flow) taken(path string, i int) kind {
	if i < len(f.takes[path]) {
		return f.takes[path][i]
	}
	return 0
}

func (f *flow) scopeOf(rule *ast.Rule) scope {
	if known, ok := f.scopes[rule]; ok {
		return known
	}
	s := scope{rule, map[ast.Var][]origin{}}
	f.scopes[rule] = s
	ast.WalkExprs(rule, func(expression *ast.Expr) bool {
		s.learn(f.compiler, expression)
		return false
	})
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		for i := 1; i < len(ref); i++ {
			s.add(ref[i], origin{ast.NewTerm(ref[:i]), key})
		}
		return false
	})
	return s
}

func (s scope) add(variable *ast.Term, from origin) {
	if variable == nil {
		return
	}
	if v, ok := variable.Value.(ast.Var); ok {
		s.values[v] = append(s.values[v], from)
	}
}

func (s scope) learn(compiler *ast.Compiler, expression *ast.Expr) {
	if every, ok := expression.Terms.(*ast.Every); ok {
		s.add(every.Value, origin{every.Domain, element})
		s.add(every.Key, origin{every.Domain, key})
		return
	}
	if !expression.IsCall() {
		return
	}
	if expression.IsEquality() {
		s.add(expression.Operand(0), origin{expression.Operand(1), itself})
		s.add(expression.Operand(1), origin{expression.Operand(0), itself})
		return
	}
	if out := outputOf(compiler, expression); out != nil {
		s.add(out, origin{ast.CallTerm(expression.Terms.([]*ast.Term)...), result})
	}
}

// outputOf returns the variable that a call has its result in, if it has one.
func outputOf(compiler *ast.Compiler, expression *ast.Expr) *ast.Term {
	operands := expression.Operands()
	if rules := compiler.GetRulesExact(expression.Operator()); len(rules) > 0 {
		if len(operands) > len(rules[0].Head.Args) {
			return operands[len(operands)-1]
		}
		return nil
	}
	if builtin := ast.BuiltinMap[expression.Operator().String()]; builtin != nil && builtin.Decl.Result() != nil && len(operands) > builtin.Decl.Arity() {
		return operands[len(operands)-1]
	}
	return nil
}

// rule looks at all that a rule says.
func (f *flow) rule(s scope) {
	ast.WalkTerms(s.rule, func(term *ast.Term) bool {
		if ref, ok := term.Value.(ast.Ref); ok {
			f.reference(ref, s)
		}
		return false
	})
	ast.WalkExprs(s.rule, func(expression *ast.Expr) bool {
		if expression.IsCall() {
			f.call(expression.Operator(), expression.Operands(), s)
		}
		return false
	})
}

// reference looks at what a reference is indexed with.
func (f *flow) reference(ref ast.Ref, s scope) {
	if i, dead := catalogKey(ref); i > 0 {
		f.sink(ref[i], aName|dead, s)
		return
	}
	for i := 1; i < len(ref); i++ {
		if f.kindOf(ref[i], s)&aName != 0 {
			f.sink(ast.NewTerm(ref[:i]), asKeys, s)
		}
	}
}

// catalogKey returns where in a reference the name of a permission stands, or 0.
func catalogKey(ref ast.Ref) (int, kind) {
	switch {
	case len(ref) < 4:
	case ref[:3].Equal(ast.MustParseRef("data.scalekit.permissions")):
		return 3, 0
	case ref[:3].Equal(ast.MustParseRef("data.scalekit.deleted")):
		return 3, aDead
	}
	return 0, 0
}

// call looks at what meets in a call.
func (f *flow) call(operator ast.Ref, operands []*ast.Term, s scope) {
	if functions := f.compiler.GetRulesExact(operator); len(functions) > 0 {
		f.arguments(operator, functions, operands, s)
		return
	}
	if len(operands) < 2 {
		return
	}
	a, b := operands[0], operands[1]
	switch operator.String() {
	case ast.Equality.Name, ast.Equal.Name, ast.NotEqual.Name, ast.And.Name, ast.Or.Name, ast.Minus.Name:
		f.sink(a, f.kindOf(b, s)&(aName|names), s)
		f.sink(b, f.kindOf(a, s)&(aName|names), s)
	case ast.Member.Name:
		if f.kindOf(a, s)&aName != 0 {
			f.sink(b, names, s)
		}
		if f.kindOf(b, s)&names != 0 {
			f.sink(a, aName, s)
		}
	}
}

// arguments compares a call with the functions that may answer it: those with a text for an
// argument answer for that one alone.
func (f *flow) arguments(path ast.Ref, functions []*ast.Rule, operands []*ast.Term, s scope) {
	for i, k := range f.takes[path.String()] {
		if i < len(operands) {
			f.sink(operands[i], k, s)
		}
	}
	for _, function := range functions {
		for i, argument := range function.Head.Args {
			if i < len(operands) {
				f.sink(argument, f.kindOf(operands[i], s), f.scopeOf(function))
			}
		}
	}
}
