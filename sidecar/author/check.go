package author

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/bundle"
)

// Catalog says which permissions exist.
type Catalog struct {
	Live []string // their names
	// WasDeleted reports whether the newest that is known of a name that isn't live is its
	// deletion.
	WasDeleted func(ctx context.Context, name string) (bool, error)
}

// Check says what to check beside what the compiler does.
type Check struct {
	Source
	Decision string   // the rule that answers, such as authz/decision; empty: none is looked for
	Catalog  *Catalog // nil: names of permissions aren't looked at
	Unused   bool     // tell the permissions that no policy mentions
}

// implied are the schemas that hold for policies that name none.
func implied() map[string]string {
	return map[string]string{"input": "schema.input", "data.scalekit": "schema.scalekit", "data.postern": "schema.postern"}
}

// Run returns what it finds, in the order of places. The error says why it couldn't look. What
// needs a policy that compiles is only looked for in one that does.
func (c Check) Run(ctx context.Context) ([]Finding, error) {
	loaded, err := c.load(ctx)
	if errors.Is(err, ErrPath) || (err != nil && ctx.Err() != nil) {
		return nil, err
	}
	if err != nil {
		return sorted(mistakes(err)), nil
	}
	options := c.options()
	options.Implied = implied()
	policy, err := loaded.Compile(options)
	if _, ok := bundle.Mistakes(err); err != nil && !ok {
		return nil, err // of how it is compiled, not of what
	}
	if err != nil {
		return sorted(mistakes(err)), nil
	}
	var findings []Finding
	if c.Decision != "" {
		options.Decision = c.Decision
		if _, err := loaded.Compile(options); err != nil {
			findings = append(findings, mistakes(err)...)
		}
	}
	rules := rulesOf(policy.Compiler)
	stray, err := strayFields(policy.Compiler, rules, c.Schemas)
	if err != nil {
		return nil, err
	}
	findings = append(append(findings, stray...), wholeReads(rules)...)
	if c.Catalog != nil {
		dead, err := c.deadNames(ctx, followNames(policy.Compiler, rules), literals(loaded.Modules(), policy.Data))
		if err != nil {
			return nil, err
		}
		findings = append(findings, dead...)
	}
	return sorted(findings), nil
}

// rulesOf lists the rules of all policies, tests aside.
func rulesOf(compiler *ast.Compiler) (rules []*ast.Rule) {
	for name, module := range compiler.Modules {
		if !bundle.IsTest(name) {
			rules = append(rules, module.Rules...)
		}
	}
	return rules
}

// deadNames finds names that policies use for permissions and that aren't in the catalog, and
// what is in it for no policy.
func (c Check) deadNames(ctx context.Context, mentions []mention, said map[string]bool) (found []Finding, err error) {
	live := make(map[string]bool, len(c.Catalog.Live))
	for _, name := range c.Catalog.Live {
		live[name] = true
	}
	for _, m := range mentions {
		if live[m.name] {
			continue
		}
		deleted, err := c.Catalog.WasDeleted(ctx, m.name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("asking for the permission %q: %w", m.name, err)
		case deleted && m.deletion:
		case deleted:
			found = append(found, at(m.at, LevelError, RuleDeleted, "the permission %q was deleted: nobody has it anymore", m.name))
		default:
			found = append(found, at(m.at, LevelError, RuleUnknown, "the catalog has no permission %q%s", m.name, didYouMean(m.name, c.Catalog.Live)))
		}
	}
	if !c.Unused {
		return found, nil
	}
	for _, name := range c.Catalog.Live {
		if !said[name] {
			found = append(found, at(nil, LevelWarning, RuleUnused, "no policy mentions the permission %q", name))
		}
	}
	return found, nil
}

// literals are all texts in policies and their data, whatever they are for.
func literals(modules map[string]*ast.Module, data map[string]any) map[string]bool {
	said := map[string]bool{}
	for name, module := range modules {
		if bundle.IsTest(name) {
			continue
		}
		ast.WalkTerms(module, func(term *ast.Term) bool {
			if s, ok := term.Value.(ast.String); ok {
				said[string(s)] = true
			}
			return false
		})
	}
	collectTexts(data, said)
	return said
}

func collectTexts(value any, said map[string]bool) {
	switch value := value.(type) {
	case string:
		said[value] = true
	case []any:
		for _, one := range value {
			collectTexts(one, said)
		}
	case map[string]any:
		for name, one := range value {
			said[name] = true
			collectTexts(one, said)
		}
	}
}

// didYouMean returns a half sentence that names what is near to got, or nothing.
func didYouMean(got string, known []string) string {
	nearest, distance := "", 0
	for _, name := range known {
		d := levenshtein.ComputeDistance(got, name)
		if d <= mostEdits(got, name) && (nearest == "" || d < distance || (d == distance && name < nearest)) {
			nearest, distance = name, d
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", nearest)
}

// mostEdits is how much of got may be other than name: a third, or of two names with the same
// beginning, such as invoices:, half of what follows, rounded up. Their beginning alone doesn't make them near.
func mostEdits(got, name string) int {
	same := 0
	for same < min(len(got), len(name)) && got[same] == name[same] {
		same++
	}
	if i := strings.LastIndexAny(got[:same], ":./-_"); i >= 0 {
		return (len(got) - i) / 2
	}
	return max(1, len(got)/3)
}
