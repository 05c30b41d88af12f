package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// cacheFile keeps the last keys that were fetched. It says whose keys they are, so that those
// of another issuer, or from another place, are never used.
type cacheFile struct {
	path           string // empty: nothing is kept
	issuer, source string
}

// cached is its content.
type cached struct {
	Issuer string          `json:"issuer"`
	Source string          `json:"source"`
	Keys   json.RawMessage `json:"jwks"`
}

// load returns nil when there is nothing of this issuer and place.
func (c cacheFile) load() (*keySet, error) {
	if c.path == "" {
		return nil, nil
	}
	text, err := readFile(c.path, 8*largestKeySet)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path, err)
	}
	var found cached
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path, err)
	}
	if found.Issuer != c.issuer || found.Source != c.source {
		return nil, nil
	}
	set, err := parseKeySet(found.Keys)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path, err)
	}
	return set, nil
}

// store replaces the content as a whole, so that a crash leaves the old one or the new one.
func (c cacheFile) store(set *keySet) (err error) {
	if c.path == "" {
		return nil
	}
	text, err := json.Marshal(cached{c.issuer, c.source, set.raw})
	if err != nil {
		return err
	}
	draft, err := writeDraft(filepath.Dir(c.path), text)
	if err != nil {
		return err
	}
	if err := os.Rename(draft, c.path); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return nil
}

// writeDraft writes a new file that nobody else can read.
func writeDraft(dir string, text []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, "keys-*.tmp")
	if err != nil {
		return "", err
	}
	_, writeErr := f.Write(text)
	if err := errors.Join(writeErr, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
