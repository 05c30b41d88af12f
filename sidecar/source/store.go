package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The file of a kept download is a line of JSON, which says what it is, and the bundle as it
// came:
//
//	{"format":"postern-download/1","source":"SHA-256 of the URL","sha256":"of the bundle","etag":…,"long_poll":…}
//	the bundle's bytes
//
// It is replaced as a whole, so that a crash leaves the old one or the new one.
const (
	keptFormat    = "postern-download/1"
	largestHeader = 8 << 10
)

// kept is a download as it lies on disk.
type kept struct {
	Format   string `json:"format"`
	Source   string `json:"source"`
	SHA256   string `json:"sha256"`
	ETag     string `json:"etag,omitempty"`
	LongPoll bool   `json:"long_poll,omitempty"`
	content  []byte
}

// store keeps the last good download of one URL.
type store struct {
	path    string // empty: nothing is kept
	source  string // whose download it is
	largest int64
}

func newStore(directory string, place Place) store {
	s := store{source: place.identity(), largest: max(place.remote.largest, largestBundle)}
	if directory != "" {
		s.path = filepath.Join(directory, fileName(s.source))
	}
	return s
}

func fileName(source string) string { return source[:16] + ".bundle" }

// load returns nil when nothing is kept of this URL.
func (s store) load() (*kept, error) {
	if s.path == "" {
		return nil, nil
	}
	content, err := readRegular(s.path, s.largest+largestHeader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.path, err)
	}
	k, err := parseKept(content)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.path, err)
	}
	if k.Source != s.source {
		return nil, nil
	}
	return k, nil
}

// parseKept reads the content of a file. It doesn't look into the bundle.
func parseKept(content []byte) (*kept, error) {
	line, rest, ok := bytes.Cut(content, []byte("\n"))
	var k kept
	if !ok || len(line) > largestHeader || json.Unmarshal(line, &k) != nil || k.Format != keptFormat {
		return nil, errors.New("want a download that Postern kept")
	}
	if digestOf(rest) != k.SHA256 {
		return nil, errors.New("it is damaged")
	}
	k.content = rest
	return &k, nil
}

// save replaces what is kept.
func (s store) save(k *kept) (err error) {
	if s.path == "" {
		return nil
	}
	header := *k
	header.Format, header.Source, header.SHA256 = keptFormat, s.source, digestOf(k.content)
	line, err := json.Marshal(header)
	if err != nil {
		return err
	}
	directory := filepath.Dir(s.path)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	draft, err := writeDraft(directory, append(line, '\n'), k.content)
	if err != nil {
		return err
	}
	if err := os.Rename(draft, s.path); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return syncDirectory(directory)
}

const draftPattern = "download-*.tmp"

// removeDrafts removes what a process left behind that was killed while it wrote.
func removeDrafts(directory string) error {
	if directory == "" {
		return nil
	}
	drafts, err := filepath.Glob(filepath.Join(directory, draftPattern))
	errs := []error{err}
	for _, draft := range drafts {
		errs = append(errs, os.Remove(draft))
	}
	return errors.Join(errs...)
}

// writeDraft writes a new file that nobody else can read.
func writeDraft(directory string, parts ...[]byte) (path string, err error) {
	f, err := os.CreateTemp(directory, draftPattern)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, part := range parts {
		_, err := f.Write(part)
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, f.Sync(), f.Close())...); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
