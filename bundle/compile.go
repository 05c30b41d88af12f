package bundle

import (
	"fmt"
	"io/fs"
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Options say how to compile a [Bundle].
type Options struct {
	Schemas       fs.FS    // JSON schemas that annotations may name; nil: none are checked
	AllowBuiltins []string // builtins that reach out of the evaluation, and may (--allow-builtin)
	Decision      string   // the rule that answers, such as authz/decision; empty: not looked for
}

// Policy is a bundle compiled.
type Policy struct {
	Compiler *ast.Compiler
	Data     map[string]any // of the bundle, never nil; the caller may add roots, what is below them is shared
	Decision ast.Ref        // the rule that answers; nil if none was asked for
	Revision string         // see [Bundle.Revision]
}

// Compile compiles strictly, as Rego v1, types checked against the schemas that the
// policy names, and without the builtins that reach network, files or environment. An
// error tells of up to ten mistakes, as name:line.
func (b *Bundle) Compile(o Options) (*Policy, error) {
	capabilities, err := restricted(o.AllowBuiltins)
	if err != nil {
		return nil, err
	}
	var schemas *ast.SchemaSet // nil: what annotations name isn't looked for
	if o.Schemas != nil {
		if schemas, err = readSchemas(o.Schemas); err != nil {
			return nil, err
		}
	}
	modules := make(map[string]*ast.Module, len(b.contents.Modules))
	for _, module := range b.contents.Modules {
		modules[module.Path] = module.Parsed
	}
	compiler := ast.NewCompiler().
		WithStrict(true).
		WithDefaultRegoVersion(ast.RegoV1).
		WithCapabilities(capabilities).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true).
		WithPathConflictsCheck(occupied(b.contents.Data))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("compiling policy: %w", joined(explained(compiler.Errors, modules, capabilities)))
	}
	policy := &Policy{Compiler: compiler, Data: map[string]any{}, Revision: b.revision}
	maps.Copy(policy.Data, b.contents.Data)
	if o.Decision != "" {
		if policy.Decision, err = mustDecide(compiler, o.Decision); err != nil {
			return nil, fmt.Errorf("compiling policy: %w", err)
		}
	}
	return policy, nil
}

// occupied tells OPA's compiler whether data stands where a rule wants to. A value that
// isn't an object occupies all paths below it.
func occupied(data map[string]any) func([]string) (bool, error) {
	return func(path []string) (bool, error) {
		var value any = data
		for _, key := range path {
			object, ok := value.(map[string]any)
			if !ok {
				return true, nil
			}
			if value, ok = object[key]; !ok {
				return false, nil
			}
		}
		return true, nil
	}
}
