package spool_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-authz/postern/sidecar/spool"
)

// What was written is read back by several readers, from memory and from a file, and no file
// is ever seen.
func TestSpool(t *testing.T) {
	for _, chunks := range []int{0, 1, 16, 17, 100} {
		dir := t.TempDir()
		s := spool.New(dir)
		var want bytes.Buffer
		for i := range chunks {
			chunk := bytes.Repeat([]byte{byte(i)}, 64<<10)
			want.Write(chunk)
			if n, err := s.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		first, second := s.Reader(), s.Reader()
		if _, err := io.CopyN(io.Discard, first, int64(min(want.Len(), 70_000))); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, want.Bytes()) || s.Size() != int64(want.Len()) {
			t.Errorf("%d chunks: got %d bytes of %d, %v", chunks, len(got), want.Len(), err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%v, %v lies in the directory", left, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Without a directory the little that memory takes is kept, and more is an error.
func TestSpoolWithoutADirectory(t *testing.T) {
	s := spool.New(filepath.Join(t.TempDir(), "absent"))
	if _, err := s.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write([]byte{1}); n != 0 || err == nil {
		t.Errorf("got %d, %v", n, err)
	}
	if s.Size() != 1<<20 || s.Reader().Size() != 1<<20 {
		t.Errorf("%d bytes", s.Size())
	}
}
