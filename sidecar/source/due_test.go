package source

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-authz/postern/bundle"
)

// A change is read when it has been still for one look, and one that never is, after a few.
func TestWhenADirectoryIsRead(t *testing.T) {
	dir := t.TempDir()
	n := 0
	change := func() {
		n++
		if err := os.WriteFile(filepath.Join(dir, "app.rego"), fmt.Appendf(nil, "package app\n\nx := %d\n", n), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, "app.rego"), time.Now(), time.Unix(int64(n), 0)); err != nil {
			t.Fatal(err)
		}
	}
	change()
	now := time.Unix(0, 0) // of a machine whose clock is far from that of its files
	var keys *bundle.Verification
	l := newLocal(must(ParsePlace(dir)), Config{
		Now: func() time.Time { return now }, Verification: func() *bundle.Verification { return keys },
	})
	load := func() {
		t.Helper()
		if _, err := l.load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, due bool) {
		t.Helper()
		if got := l.due(); got != due {
			t.Fatalf("%s: due is %v", what, got)
		}
	}
	settle := func() {
		t.Helper()
		load()
		want("a change in the same moment would look the same", true)
		now = now.Add(settledAfter)
		load()
	}
	settle()
	want("nothing changed", false)
	change()
	want("it has just changed", false)
	change()
	want("it changed again", false)
	want("it is still", true)
	settle()
	want("it was read", false)
	for range restlessLooks {
		change()
		want("it goes on changing", false)
	}
	change()
	want("it has gone on changing for long", true)
	settle()
	want("enough time has passed", false)
	n--
	change() // to the same size and the same time of modification
	want("it has just changed", false)
	want("it is still", true)
	settle()
	want("it was read", false)
	keys = new(bundle.Verification)
	want("the keys changed", true)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
