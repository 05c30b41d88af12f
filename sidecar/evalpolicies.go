package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return bundle.Load(ctx, os.DirFS(path), bundle.LoadOptions{Name: path})
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("want a directory, a bundle file or a .rego file, got %s", path)
	case strings.HasSuffix(path, ".rego"):
		directory, name := filepath.Split(filepath.Clean(path))
		return bundle.Load(ctx, oneFile{os.DirFS(filepath.Clean(directory)), name}, bundle.LoadOptions{Name: directory})
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	archive, err := bundle.LoadArchive(ctx, f, bundle.LoadOptions{Name: path})
	return archive, errors.Join(err, f.Close())
}

// oneFile is a directory of which one file is there.
type oneFile struct {
	fs.FS
	name string
}

// ReadDir lists that file.
func (o oneFile) ReadDir(directory string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, directory)
	return slices.DeleteFunc(entries, func(entry fs.DirEntry) bool { return entry.Name() != o.name }), err
}
