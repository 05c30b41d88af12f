// Package spool keeps what is written until somebody slow reads it: a little of it in
// memory, more in a file.
//
// Its promise: the file has no name, so that nobody else finds it and nothing of it is left
// behind by a crash, and it never takes more memory than one buffer.
package spool

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	inMemory = 1 << 20   // bytes; a directory that can't be written to does no harm up to there
	buffered = 256 << 10 // bytes of one write to the file
)

// Spool is written once, by one goroutine, and read by any number of them afterwards.
type Spool struct {
	dir    string
	size   int64
	memory bytes.Buffer
	file   *os.File // nil while all of it is in memory
	out    *bufio.Writer
}

// New returns an empty spool, which makes its file in dir when it needs one.
func New(dir string) *Spool { return &Spool{dir: dir} }

// Write appends p.
func (s *Spool) Write(p []byte) (int, error) {
	if s.file == nil && s.memory.Len()+len(p) <= inMemory {
		s.size += int64(len(p))
		return s.memory.Write(p)
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return 0, fmt.Errorf("spooling: %w", err)
		}
	}
	n, err := s.out.Write(p)
	s.size += int64(n)
	return n, err
}

// spill moves to a file what is in memory by now.
func (s *Spool) spill() error {
	file, err := os.CreateTemp(s.dir, "spool-*.tmp")
	if err != nil {
		return err
	}
	if err := os.Remove(file.Name()); err != nil {
		return errors.Join(err, file.Close())
	}
	s.file, s.out = file, bufio.NewWriterSize(file, buffered)
	_, err = s.out.Write(s.memory.Bytes())
	s.memory = bytes.Buffer{}
	return err
}

// Size returns how many bytes were written.
func (s *Spool) Size() int64 { return s.size }

// Finish ends the writing. It must be called before [Spool.Reader].
func (s *Spool) Finish() error {
	if s.file == nil {
		return nil
	}
	return s.out.Flush()
}

// Reader returns a reader of its own over all that was written.
func (s *Spool) Reader() *io.SectionReader {
	if s.file == nil {
		return io.NewSectionReader(bytes.NewReader(s.memory.Bytes()), 0, s.size)
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

// Close gives the room back. Nobody may read any more.
func (s *Spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
