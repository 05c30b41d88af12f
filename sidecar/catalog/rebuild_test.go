package catalog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-authz/postern/sidecar/permission"
)

func TestRebuildMovesOnlyABrokenFileAside(t *testing.T) {
	dir := t.TempDir()
	rebuild := Options{Dir: dir, EnvironmentID: "env_test", LRUSize: 1, Rebuild: true}
	c, err := Open(context.Background(), rebuild)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, c, described(permission.Created, 1, "a", ""))
	before := c.Sync()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(context.Background(), rebuild); err != nil {
		t.Fatal(err)
	}
	if c.Sync() != before || c.MovedAside() != "" {
		t.Errorf("a sound file became %+v, moved to %q", c.Sync(), c.MovedAside())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	broken := bytes.Repeat([]byte("broken"), 5000)
	if err := os.WriteFile(filepath.Join(dir, FileName), broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(context.Background(), rebuild); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if at := c.Sync(); at.Count != 0 || at.Complete || at.Epoch == before.Epoch {
		t.Errorf("rebuilt as %+v", at)
	}
	if aside, err := os.ReadFile(c.MovedAside()); err != nil || !bytes.Equal(aside, broken) || !strings.HasPrefix(c.MovedAside(), filepath.Join(dir, FileName+".broken-")) {
		t.Errorf("moved to %q: %v", c.MovedAside(), err)
	}
	mustApply(t, c, described(permission.Created, 1, "b", ""))
}

// A file that somebody can use, if not this process at this time, is never given up.
func TestRebuildLeavesWhatIsNotBroken(t *testing.T) {
	refusing := func(err error) Options {
		return Options{EnvironmentID: "env_test", hooks: hooks{open: func(int) error { return &os.PathError{Op: "open", Err: err} }}}
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, path string)
		options Options
		want    error
	}{
		"no descriptors":      {nil, refusing(syscall.EMFILE), syscall.EMFILE},
		"no memory":           {nil, refusing(syscall.ENOMEM), syscall.ENOMEM},
		"a failing disk":      {nil, refusing(syscall.EIO), syscall.EIO},
		"another environment": {nil, Options{EnvironmentID: "env_other"}, ErrEnvironment},
		"a newer format": {
			func(t *testing.T, path string) { change(t, path, putFormat("postern-catalog/99")) },
			Options{},
			ErrFile,
		},
		"another program's": {func(t *testing.T, path string) { change(t, path, dropMeta) }, Options{}, ErrFile},
		"a lock of a backup": {
			func(t *testing.T, path string) {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = f.Close() })
				if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
					t.Fatal(err)
				}
			}, Options{}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sampleCatalog(t, 10)
			path := filepath.Join(dir, FileName)
			if test.prepare != nil {
				test.prepare(t, path)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			test.options.Dir, test.options.Rebuild = dir, true
			c, err := Open(context.Background(), test.options)
			if err == nil {
				_ = c.Close()
			}
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			if !errors.Is(test.want, ErrFile) && errors.Is(err, ErrFile) {
				t.Errorf("the file is blamed for it: %v", err)
			}
			entries, _ := os.ReadDir(dir)
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) || len(entries) != 1 {
				t.Errorf("the file was touched: %v %v", err, entries)
			}
		})
	}
}

// Where no new catalog can be made, the broken one comes back to its place.
func TestARebuildThatFailsPutsTheFileBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: dir, Rebuild: true, hooks: hooks{open: func(int) error { return syscall.EMFILE }}}
	if _, err := Open(context.Background(), o); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if back, err := os.ReadFile(path); err != nil || string(back) != "broken" || len(entries) != 1 {
		t.Errorf("got %q, %v, %v", back, err, entries)
	}
}
