package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// DecisionRef turns the path of a rule, such as authz/decision, into a reference below
// data. Its segments are taken as they are, as data: nothing in them is read as Rego, so
// that a path can't become a query (CVE-2025-46569). Quotes, backslashes and what can't be
// printed are refused: a rule has no need of them, and [ast.Ref.String] doesn't escape
// them, which makes text of such a reference another query.
func DecisionRef(path string) (ast.Ref, error) {
	segments := strings.Split(path, "/")
	ref := make(ast.Ref, 1, len(segments)+1)
	ref[0] = ast.DefaultRootDocument
	for _, segment := range segments {
		if segment == "" || !utf8.ValidString(segment) || strings.ContainsFunc(segment, needsEscape) {
			return nil, fmt.Errorf(`want the path of a rule such as authz/decision (--decision), got %.80q`, path)
		}
		ref = append(ref, ast.StringTerm(segment))
	}
	return ref, nil
}

func needsEscape(r rune) bool { return r == '"' || r == '\\' || !unicode.IsPrint(r) }

// mustDecide returns the reference at path, or an error if it isn't a rule that can
// answer: a package isn't, nor a function, nor a value within a rule.
func mustDecide(compiler *ast.Compiler, path string) (ast.Ref, error) {
	ref, err := DecisionRef(path)
	if err != nil {
		return nil, err
	}
	for _, rule := range compiler.GetRulesWithPrefix(ref) {
		if answers(rule) && len(rule.Module.Package.Path) < len(ref) {
			return ref, nil
		}
	}
	candidates := entrypoints(compiler)
	if len(candidates) == 0 {
		return nil, errors.New("there is no rule that could answer")
	}
	candidates = nearest(path, candidates)
	return nil, fmt.Errorf("there is no rule %q (--decision); there is %s", path, strings.Join(candidates[:min(5, len(candidates))], ", "))
}

func answers(rule *ast.Rule) bool { return len(rule.Head.Args) == 0 }

// entrypoints lists the rules annotated as such, else all rules, as paths.
func entrypoints(compiler *ast.Compiler) []string {
	var annotated, all []string
	for _, module := range compiler.Modules {
		for _, rule := range module.Rules {
			if answers(rule) {
				all = append(all, rulePath(rule.Ref().GroundPrefix()))
			}
		}
		for _, annotation := range module.Annotations {
			if annotation.Entrypoint && annotation.Scope != "package" {
				annotated = append(annotated, rulePath(annotation.GetTargetPath().GroundPrefix()))
			}
		}
	}
	if len(annotated) > 0 {
		all = annotated
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func rulePath(ref ast.Ref) string {
	segments := make([]string, 0, len(ref))
	for _, term := range ref[1:] {
		if segment, ok := term.Value.(ast.String); ok {
			segments = append(segments, string(segment))
		}
	}
	return strings.Join(segments, "/")
}
