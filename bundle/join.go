package bundle

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
)

// Roots are the paths below data that the bundle alone may fill, such as authz or
// acme/roles: those of its manifest; if that gives none, or the whole of data, what the bundle
// holds: its packages, the directories of its data files, and the keys of a data file at
// the top. Sorted, none within another.
func (b *Bundle) Roots() []string { return slices.Clone(b.roots) }

// claims returns [Bundle.Roots].
func claims(contents *opabundle.Bundle, files []file) []string {
	var roots []string
	if roots = *contents.Manifest.Roots; slices.Equal(roots, []string{""}) {
		roots = append(packages(contents), dataPaths(files)...)
	}
	roots = slices.Compact(slices.Sorted(slices.Values(roots)))
	outermost := roots[:0]
	for _, root := range roots {
		if !opabundle.RootPathsContain(outermost, root) {
			outermost = append(outermost, root)
		}
	}
	return outermost
}

func packages(contents *opabundle.Bundle) []string {
	var paths []string
	for _, module := range contents.Modules {
		if at, err := storage.NewPathForRef(module.Parsed.Package.Path); err == nil {
			paths = append(paths, strings.Join(at, "/"))
		}
	}
	return paths
}

func dataPaths(files []file) []string {
	var paths []string
	for _, f := range files {
		directory, base := path.Split(f.name)
		if !isData(base) {
			continue
		}
		if directory != "" {
			paths = append(paths, strings.Trim(directory, "/"))
			continue
		}
		var document map[string]any
		if util.Unmarshal(f.content, &document) == nil {
			paths = slices.AppendSeq(paths, maps.Keys(document))
		}
	}
	return paths
}

// Join makes one bundle of several, which keep to different roots. Its revision is theirs,
// joined by commas.
func Join(bundles []*Bundle) (*Bundle, error) {
	if len(bundles) == 0 {
		return nil, errors.New("want at least one bundle, got none")
	}
	if len(bundles) == 1 {
		return bundles[0], nil
	}
	if err := refuseOverlaps(bundles); err != nil {
		return nil, err
	}
	all := &Bundle{contents: opabundle.Bundle{Data: map[string]any{}}}
	var names, revisions []string
	seen := map[string]bool{}
	for _, b := range bundles {
		names, revisions = append(names, b.name), append(revisions, b.revision)
		all.roots = append(all.roots, b.roots...)
		all.contents.Data = merged(all.contents.Data, b.contents.Data)
		for _, module := range b.contents.Modules {
			if seen[module.Path] {
				return nil, fmt.Errorf("%s: two bundles hold a file of this name", module.Path)
			}
			seen[module.Path] = true
			all.contents.Modules = append(all.contents.Modules, module)
		}
	}
	slices.Sort(all.roots)
	all.name, all.revision = strings.Join(names, ","), strings.Join(revisions, ",")
	return all, nil
}

func refuseOverlaps(bundles []*Bundle) error {
	for i, b := range bundles {
		for _, other := range bundles[:i] {
			for _, root := range b.roots {
				for _, claimed := range other.roots {
					if opabundle.RootPathsOverlap(root, claimed) {
						return fmt.Errorf("the bundles %s and %s both claim data.%s: give each roots of its own in its .manifest, and packages and data below them",
							other.name, b.name, strings.ReplaceAll(longer(root, claimed), "/", "."))
					}
				}
			}
		}
	}
	return nil
}

func longer(a, b string) string {
	if len(a) > len(b) {
		return a
	}
	return b
}

// merged returns the objects of both; neither is changed. What both hold are objects, since
// their roots differ.
func merged(a, b map[string]any) map[string]any {
	result := maps.Clone(a)
	for key, value := range b {
		left, ok := result[key].(map[string]any)
		right, both := value.(map[string]any)
		if ok && both {
			value = merged(left, right)
		}
		result[key] = value
	}
	return result
}
