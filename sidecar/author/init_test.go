package author_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// below lists all that is in a directory.
func below(t *testing.T, directory string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(directory, func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names[1:]
}

// What is laid out is what the binary embeds, byte for byte, in a new directory or an empty one.
func TestInitExportsWhatIsEmbedded(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("empty", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, directory := range []string{"new/below", "empty"} {
		if err := author.Init(directory, policies.FS()); err != nil {
			t.Fatal(err)
		}
		count := 0
		err := fs.WalkDir(policies.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			count++
			want, err := fs.ReadFile(policies.FS(), name)
			if err != nil {
				return err
			}
			got, err := os.ReadFile(filepath.Join(directory, "policies", name))
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs", name)
			}
			return err
		})
		if err != nil || count < 10 {
			t.Errorf("%s: %d files, %v", directory, count, err)
		}
		for _, name := range below(t, directory) {
			if strings.Contains(name, "postern-init") {
				t.Errorf("%s is left", name)
			}
		}
	}
}

func TestInitRefusesWhatIsntEmpty(t *testing.T) {
	tree(t, map[string]string{"full/mine.rego": "package mine", "file": ""})
	for directory, want := range map[string]string{"full": "mine.rego", "file": "want a new or an empty directory"} {
		if err := author.Init(directory, policies.FS()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", directory, err)
		}
	}
	if got := below(t, "."); len(got) != 3 {
		t.Errorf("got %q", got)
	}
}

// Whatever goes wrong on the way leaves nothing.
func TestInitLeavesNothingHalf(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("empty", 0o700); err != nil {
		t.Fatal(err)
	}
	broken := fstest.MapFS{"a.rego": {Data: []byte("package a")}, "b": {Mode: fs.ModeNamedPipe}}
	for _, directory := range []string{"new", "empty"} {
		if err := author.Init(directory, broken); err == nil {
			t.Errorf("%s: wrote what can't be read", directory)
		}
	}
	if got := below(t, "."); len(got) != 1 || got[0] != "empty" {
		t.Errorf("got %q", got)
	}
}
