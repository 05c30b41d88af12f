package bundle

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// readSchemas reads JSON schemas, in JSON or YAML, by the names that annotations use:
// the file api/input.jsonschema is schema.api.input, as for opa check --schema.
func readSchemas(fsys fs.FS) (*ast.SchemaSet, error) {
	set := ast.NewSchemaSet()
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		var schema any
		if err := util.Unmarshal(content, &schema); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if ref := foreignRef(schema); ref != "" {
			return errForeignRef(name, ref)
		}
		set.Put(schemaRef(name), schema)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading schemas: %w", err)
	}
	return set, nil
}

func schemaRef(name string) ast.Ref {
	ref := ast.Ref{ast.SchemaRootDocument}
	for segment := range strings.SplitSeq(strings.TrimSuffix(name, path.Ext(name)), "/") {
		ref = append(ref, ast.StringTerm(segment))
	}
	return ref
}

// refuseForeignSchemas keeps schemas written into annotations from reaching out: OPA's
// compiler would read the file that a $ref names.
func refuseForeignSchemas(modules []opabundle.ModuleFile) error {
	for _, module := range modules {
		for _, annotation := range module.Parsed.Annotations {
			for _, schema := range annotation.Schemas {
				if schema.Definition == nil {
					continue
				}
				if ref := foreignRef(*schema.Definition); ref != "" {
					return errForeignRef(annotation.Loc().String(), ref)
				}
			}
		}
	}
	return nil
}

func errForeignRef(where, ref string) error {
	return fmt.Errorf("%s: the schema refers to %q: it may only refer to itself, by a $ref that begins with #", where, ref)
}

// foreignRef returns a $ref that leads out of the schema, or "".
func foreignRef(schema any) string {
	switch value := schema.(type) {
	case map[string]any:
		if ref, ok := value["$ref"].(string); ok && !strings.HasPrefix(ref, "#") {
			return ref
		}
		for _, nested := range value {
			if ref := foreignRef(nested); ref != "" {
				return ref
			}
		}
	case []any:
		for _, nested := range value {
			if ref := foreignRef(nested); ref != "" {
				return ref
			}
		}
	}
	return ""
}
