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

	// For authors. Implied are schemas, by what they describe, that hold where a policy names
	// no others: "input" and "data.scalekit", to names such as schema.input. Every mistake is
	// told if AllMistakes is true, instead of the first ten.
	Implied     map[string]string
	AllMistakes bool
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
	compiler, modules, err := b.newCompiler(o)
	if err != nil {
		return nil, err
	}
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("compiling policy: %w", joined(explained(compiler.Errors, modules, compiler.Capabilities())))
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

// newCompiler makes a compiler, and the modules for it to compile.
func (b *Bundle) newCompiler(o Options) (*ast.Compiler, map[string]*ast.Module, error) {
	capabilities, err := restricted(o.AllowBuiltins)
	if err != nil {
		return nil, nil, err
	}
	var schemas *ast.SchemaSet // nil: what annotations name isn't looked for
	if o.Schemas != nil {
		if schemas, err = readSchemas(o.Schemas); err != nil {
			return nil, nil, err
		}
	}
	modules := b.Modules()
	if err := imply(modules, o.Implied); err != nil {
		return nil, nil, err
	}
	compiler := ast.NewCompiler().
		WithStrict(true).
		WithDefaultRegoVersion(ast.RegoV1).
		WithCapabilities(capabilities).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true).
		WithPathConflictsCheck(occupied(b.contents.Data))
	if o.AllMistakes {
		compiler.SetErrorLimit(0)
	}
	return compiler, modules, nil
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
