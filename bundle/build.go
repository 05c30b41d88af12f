package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
)

// BuildOptions say what to build. Revision and Roots, if not empty, replace those of the
// manifest that the sources may hold.
type BuildOptions struct {
	Load     LoadOptions // limits; signatures aren't looked at
	Compile  Options     // a bundle that doesn't compile isn't built
	Revision string
	Roots    []string // without any, what the bundle holds; see [Bundle.Roots]
}

// Build writes one archive of the sources' policies and data: without tests and other files,
// and with a manifest that names revision, roots and Rego v1. Nothing is written unless
// [LoadArchive] would read it and it compiles. Equal files make equal bytes.
func Build(ctx context.Context, w io.Writer, sources []Source, o BuildOptions) (*Bundle, error) {
	files, err := gather(ctx, sources, o.Load)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	o.Load.Name, o.Load.Tests, o.Load.Verification = "", false, nil
	if len(sources) == 1 {
		o.Load.Name = sources[0].Name
	}
	draft, err := assemble(files, o.Load) // names files in errors by the one directory, if it is one
	if err != nil {
		return nil, err
	}
	manifest, err := o.manifest(draft)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f file) bool { return isManifest(path.Base(f.name)) })
	files = append(files, manifest)
	var archive bytes.Buffer
	if err := WriteArchive(&archive, exported(files)); err != nil {
		return nil, err
	}
	built, err := LoadArchive(ctx, bytes.NewReader(archive.Bytes()), o.Load)
	if err != nil {
		return nil, err
	}
	if _, err := built.Compile(o.Compile); err != nil {
		return nil, err
	}
	_, err = archive.WriteTo(w)
	return built, err
}

// gather reads the files of all sources that make a bundle.
func gather(ctx context.Context, sources []Source, o LoadOptions) ([]file, error) {
	if len(sources) == 0 {
		return nil, errors.New("want at least one directory, got none")
	}
	var all []file
	from := map[string]string{}
	for _, s := range sources {
		files, err := s.read(ctx, &o, false)
		if err == nil {
			files, err = o.chosen(files)
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if opabundle.IsSignaturesFile(f.name) {
				continue // of what was, not of what will be
			}
			if other, twice := from[f.name]; twice {
				return nil, fmt.Errorf("%s: there is a file of this place in %s, too, and a bundle can hold only one", display(s.Name, f.name), other)
			}
			from[f.name] = s.Name
			all = append(all, f)
		}
	}
	slices.SortFunc(all, byName)
	return all, nil
}

func (o BuildOptions) manifest(draft *Bundle) (file, error) {
	manifest := draft.contents.Manifest
	if o.Revision != "" {
		manifest.Revision = o.Revision
	}
	roots := o.Roots
	if len(roots) == 0 {
		roots = draft.Roots()
	}
	manifest.Roots = &roots
	one := 1
	manifest.RegoVersion = &one
	content, err := json.Marshal(manifest)
	return file{opabundle.ManifestExt, content}, err
}
