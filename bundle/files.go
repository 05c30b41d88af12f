package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/loader/filter"
)

// Limits of a policy tree. Directories are counted because a symbolic link may lead back
// to one above it.
const (
	defaultMaxBytes   = 32 << 20
	defaultMaxFiles   = 10_000
	maxDirectoryDepth = 32
	maxDataDepth      = 128
)

// file is one file of a bundle, read whole. Its name is slash-separated and relative to
// the top of the bundle.
type file struct {
	name    string
	content []byte
}

func (f file) isRego() bool { return strings.HasSuffix(f.name, opabundle.RegoExt) }

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test"+opabundle.RegoExt) }

func byName(a, b file) int { return strings.Compare(a.name, b.name) }

// display is how errors call a file, and how OPA's reader does.
func display(name, file string) string { return filepath.Join(name, file) }

// tree is a walk over a policy tree.
type tree struct {
	fsys    fs.FS
	o       LoadOptions
	all     bool // files that make no bundle, too
	entries int
	bytes   int64
	files   []file
}

// readTree reads the files that make a bundle, sorted by name, or all but the hidden ones.
func readTree(ctx context.Context, fsys fs.FS, o LoadOptions, all bool) ([]file, error) {
	t := &tree{fsys: fsys, o: o, all: all}
	if err := t.walk(ctx, ".", 0); err != nil {
		return nil, err
	}
	slices.SortFunc(t.files, byName)
	return t.files, nil
}

// chosen keeps the files that make the bundle.
func (o LoadOptions) chosen(files []file) ([]file, error) {
	var kept []file
	for _, f := range files {
		directory, base := path.Split(f.name)
		if isHidden(base) || slices.ContainsFunc(strings.Split(directory, "/"), isHidden) {
			continue
		}
		belongs, err := o.inBundle(base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", display(o.Name, f.name), err)
		}
		if belongs {
			kept = append(kept, f)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("want .rego files in %s, found none (tests, which end in _test.rego, don't count)", display(o.Name, "."))
	}
	return kept, nil
}

func (t *tree) walk(ctx context.Context, directory string, depth int) error {
	if depth > maxDirectoryDepth {
		return fmt.Errorf("%s: directories are nested deeper than %d; does a symbolic link lead back?", display(t.o.Name, directory), maxDirectoryDepth)
	}
	entries, err := fs.ReadDir(t.fsys, directory)
	if err != nil {
		return t.named(directory, err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if t.entries++; t.entries > t.o.MaxFiles {
			return fmt.Errorf("%s: more than %d files and directories", display(t.o.Name, "."), t.o.MaxFiles)
		}
		if isHidden(entry.Name()) {
			continue
		}
		if err := t.visit(ctx, path.Join(directory, entry.Name()), entry, depth); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) visit(ctx context.Context, name string, entry fs.DirEntry, depth int) error {
	mode := entry.Type()
	if mode&fs.ModeSymlink != 0 {
		info, err := fs.Stat(t.fsys, name)
		if err != nil {
			return t.named(name, err)
		}
		mode = info.Mode()
	}
	if mode.IsDir() {
		return t.walk(ctx, name, depth+1)
	}
	belongs, err := t.o.inBundle(path.Base(name))
	if err != nil {
		return t.named(name, err)
	}
	if !belongs && !t.all {
		return nil
	}
	if !mode.IsRegular() {
		return t.named(name, fmt.Errorf("want a file, got %s", mode))
	}
	return t.read(name)
}

func (t *tree) read(name string) error {
	f, err := t.fsys.Open(name)
	if err != nil {
		return t.named(name, err)
	}
	defer func() { _ = f.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(f, t.o.MaxBytes-t.bytes+1))
	if err != nil {
		return t.named(name, err)
	}
	if t.bytes += int64(len(content)); t.bytes > t.o.MaxBytes {
		return t.named(name, tooLarge(t.o.MaxBytes))
	}
	t.files = append(t.files, file{name: name, content: content})
	return nil
}

// named puts the displayed name of a file before an error, once.
func (t *tree) named(name string, err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return fmt.Errorf("%s: %w", display(t.o.Name, name), err)
}

// isHidden tells what to pass over: the internals of a ConfigMap, of version control and
// of editors. The manifest and the signatures of a bundle have hidden names of their own.
func isHidden(base string) bool {
	return strings.HasPrefix(base, ".") && !isManifest(base) && !opabundle.IsSignaturesFile(base)
}

func isManifest(base string) bool {
	return base == opabundle.ManifestExt || base == opabundle.ManifestProtoExt
}

func isData(base string) bool {
	return base == "data.json" || opabundle.IsYAMLDataFile(base)
}

// inBundle tells whether a file of this name is read, or that it must not be there.
func (o LoadOptions) inBundle(base string) (bool, error) {
	switch {
	case path.Ext(base) == ".wasm":
		return false, errors.New("this is WebAssembly, which isn't run here: give the policy as Rego")
	case base == "patch.json":
		return false, errors.New("this is a delta bundle: give a whole one")
	case file{name: base}.isTest():
		return o.Tests, nil
	}
	return path.Ext(base) == opabundle.RegoExt || isData(base) || isManifest(base) || opabundle.IsSignaturesFile(base), nil
}

// fileLoader hands files that were read already to OPA's bundle reader.
type fileLoader struct{ rest []file }

// NextFile hands out the next file, then io.EOF.
func (l *fileLoader) NextFile() (*opabundle.Descriptor, error) {
	if len(l.rest) == 0 {
		return nil, io.EOF
	}
	next := l.rest[0]
	l.rest = l.rest[1:]
	return opabundle.NewDescriptor(next.name, next.name, bytes.NewBuffer(next.content)), nil
}

// WithFilter changes nothing: the files were chosen when they were read, as they were
// bounded, and links followed.
func (l *fileLoader) WithFilter(filter.LoaderFilter) opabundle.DirectoryLoader { return l }

// WithPathFormat changes nothing: names are relative to the top of the bundle.
func (l *fileLoader) WithPathFormat(opabundle.PathFormat) opabundle.DirectoryLoader { return l }

// WithSizeLimitBytes changes nothing.
func (l *fileLoader) WithSizeLimitBytes(int64) opabundle.DirectoryLoader { return l }

// WithFollowSymlinks changes nothing.
func (l *fileLoader) WithFollowSymlinks(bool) opabundle.DirectoryLoader { return l }
