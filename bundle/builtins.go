package bundle

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"
)

// reaching are the builtins that reach out of the evaluation, and what they reach. The
// two of JSON schemas fetch what a $ref names, from files too; a policy may take the
// schema from its input.
func reaching() map[string]string {
	return map[string]string{
		ast.HTTPSend.Name:         "the network, files and the environment",
		ast.NetLookupIPAddr.Name:  "the network",
		ast.OPARuntime.Name:       "the environment",
		ast.JSONSchemaVerify.Name: "files",
		ast.JSONMatchSchema.Name:  "files",
	}
}

// restricted returns the capabilities of this version of OPA without the builtins that
// reach out, those in allowed excepted.
func restricted(allowed []string) (*ast.Capabilities, error) {
	capabilities := ast.CapabilitiesForThisVersion()
	known := make([]string, len(capabilities.Builtins))
	for i, builtin := range capabilities.Builtins {
		known[i] = builtin.Name
	}
	for _, name := range allowed {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--allow-builtin: unknown builtin %q, the nearest is %q", name, nearest(name, known)[0])
		}
	}
	refused := reaching()
	for _, name := range allowed {
		delete(refused, name)
	}
	capabilities.Builtins = slices.DeleteFunc(capabilities.Builtins, func(builtin *ast.Builtin) bool {
		return refused[builtin.Name] != ""
	})
	_, noHTTP := refused[ast.HTTPSend.Name]
	_, noLookup := refused[ast.NetLookupIPAddr.Name]
	if noHTTP && noLookup {
		capabilities.AllowNet = []string{} // no host; nil would be any
	}
	return capabilities, nil
}

// explained replaces the errors at calls of a builtin that isn't allowed: to OPA's
// compiler it is merely undefined.
func explained(errs ast.Errors, modules map[string]*ast.Module, allowed *ast.Capabilities) ast.Errors {
	refused := refusedCalls(modules, allowed)
	result := make(ast.Errors, 0, len(errs))
	for _, err := range errs {
		if err.Location == nil {
			result = append(result, err)
			continue
		}
		name, ok := refused[line{err.Location.File, err.Location.Row}]
		if ok {
			err = ast.NewError(ast.TypeErr, err.Location,
				"the builtin %s reaches %s and isn't allowed; --allow-builtin %s permits it", name, reaching()[name], name)
		}
		result = append(result, err)
	}
	return result
}

type line struct {
	file string
	row  int
}

func refusedCalls(modules map[string]*ast.Module, allowed *ast.Capabilities) map[line]string {
	refused := map[line]string{}
	for _, module := range modules {
		ast.WalkTerms(module, func(term *ast.Term) bool {
			ref, ok := term.Value.(ast.Ref)
			if ok && term.Location != nil && reaching()[ref.String()] != "" && !allowed.ContainsBuiltin(ref.String()) {
				refused[line{term.Location.File, term.Location.Row}] = ref.String()
			}
			return false
		})
	}
	return refused
}

// nearest sorts names by how much they look like wanted, the nearest first.
func nearest(wanted string, names []string) []string {
	sorted := slices.Clone(names)
	slices.SortFunc(sorted, func(a, b string) int {
		return cmp.Or(cmp.Compare(levenshtein.ComputeDistance(wanted, a), levenshtein.ComputeDistance(wanted, b)), cmp.Compare(a, b))
	})
	return sorted
}
