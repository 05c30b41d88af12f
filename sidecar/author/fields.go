package author

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// recordAt is where in a reference a record of the catalog ends, data.scalekit.permissions[name],
// and what it has begins.
const recordAt = 4

// strayFields finds references to what no record of the catalog has, such as
// data.scalekit.permissions[name].create_at. OPA's type checker passes over the schema of an
// object's additionalProperties, and so over records.
func strayFields(compiler *ast.Compiler, rules []*ast.Rule, schemas fs.FS) (found []Finding, err error) {
	fields, err := recordFields(schemas)
	if err != nil {
		return nil, err
	}
	f := flow{compiler: compiler, scopes: map[*ast.Rule]scope{}}
	for _, rule := range rules {
		for ; rule != nil; rule = rule.Else {
			s := f.scopeOf(rule)
			ast.WalkTerms(rule, func(term *ast.Term) bool {
				if ref, ok := term.Value.(ast.Ref); ok {
					found = append(found, strayField(s.resolved(ref), fields, locationOf(term, rule))...)
				}
				return false
			})
		}
	}
	return found, nil
}

func locationOf(term *ast.Term, rule *ast.Rule) *ast.Location {
	if term.Location != nil {
		return term.Location
	}
	return rule.Location
}

// resolved puts the record that a variable stands for in its place.
func (s scope) resolved(ref ast.Ref) ast.Ref {
	v, ok := ref[0].Value.(ast.Var)
	if !ok || len(ref) == 1 {
		return ref
	}
	for _, from := range s.values[v] {
		if record, ok := from.term.Value.(ast.Ref); ok && from.how == itself && len(record) == recordAt && record.HasPrefix(ast.DefaultRootRef) {
			return record.Concat(ref[1:])
		}
	}
	return ref
}

// strayField looks at one reference; fields are what the records of a collection have.
func strayField(ref ast.Ref, fields map[string][]string, location *ast.Location) []Finding {
	if len(ref) <= recordAt || !ref.HasPrefix(ast.MustParseRef("data.scalekit")) {
		return nil
	}
	known := fields[text(ref[2].Value)]
	got, ok := ref[recordAt].Value.(ast.String)
	if !ok || known == nil || slices.Contains(known, string(got)) {
		return nil
	}
	record := fmt.Sprintf("data.scalekit.%s[name]", text(ref[2].Value))
	return []Finding{at(location, LevelError, RuleSchema, "%s.%s is never there: %s has no %q%s; it has %s",
		record, string(got), record, string(got), didYouMean(string(got), known), strings.Join(known, ", "))}
}

// recordFields reads from the schema of data.scalekit what its records have, by collection.
func recordFields(schemas fs.FS) (map[string][]string, error) {
	if schemas == nil {
		return nil, nil
	}
	content, err := fs.ReadFile(schemas, "scalekit.jsonschema")
	if err != nil {
		return nil, fmt.Errorf("reading the schema of data.scalekit: %w", err)
	}
	var schema struct {
		Properties map[string]struct {
			AdditionalProperties any
		}
		Definitions map[string]struct {
			Properties map[string]any
		}
	}
	if err := json.Unmarshal(content, &schema); err != nil {
		return nil, fmt.Errorf("reading the schema of data.scalekit: %w", err)
	}
	fields := map[string][]string{}
	for collection, one := range schema.Properties {
		if record, ok := one.AdditionalProperties.(map[string]any); ok {
			reference, _ := record["$ref"].(string)
			fields[collection] = slices.Sorted(maps.Keys(schema.Definitions[path.Base(reference)].Properties))
		}
	}
	return fields, nil
}
