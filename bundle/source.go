package bundle

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Source is where a bundle's files are: a directory, or an archive.
type Source struct {
	Name    string    // goes before the names of files in errors; see [LoadOptions]
	FS      fs.FS     // a directory; nil: an archive
	Archive io.Reader // read once
}

// Only is a directory of which the files with these names are there, and nothing else.
func Only(directory fs.FS, names ...string) fs.FS { return only{directory, names} }

type only struct {
	fs.FS
	names []string
}

// ReadDir lists those files.
func (o only) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(entries, func(entry fs.DirEntry) bool { return !slices.Contains(o.names, entry.Name()) }), err
}

// Load is [Load] or [LoadArchive], by the name of the source if it has one.
func (s Source) Load(ctx context.Context, o LoadOptions) (*Bundle, error) {
	files, err := s.read(ctx, &o, o.Verification != nil)
	if err == nil {
		files, err = o.verified(files)
	}
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	return assemble(files, o)
}

// read returns the files sorted by name: of an archive all; of a directory all but the
// hidden ones, or those that make a bundle.
func (s Source) read(ctx context.Context, o *LoadOptions, all bool) ([]file, error) {
	if s.Name != "" {
		o.Name = s.Name
	}
	var files []file
	var err error
	if s.FS != nil {
		files, err = readTree(ctx, s.FS, o.withDefaults(), all)
	} else {
		files, err = readArchive(ctx, s.Archive, o.withDefaults())
	}
	if err == nil {
		err = refuseExpansion(files, o.withDefaults())
	}
	if err != nil {
		return nil, err
	}
	return files, nil
}
