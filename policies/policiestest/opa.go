package policiestest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// StockOPA returns the directory to put on PATH for the real opa, of the version that this
// project embeds, and nothing else. It is built once and kept in Go's cache; root is the top of
// the repository.
func StockOPA(t testing.TB, root string) (directory string) {
	t.Helper()
	find := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools/opa/go.mod", "-n", "opa")
	find.Dir = root
	path, err := find.Output()
	if err != nil {
		t.Fatalf("building opa: %v", err)
	}
	directory = t.TempDir()
	if err := os.Symlink(strings.TrimSpace(string(path)), filepath.Join(directory, "opa")); err != nil {
		t.Fatal(err)
	}
	return directory
}
