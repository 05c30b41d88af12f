package author

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// starter is what lies beside the policies: a README, a catalog in two forms, tests, and
// settings of an editor.
//
//go:embed all:starter
var starter embed.FS

// Init lays out a tree to start from in directory, which is made if it isn't there and has to
// be empty: the policies, and what lies beside them. It is written aside and then moved into
// place; after an error nothing of it is left.
func Init(directory string, policies fs.FS) (err error) {
	entries, err := os.ReadDir(directory)
	made := errors.Is(err, fs.ErrNotExist)
	switch {
	case made:
		if err := os.MkdirAll(directory, 0o755); err != nil { //nolint:gosec // sources for others to read, as the umask allows
			return err
		}
	case err != nil:
		return fmt.Errorf("want a new or an empty directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("want a new or an empty directory, got %s with %s in it", directory, entries[0].Name())
	}
	defer func() {
		if err != nil && made {
			err = errors.Join(err, os.Remove(directory))
		}
	}()
	return moveInto(directory, func(aside string) error {
		beside, err := fs.Sub(starter, "starter")
		if err != nil {
			return err
		}
		return errors.Join(os.CopyFS(aside, beside), os.CopyFS(filepath.Join(aside, "policies"), policies))
	})
}

// moveInto moves what write puts into a directory aside into the directory, all of it or nothing.
func moveInto(directory string, write func(aside string) error) (err error) {
	aside, err := os.MkdirTemp(directory, ".postern-init-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	if err := write(aside); err != nil {
		return err
	}
	entries, err := os.ReadDir(aside)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if err := os.Rename(filepath.Join(aside, entry.Name()), filepath.Join(directory, entry.Name())); err != nil {
			for _, moved := range entries[:i] {
				err = errors.Join(err, os.RemoveAll(filepath.Join(directory, moved.Name())))
			}
			return err
		}
	}
	return nil
}
