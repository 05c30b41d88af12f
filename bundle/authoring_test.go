package bundle_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/bundle"
)

// Implied schemas hold below those that a policy names, and leave the bundle as it is.
func TestImpliedSchemas(t *testing.T) {
	schemas := tree(map[string]string{
		"input.jsonschema": `{"type":"object","additionalProperties":false,"properties":{"subject":{}}}`,
		"other.jsonschema": `{"type":"object","additionalProperties":false,"properties":{"other":{}}}`,
	})
	implied := bundle.Options{Schemas: schemas, Implied: map[string]string{"input": "schema.input"}}
	for name, c := range map[string]struct {
		files map[string]string
		want  string // in an error
	}{
		"named by nobody":   {map[string]string{"a.rego": "package a\n\np if input.other"}, "undefined ref: input.other"},
		"as it says":        {map[string]string{"a.rego": "package a\n\np if input.subject"}, ""},
		"named otherwise":   {map[string]string{"a.rego": "# METADATA\n# scope: package\n# schemas:\n#   - input: schema.other\npackage a\n\np if input.other"}, ""},
		"named above":       {map[string]string{"a.rego": "# METADATA\n# scope: subpackages\n# schemas:\n#   - input: schema.other\npackage a\n\np if input.other"}, ""},
		"beside a title":    {map[string]string{"a.rego": "# METADATA\n# scope: subpackages\n# title: A\npackage a\n\np if input.other"}, "undefined ref: input.other"},
		"a quoted package":  {map[string]string{"a.rego": "package a[\"b c\"]\n\np if input.other"}, "undefined ref: input.other"},
		"two of a package":  {map[string]string{"a.rego": "package a\n\np if input.subject", "b.rego": "package a\n\nq if input.other"}, "b.rego:3"},
		"within each other": {map[string]string{"a.rego": "package a\n\np if input.subject", "b.rego": "package a.b\n\nq if input.other"}, "b.rego:3"},
	} {
		t.Run(name, func(t *testing.T) {
			loaded := load(t, tree(c.files))
			for range 2 {
				_, err := loaded.Compile(implied)
				if (err != nil) != (c.want != "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			}
			if _, err := loaded.Compile(bundle.Options{Schemas: schemas}); err != nil {
				t.Errorf("without them: %v", err)
			}
		})
	}
}

func TestAllMistakes(t *testing.T) {
	loaded := load(t, tree(map[string]string{"a.rego": "package a\n\n" + strings.Repeat("p if { x := 1 }\n", 30)}))
	for all, want := range map[bool]int{false: 11, true: 30} { // of OPA's first ten the last says that there are more
		_, err := loaded.Compile(bundle.Options{AllMistakes: all})
		if got, ok := bundle.Mistakes(fmt.Errorf("wrapped: %w", err)); len(got) != want || !ok {
			t.Errorf("got %d mistakes, want %d", len(got), want)
		}
	}
	for _, err := range []error{nil, errors.New("another")} {
		if got, ok := bundle.Mistakes(err); ok {
			t.Errorf("%v: got %v", err, got)
		}
	}
	if got, _ := bundle.Mistakes(errors.Join(ast.Errors{{Message: "a"}}, &ast.Error{Message: "b"})); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
