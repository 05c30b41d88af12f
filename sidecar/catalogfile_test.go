package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/permission"
)

// seen reads a path of a data document as JSON with sorted keys.
func seen(t *testing.T, document storage.Store, path string) string {
	t.Helper()
	txn := storage.NewTransactionOrDie(t.Context(), document)
	defer document.Abort(t.Context(), txn)
	value, err := document.Read(t.Context(), txn, storage.MustParsePath(path))
	if storage.IsNotFound(err) {
		return "undefined"
	}
	if err != nil {
		t.Fatal(err)
	}
	return ast.MustInterfaceToValue(value).String()
}

func writeFile(t *testing.T, content []byte, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A policy sees of a dump what it sees of the catalog that was dumped.
func TestACatalogFileIsTheCatalog(t *testing.T) {
	_, c := permissionServer(t,
		permissionEvent(permission.Created, 1, "1", "data:manage"), permissionEvent(permission.Created, 2, "2", "data:read"),
		permissionEvent(permission.Deleted, 3, "2", "data:read"), permissionEvent(permission.Created, 4, "3", "data:write"))
	var dump bytes.Buffer
	if err := c.Dump(t.Context(), &dump, nil); err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	f, err := openCatalogFile(t.Context(), writeFile(t, dump.Bytes(), t.TempDir(), "catalog.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	base := inmem.NewFromObject(map[string]any{"postern": true, "scalekit": "hidden"})
	of, is := f.document(base), c.Document(base)
	for _, path := range []string{
		"/scalekit/permissions", "/scalekit/deleted", "/scalekit/permissions/data:manage", "/scalekit/permissions/data:read",
		"/scalekit/deleted/data:read", "/scalekit/sync/digest", "/scalekit/sync/count", "/scalekit/sync/complete", "/scalekit/sync/event_id", "/postern",
	} {
		if got, want := seen(t, of, path), seen(t, is, path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	live, deleted, err := f.names(t.Context())
	slices.Sort(live)
	if err != nil || !slices.Equal(live, []string{"data:manage", "data:write"}) || !slices.Equal(deleted, []string{"data:read"}) {
		t.Errorf("got %q, %q, %v", live, deleted, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v left behind", left, err)
	}
}

func TestAListingAndNothingAreCatalogFiles(t *testing.T) {
	listing := `{"permissions":[{"id":"perm_1","name":"data:manage","create_time":"2024-01-15T10:30:00Z","update_time":"2024-01-15T10:30:00Z"}],"next_page_token":"","total_size":1}`
	for path, want := range map[string]string{writeFile(t, []byte(listing), t.TempDir(), "listing.json"): "true", "": "false"} {
		f, err := openCatalogFile(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := seen(t, f.document(inmem.New()), "/scalekit/sync/complete"); got != want {
			t.Errorf("%q: complete is %s, want %s", path, got, want)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABadCatalogFileIsToldAndLeavesNothing(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	for name, c := range map[string]struct{ content, want string }{
		"something else": {`{"a":1}`, "neither a dump"},
		"no JSON":        {`permissions`, "neither a dump"},
		"half a dump":    {`{"format":"postern-dump/1","environment_id":"env_1","epoch":"e","revision":1,"digest":"00","complete":true,"states":2,"newest":null}` + "\n", "bad.ndjson"},
	} {
		path := writeFile(t, []byte(c.content), t.TempDir(), "bad.ndjson")
		if _, err := openCatalogFile(t.Context(), path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openCatalogFile(canceled, ""); err == nil {
		t.Error("opened with a context that is done")
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v left behind", left, err)
	}
}
