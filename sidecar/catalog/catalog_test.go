package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

const environment = "env_1234567890"

// open opens a catalog in dir and checks it when the test ends.
func open(t testing.TB, dir string, change ...func(*catalog.Options)) *catalog.Catalog {
	t.Helper()
	o := catalog.Options{Dir: dir, EnvironmentID: environment, LRUSize: 100, MaxDocument: catalog.Limit{Records: 1000, Bytes: 1 << 20}, Eager: true}
	for _, c := range change {
		c(&o)
	}
	c, err := catalog.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// sound fails the test unless the file of a closed catalog in dir is in order.
func sound(t testing.TB, dir string) catalog.Report {
	t.Helper()
	c, err := catalog.Open(context.Background(), catalog.Options{Dir: dir, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	report, err := c.Verify(context.Background(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("the file is not sound: %v %v", err, report.Problems)
	}
	return report
}

func instant(t testing.TB, text string) permission.Instant {
	t.Helper()
	i, err := permission.ParseInstant(text)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// event makes an event of the minute given, of the permission "perm_"+id.
func event(kind permission.Kind, minute int, id, name string) permission.Event {
	return permission.Event{
		ID: fmt.Sprintf("evt_%s_%s_%d", id, kind, minute), Kind: kind,
		OccurredAt:    permission.Instant(1_705_314_600_000_000_000 + int64(minute)*60_000_000_000),
		EnvironmentID: environment, PermissionID: "perm_" + id, Name: name, Description: kind.String() + " " + name,
	}
}

func apply(t testing.TB, c *catalog.Catalog, events ...permission.Event) (last permission.Outcome) {
	t.Helper()
	for _, e := range events {
		var err error
		if last, err = c.Apply(context.Background(), e); err != nil {
			t.Fatalf("applying %s: %v", e.ID, err)
		}
	}
	return last
}

// read returns the document at path in the newest revision as a Go value; nil: nothing.
func read(t testing.TB, c *catalog.Catalog, path ...string) any {
	t.Helper()
	d := c.Document(inmem.NewFromObject(map[string]any{}))
	txn := begin(t, d)
	defer d.Abort(context.Background(), txn)
	return readIn(t, d, txn, path...)
}

func begin(t testing.TB, d *catalog.Document) storage.Transaction {
	t.Helper()
	txn, err := d.NewTransaction(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return txn
}

func readIn(t testing.TB, d *catalog.Document, txn storage.Transaction, path ...string) any {
	t.Helper()
	value, err := d.Read(context.Background(), txn, path)
	if storage.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	if v, ok := value.(ast.Value); ok {
		if value, err = ast.JSON(v); err != nil {
			t.Fatal(err)
		}
	}
	return value
}

func field(value any, key string) any {
	object, _ := value.(map[string]any)
	return object[key]
}

func TestDocumentedEventsBecomeTheDocument(t *testing.T) {
	c := open(t, t.TempDir())
	created := permission.Event{
		ID: "evt_1234567890", Kind: permission.Created, OccurredAt: instant(t, "2024-01-15T10:30:00.123456789Z"),
		EnvironmentID: environment, PermissionID: "perm_1234567890", Name: "data:manage", Description: "Permission to manage data",
	}
	if got := apply(t, c, created); got != permission.OutcomeApplied {
		t.Errorf("created: %s", got)
	}
	want := "map[created_at:2024-01-15T10:30:00.123456789Z description:Permission to manage data event_id:evt_1234567890 " +
		"id:perm_1234567890 name:data:manage source:webhook updated_at:2024-01-15T10:30:00.123456789Z]"
	if got := fmt.Sprint(read(t, c, "scalekit", "permissions", "data:manage")); got != want {
		t.Errorf("after created:\n got %s\nwant %s", got, want)
	}

	updated := created
	updated.ID, updated.Kind, updated.OccurredAt, updated.Description = "evt_2345678901", permission.Updated, instant(t, "2024-01-15T10:35:00.123456789Z"), "Updated"
	apply(t, c, updated)
	record := read(t, c, "scalekit", "permissions", "data:manage")
	if field(record, "created_at") != "2024-01-15T10:30:00.123456789Z" || field(record, "updated_at") != "2024-01-15T10:35:00.123456789Z" ||
		field(record, "description") != "Updated" || field(record, "event_id") != "evt_2345678901" {
		t.Errorf("after updated: %v", record)
	}

	deleted := updated
	deleted.ID, deleted.Kind, deleted.OccurredAt = "evt_3456789012", permission.Deleted, instant(t, "2024-01-15T10:40:00.123456789Z")
	apply(t, c, deleted)
	if got := read(t, c, "scalekit", "permissions", "data:manage"); got != nil {
		t.Errorf("after deleted: %v", got)
	}
	want = "map[deleted_at:2024-01-15T10:40:00.123456789Z event_id:evt_3456789012 id:perm_1234567890]"
	if got := fmt.Sprint(read(t, c, "scalekit", "deleted", "data:manage")); got != want {
		t.Errorf("after deleted:\n got %s\nwant %s", got, want)
	}
	sync := read(t, c, "scalekit", "sync")
	for key, want := range map[string]string{
		"revision": "3", "event_id": "evt_3456789012", "as_of": "2024-01-15T10:40:00.123456789Z", "complete": "false", "count": "0",
		"digest": strings.Repeat("0", 64), "state": "unverified", "epoch": c.Sync().Epoch,
	} {
		if got := fmt.Sprint(field(sync, key)); got != want {
			t.Errorf("sync.%s: got %s, want %s", key, got, want)
		}
	}
}

func TestOutcomesAndRevision(t *testing.T) {
	c := open(t, t.TempDir())
	conflict := event(permission.Updated, 2, "1", "a")
	conflict.Description = "another content under the same event id"
	later := event(permission.Updated, 9, "1", "a")
	for _, step := range []struct {
		name     string
		event    permission.Event
		want     permission.Outcome
		revision uint64
	}{
		{"first", event(permission.Updated, 2, "1", "a"), permission.OutcomeApplied, 1},
		{"again", event(permission.Updated, 2, "1", "a"), permission.OutcomeDuplicate, 1},
		{"late creation is learned", event(permission.Created, 1, "1", "a"), permission.OutcomeApplied, 2},
		{"superseded", event(permission.Updated, 1, "1", "a"), permission.OutcomeUnchanged, 2},
		{"deletion", event(permission.Deleted, 5, "1", "a"), permission.OutcomeApplied, 3},
		{"older than the deletion", event(permission.Updated, 4, "1", "a"), permission.OutcomeUnchanged, 3},
		{"newer than the deletion: final, but the newest event", later, permission.OutcomeApplied, 4},
		{"same id, other content", conflict, permission.OutcomeConflict, 4},
	} {
		if got := apply(t, c, step.event); got != step.want || c.Sync().Revision != step.revision {
			t.Errorf("%s: got %s at revision %d, want %s at %d", step.name, got, c.Sync().Revision, step.want, step.revision)
		}
	}
	if at := c.Sync(); at.EventID != later.ID || at.AsOf != later.OccurredAt {
		t.Errorf("the newest event is %s at %s", at.EventID, at.AsOf)
	}
}

func TestNothingIsLostBetweenProcesses(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	apply(t, first, event(permission.Created, 1, "1", "a"), event(permission.Created, 2, "2", "b"), event(permission.Deleted, 3, "1", "a"))
	before := first.Sync()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	if second.Sync() != before {
		t.Errorf("got %+v, want %+v", second.Sync(), before)
	}
	if read(t, second, "scalekit", "permissions", "b") == nil || read(t, second, "scalekit", "deleted", "a") == nil {
		t.Error("a record is gone")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if report := sound(t, dir); report.Live != 1 || report.Deleted != 1 {
		t.Errorf("got %+v", report)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		options catalog.Options
		want    error
		message string
	}{
		{
			"another environment", func(t *testing.T, dir string) { closeNow(t, open(t, dir)) },
			catalog.Options{EnvironmentID: "env_other"},
			catalog.ErrEnvironment, "--environment-id is env_other",
		},
		{
			"a second process", func(t *testing.T, dir string) { open(t, dir) },
			catalog.Options{},
			catalog.ErrLocked, "--data-dir",
		},
		{
			"a newer format", func(t *testing.T, dir string) {
				closeNow(t, open(t, dir))
				put(t, dir, "meta", "format", "postern-catalog/99")
			},
			catalog.Options{},
			catalog.ErrFile, `"postern-catalog/99"`,
		},
		{
			"another program's bbolt file", func(t *testing.T, dir string) { put(t, dir, "other", "key", "value") },
			catalog.Options{},
			catalog.ErrFile, "isn't a Postern catalog",
		},
		{
			"no bbolt file", func(t *testing.T, dir string) { write(t, dir, []byte(strings.Repeat("not a database ", 10000))) },
			catalog.Options{},
			catalog.ErrFile, "--rebuild",
		},
		{
			"a damaged header", func(t *testing.T, dir string) { closeNow(t, open(t, dir)); put(t, dir, "meta", "header", "x") },
			catalog.Options{},
			catalog.ErrFile, "reading its header",
		},
		{"a truncated file", truncate, catalog.Options{}, catalog.ErrFile, "--rebuild"},
		{"no directory, reading only", func(*testing.T, string) {}, catalog.Options{Dir: "/nonexistent", ReadOnly: true}, os.ErrNotExist, "data directory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.prepare(t, dir)
			if test.options.Dir == "" {
				test.options.Dir = dir
			}
			before, _ := os.ReadFile(filepath.Join(dir, catalog.FileName))
			c, err := catalog.Open(context.Background(), test.options)
			if err == nil {
				closeNow(t, c)
			}
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.message) {
				t.Errorf("got %v, want %v and %q in it", err, test.want, test.message)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, catalog.FileName)); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func closeNow(t *testing.T, c *catalog.Catalog) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, catalog.FileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestModesOfDirectoryAndFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	open(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, catalog.FileName): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

func TestNoEvictionChangesADecision(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := open(t, t.TempDir(), func(o *catalog.Options) { o.LRUSize = size })
			const names = 100
			for i := range names {
				apply(t, c, event(permission.Created, i, fmt.Sprint(i), fmt.Sprint("name:", i)))
				if i%3 == 0 {
					apply(t, c, event(permission.Deleted, 1000+i, fmt.Sprint(i), fmt.Sprint("name:", i)))
				}
			}
			for range 3 {
				for i := range 2 * names {
					name := fmt.Sprint("name:", i)
					live, deleted := read(t, c, "scalekit", "permissions", name), read(t, c, "scalekit", "deleted", name)
					if wantLive, wantDeleted := i < names && i%3 != 0, i < names && i%3 == 0; (live != nil) != wantLive || (deleted != nil) != wantDeleted {
						t.Fatalf("%s: live %v, deleted %v", name, live, deleted)
					}
				}
			}
		})
	}
}

func TestDocumentPaths(t *testing.T) {
	c := open(t, t.TempDir())
	apply(t, c, event(permission.Created, 1, "1", "a"), event(permission.Created, 2, "2", "b"), event(permission.Deleted, 3, "2", "b"))
	base := inmem.NewFromObject(map[string]any{"app": map[string]any{"x": "y"}, "scalekit": map[string]any{"permissions": "hidden"}})
	d := c.Document(base)
	txn := begin(t, d)
	defer d.Abort(context.Background(), txn)
	for path, want := range map[string]string{
		"scalekit/permissions/a/id":        "perm_1",
		"scalekit/permissions/a/id/deeper": "<nil>",
		"scalekit/permissions/a/nothing":   "<nil>",
		"scalekit/permissions/b":           "<nil>",
		"scalekit/deleted/b/id":            "perm_2",
		"scalekit/deleted/a":               "<nil>",
		"scalekit/sync/count":              "1",
		"scalekit/nothing":                 "<nil>",
		"app/x":                            "y",
		"nothing":                          "<nil>",
	} {
		if got := fmt.Sprint(readIn(t, d, txn, strings.Split(path, "/")...)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	everything := readIn(t, d, txn)
	if field(field(everything, "app"), "x") != "y" || field(field(field(everything, "scalekit"), "permissions"), "a") == nil {
		t.Errorf("everything: %v", everything)
	}
	for _, path := range []string{"scalekit", "scalekit/permissions"} {
		nonEmpty, err := d.NonEmpty(context.Background(), txn)(strings.Split(path, "/"))
		if err != nil || !nonEmpty {
			t.Errorf("NonEmpty(%s): %v, %v: a policy could claim the package", path, nonEmpty, err)
		}
	}
	if nonEmpty, err := d.NonEmpty(context.Background(), txn)([]string{"authz"}); err != nil || nonEmpty {
		t.Errorf("NonEmpty(authz): %v, %v", nonEmpty, err)
	}
	if _, err := d.NewTransaction(context.Background(), storage.WriteParams); err == nil {
		t.Error("a write transaction was given out")
	}
	if err := d.Truncate(context.Background(), txn, storage.TransactionParams{}, nil); err == nil {
		t.Error("it was truncated")
	}
}

func TestWholeDocument(t *testing.T) {
	c := open(t, t.TempDir(), func(o *catalog.Options) { o.MaxDocument = catalog.Limit{Records: 3, Bytes: 200} })
	d := c.Document(inmem.NewFromObject(map[string]any{}))
	apply(t, c, event(permission.Created, 1, "1", "a"), event(permission.Created, 2, "2", "b"))

	pinned := begin(t, d)
	defer d.Abort(context.Background(), pinned)
	apply(t, c, event(permission.Deleted, 3, "1", "a"), event(permission.Created, 4, "3", "c"), event(permission.Created, 5, "4", "d"))
	if got := readIn(t, d, pinned, "scalekit", "permissions"); len(got.(map[string]any)) != 2 || field(got, "a") == nil || field(got, "b") == nil {
		t.Errorf("the pinned revision: %v", got)
	}
	if got := readIn(t, d, pinned, "scalekit", "deleted"); len(got.(map[string]any)) != 0 {
		t.Errorf("the pinned revision's deletions: %v", got)
	}
	if got := read(t, c, "scalekit", "permissions"); len(got.(map[string]any)) != 3 || field(got, "c") == nil {
		t.Errorf("the newest revision: %v", got)
	}

	apply(t, c, event(permission.Created, 6, "5", "e"))
	txn := begin(t, d)
	defer d.Abort(context.Background(), txn)
	_, err := d.Read(context.Background(), txn, storage.Path{"scalekit", "permissions"})
	if err == nil || !strings.Contains(err.Error(), "--max-document") {
		t.Errorf("over the records limit: %v", err)
	}
	if got := readIn(t, d, txn, "scalekit", "permissions", "e"); got == nil {
		t.Error("a keyed read failed beyond the limit")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Read(ctx, txn, storage.Path{"scalekit", "deleted"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWholeDocumentByteLimit(t *testing.T) {
	only := event(permission.Created, 1, "1", "a")
	size := int64(len(only.PermissionID) + len(only.Name) + len(only.Description) + len(only.ID))
	c := open(t, t.TempDir(), func(o *catalog.Options) { o.MaxDocument = catalog.Limit{Records: 100, Bytes: size} })
	d := c.Document(inmem.NewFromObject(map[string]any{}))
	apply(t, c, only)
	if got := read(t, c, "scalekit", "permissions"); len(got.(map[string]any)) != 1 {
		t.Errorf("got %v", got)
	}
	apply(t, c, event(permission.Created, 1, "2", "b"))
	txn := begin(t, d)
	defer d.Abort(context.Background(), txn)
	if _, err := d.Read(context.Background(), txn, storage.Path{"scalekit", "permissions"}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(size, " bytes")) {
		t.Errorf("got %v", err)
	}
}

func TestApplyAfterClose(t *testing.T) {
	c := open(t, t.TempDir())
	closeNow(t, c)
	if _, err := c.Apply(context.Background(), event(permission.Created, 1, "1", "a")); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestApplyRefusesWhatItCantKeep(t *testing.T) {
	c := open(t, t.TempDir())
	for name, change := range map[string]func(*permission.Event){
		"name":        func(e *permission.Event) { e.Name = "a\x00b" },
		"id":          func(e *permission.Event) { e.PermissionID = "" },
		"description": func(e *permission.Event) { e.Description = strings.Repeat("x", permission.MaxDescription+1) },
		"occurred_at": func(e *permission.Event) { e.OccurredAt = 0 },
	} {
		e := event(permission.Created, 1, "1", "a")
		change(&e)
		if _, err := c.Apply(context.Background(), e); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := c.Sync().Revision; got != 0 {
		t.Errorf("revision %d", got)
	}
}
