package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Modules returns the modules as they were parsed, by the names that errors call their files.
// The map is the caller's, the modules aren't to be changed.
func (b *Bundle) Modules() map[string]*ast.Module {
	modules := make(map[string]*ast.Module, len(b.contents.Modules))
	for _, module := range b.contents.Modules {
		modules[module.Path] = module.Parsed
	}
	return modules
}

// NewCompiler returns a compiler as [Bundle.Compile] uses it, which has compiled nothing yet:
// OPA's test runner wants to add to it.
func (b *Bundle) NewCompiler(o Options) (*ast.Compiler, error) {
	compiler, _, err := b.newCompiler(o)
	return compiler, err
}

// Mistakes returns the errors of OPA in an error of [Load] or [Bundle.Compile], each with its
// place in a file, and whether it holds any.
func Mistakes(err error) (ast.Errors, bool) {
	var found ast.Errors
	var collect func(error)
	collect = func(err error) {
		switch wrapped := err.(type) { //nolint:errorlint // this is the unwrapping
		case *ast.Error:
			found = append(found, wrapped)
		case ast.Errors:
			found = append(found, wrapped...)
		case interface{ Unwrap() []error }:
			for _, one := range wrapped.Unwrap() {
				collect(one)
			}
		case interface{ Unwrap() error }:
			collect(wrapped.Unwrap())
		}
	}
	collect(err)
	return found, len(found) > 0
}

// IsTest reports whether a module holds tests of policies, by the name of its file.
func IsTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// imply lets schemas hold for all packages that aren't tests, below whatever the packages
// name themselves. OPA knows but one way to do so, annotations in a file: the scope
// subpackages gives way to all others, and a file may bear them for a package of others.
func imply(modules map[string]*ast.Module, schemas map[string]string) error {
	if len(schemas) == 0 {
		return nil
	}
	var list strings.Builder
	for _, path := range slices.Sorted(maps.Keys(schemas)) {
		fmt.Fprintf(&list, "#   - %s: %s\n", path, schemas[path])
	}
	packages := map[string]ast.Ref{}
	taken := map[string]string{} // packages that have annotations of this scope already, to their file
	for name, module := range modules {
		if !IsTest(name) {
			packages[module.Package.Path.String()] = module.Package.Path
		}
		for _, annotation := range module.Annotations {
			if annotation.Scope == "subpackages" {
				taken[module.Package.Path.String()] = name
			}
		}
	}
	for path, ref := range packages {
		stand := &ast.Module{Package: &ast.Package{Path: ref}}
		source := "# METADATA\n# scope: subpackages\n# schemas:\n" + list.String() + stand.Package.String() + "\n"
		name := "implied:" + path
		implied, err := ast.ParseModuleWithOpts(name, source, ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1})
		if err != nil {
			return fmt.Errorf("implying schemas: %w", err)
		}
		if file, ok := taken[path]; ok {
			modules[file] = joinSchemas(modules[file], implied.Annotations[0].Schemas)
			continue
		}
		modules[name] = implied
	}
	return nil
}

// joinSchemas returns the module with schemas before those that its subpackages have.
func joinSchemas(module *ast.Module, schemas []*ast.SchemaAnnotation) *ast.Module {
	joined := module.Copy()
	for _, annotation := range joined.Annotations {
		if annotation.Scope == "subpackages" {
			annotation.Schemas = append(slices.Clone(schemas), annotation.Schemas...)
		}
	}
	return joined
}
