package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/feed"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/spool"
)

// mostFollowers bounds the requests for the catalog's bundle that are in hand at once: those
// who follow it wait for a change nearly all of the time.
const mostFollowers = 256

// catalogBundle is data.scalekit as an OPA bundle: the same document that policies see, of one
// revision, with the root scalekit and nothing else. Records go through one by one, so that
// its size is no matter of memory and --max-document doesn't bound it.
type catalogBundle struct {
	*catalog.Catalog
	dir string // of spools
}

func (s *sidecar) newCatalogFeed() *feed.Feed[catalog.Revision] {
	return feed.New(catalogBundle{s.catalog, s.config.dataDir}, feed.Config{
		Dir:           s.config.dataDir,
		ContentType:   "application/vnd.openpolicyagent.bundles", // by which OPA knows that it may wait here
		MostFollowers: mostFollowers,
		Logger:        s.logger.With("listener", "authorize"),
	})
}

// serveCatalogBundle answers GET /v1/bundles/permissions.tar.gz.
func (s *sidecar) serveCatalogBundle(w http.ResponseWriter, r *http.Request) {
	if _, refused := parseParameters(r.URL.RawQuery); refused != nil {
		listener.WriteError(w, refused)
		return
	}
	s.bundles.ServeHTTP(w, r)
}

// Tag is made from what the revision says of itself, so that no record is read for it, and from
// what makes other bytes of the same revision: this file and Go's compression.
func (b catalogBundle) Tag(at catalog.Revision) string {
	fingerprint := at.Fingerprint()
	made := sha256.Sum256(append(fingerprint[:], catalogBundleForm+runtime.Version()...))
	return `"` + hex.EncodeToString(made[:16]) + `"`
}

// catalogBundleForm changes with what [catalogBundle.Write] makes of a revision.
const catalogBundleForm = "1"

// Write writes the bundle of a revision.
func (b catalogBundle) Write(ctx context.Context, at catalog.Revision, w io.Writer) (err error) {
	permissions, deleted := spool.New(b.dir), spool.New(b.dir)
	defer func() { err = errors.Join(err, permissions.Close(), deleted.Close()) }()
	live, gone := members{to: permissions}, members{to: deleted}
	err = at.Walk(ctx, func(s permission.State) error {
		if s.Live() {
			return live.add(s.Name, recordOf(s))
		}
		return gone.add(s.Name, deletionOf(s))
	})
	if err = errors.Join(err, permissions.Finish(), deleted.Finish()); err != nil {
		return err
	}
	roles, err := rolesDocument(at)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(opabundle.Manifest{Revision: bundleRevision(at.Sync()), Roots: &[]string{catalog.Root}})
	if err != nil {
		return err
	}
	sync, err := json.Marshal(recordOfSync(at.Sync()))
	if err != nil {
		return err
	}
	return bundle.WriteStreams(w, archived(".manifest", bytes.NewReader(manifest)), archived("data.json",
		strings.NewReader(`{"`+catalog.Root+`":{"permissions":{`), permissions.Reader(),
		strings.NewReader(`},"deleted":{`), deleted.Reader(),
		strings.NewReader(`},"roles":`), bytes.NewReader(roles),
		strings.NewReader(`,"sync":`), bytes.NewReader(sync), strings.NewReader("}}\n")))
}

// bundleRevision is what a follower tells as the bundle's revision.
func bundleRevision(at catalog.Sync) string { return fmt.Sprintf("%d@%s", at.Revision, at.Epoch) }

// sized is what knows its length before it is read.
type sized interface {
	io.Reader
	Size() int64
}

func archived(name string, parts ...sized) bundle.Stream {
	f := bundle.Stream{Name: name}
	readers := make([]io.Reader, len(parts))
	for i, part := range parts {
		readers[i] = part
		f.Size += part.Size()
	}
	f.Content = io.MultiReader(readers...)
	return f
}

// members writes the members of a JSON object.
type members struct {
	to    io.Writer
	begun bool
}

func (m *members) add(name string, value any) error {
	key, err := json.Marshal(name)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	line := make([]byte, 0, len(key)+len(encoded)+2)
	if m.begun {
		line = append(line, ',')
	}
	m.begun = true
	line = append(append(append(line, key...), ':'), encoded...)
	_, err = m.to.Write(line)
	return err
}

// roleRecord is a role as policies see it, data.scalekit.roles[name].
type roleRecord struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

// rolesDocument returns data.scalekit.roles.
func rolesDocument(at catalog.Revision) ([]byte, error) {
	roles := map[string]roleRecord{} // which JSON tells in the order of names
	for _, r := range at.Roles() {
		roles[r.Name] = roleRecord{r.ID, r.Name, append([]string{}, r.Permissions...)}
	}
	return json.Marshal(roles)
}
