package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

// loadPolicies reads policies as the sidecar does, and single files besides. None means the
// built-in ones.
func loadPolicies(ctx context.Context, paths []string) (*bundle.Bundle, error) {
	if len(paths) == 0 {
		paths = []string{builtinPolicy}
	}
	loaded := make([]*bundle.Bundle, 0, len(paths))
	for _, path := range paths {
		one, err := loadPolicyFrom(ctx, path)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, one)
	}
	return bundle.Join(loaded)
}

func loadPolicyFrom(ctx context.Context, path string) (*bundle.Bundle, error) {
	if path == builtinPolicy {
		return bundle.Load(ctx, policies.FS(), bundle.LoadOptions{Name: path})
	}
	source, done, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer done()
	if source.Archive != nil && strings.HasSuffix(path, ".rego") {
		directory, name := filepath.Split(filepath.Clean(path))
		source = bundle.Source{Name: directory, FS: bundle.Only(os.DirFS(filepath.Clean(directory)), name)}
	}
	return source.Load(ctx, bundle.LoadOptions{})
}
