package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// reservedRoots are the roots of data that are the sidecar's: the catalog, and what the
// sidecar tells policies about itself.
func reservedRoots() []string { return []string{"scalekit", "postern"} }

func errReserved(where, what, root string) error {
	return fmt.Errorf("%s: %s claims data.%s, which the sidecar writes and no bundle may claim", where, what, root)
}

// refuseReservedRoots looks at what the bundle holds after OPA's reader has put it
// together, and only then for the file to blame.
func refuseReservedRoots(contents *opabundle.Bundle, files []file, name string) error {
	for _, root := range *contents.Manifest.Roots {
		if first, _, _ := strings.Cut(root, "/"); slices.Contains(reservedRoots(), first) {
			return errReserved(display(name, opabundle.ManifestExt), "root "+root, first)
		}
	}
	for _, module := range contents.Modules {
		at := module.Parsed.Package
		for _, root := range reservedRoots() {
			if at.Path.HasPrefix(ast.DefaultRootRef.Append(ast.StringTerm(root))) {
				return errReserved(at.Loc().String(), at.String(), root)
			}
		}
	}
	for _, root := range reservedRoots() {
		if _, ok := contents.Data[root]; ok {
			return errReserved(display(name, fileWithData(files, root)), "the file", root)
		}
	}
	return nil
}

// fileWithData finds the first file that puts something under the root of data.
func fileWithData(files []file, root string) string {
	for _, f := range files {
		if !isData(path.Base(f.name)) {
			continue
		}
		first, _, nested := strings.Cut(f.name, "/")
		if nested && first == root {
			return f.name
		}
		var document map[string]any
		if nested || util.Unmarshal(f.content, &document) != nil {
			continue
		}
		if _, ok := document[root]; ok {
			return f.name
		}
	}
	return "."
}

// limitDepth refuses data nested deeper than limit, directories included: what walks it
// later does so recursively.
func limitDepth(value any, limit int) error {
	if limit < 0 {
		return fmt.Errorf("data is nested deeper than %d", maxDataDepth)
	}
	switch nested := value.(type) {
	case map[string]any:
		for key, value := range nested {
			if err := limitDepth(value, limit-1); err != nil {
				if limit == maxDataDepth {
					return fmt.Errorf("data.%s: %w", key, err)
				}
				return err
			}
		}
	case []any:
		for _, value := range nested {
			if err := limitDepth(value, limit-1); err != nil {
				return err
			}
		}
	}
	return nil
}
