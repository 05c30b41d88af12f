package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	text, err := readFile(c.path, 2*largestKeySet)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
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
	draft := c.path + ".new"
	if err := writeSynced(draft, text); err != nil {
		return err
	}
	return os.Rename(draft, c.path)
}

func writeSynced(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}
