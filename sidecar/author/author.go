// Package author holds what the verbs of policy authors do: check policies, run their
// tests, and lay out a tree to start from.
//
// It reads policies as the sidecar does, by package bundle, so that what passes here is
// taken there. What it adds is the catalog: which names of permissions exist. It gets that
// as names and as a data document, and knows neither where they come from nor the sidecar.
//
// Invariants:
//
//   - A check without findings was a check: what can't be read or looked at is an error or a
//     finding, and no test at all is [ErrNoTests].
//   - Nothing of a policy is changed, and a tree is laid out whole or not at all.
//
// It refuses paths that are neither directories nor .rego files, and to lay out a tree over
// files that are there.
package author

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-authz/postern/bundle"
)

// ErrPath reports a path that isn't there, or isn't what policies are read from.
var ErrPath = errors.New("want directories of policies or .rego files")

// Source says which policies are meant, and how they are compiled.
type Source struct {
	Paths         []string // directories, each the top of a bundle, and .rego files; none: the working directory
	Schemas       fs.FS    // of what policies see; a file input.jsonschema is schema.input
	AllowBuiltins []string // see [bundle.Options]
}

// load reads the policies, tests included. An error is [ErrPath], or tells of all files that
// can't be parsed.
func (s Source) load(ctx context.Context) (*bundle.Bundle, error) {
	paths := s.Paths
	if len(paths) == 0 {
		paths = []string{"."}
	}
	single := map[string][]string{} // .rego files that were given one by one, by their directory
	var loaded []*bundle.Bundle
	var failures []error
	add := func(fsys fs.FS, name string) {
		one, err := bundle.Load(ctx, fsys, bundle.LoadOptions{Name: name, Tests: true})
		loaded, failures = append(loaded, one), append(failures, err)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w, got %s: %w", ErrPath, path, unpathed(err))
		case info.IsDir():
			add(os.DirFS(path), path)
		case info.Mode().IsRegular() && strings.HasSuffix(path, ".rego"):
			directory, name := filepath.Split(filepath.Clean(path))
			single[directory] = append(single[directory], name)
		default:
			return nil, fmt.Errorf("%w, got %s", ErrPath, path)
		}
	}
	for _, directory := range slices.Sorted(maps.Keys(single)) {
		add(bundle.Only(os.DirFS(cmp.Or(directory, ".")), single[directory]...), directory)
	}
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	return bundle.Join(loaded)
}

// unpathed drops the path of an error that tells it already.
func unpathed(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// options compile as the sidecar does.
func (s Source) options() bundle.Options {
	return bundle.Options{Schemas: s.Schemas, AllowBuiltins: s.AllowBuiltins, AllMistakes: true}
}
