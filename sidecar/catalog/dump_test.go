package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

func dump(t testing.TB, c *catalog.Catalog) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Dump(context.Background(), &b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func restore(t testing.TB, c *catalog.Catalog, text string) int {
	t.Helper()
	content, err := catalog.ReadDump(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := c.Restore(context.Background(), content, nil)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// states returns a dump without its header, which tells of the file.
func states(dump string) string {
	_, rest, _ := strings.Cut(dump, "\n")
	return rest
}

func TestADumpRestoredElsewhereSaysTheSame(t *testing.T) {
	from := open(t, t.TempDir())
	apply(t, from, event(permission.Created, 1, "1", "a"), event(permission.Created, 2, "2", "b"), event(permission.Updated, 3, "2", "b"),
		event(permission.Deleted, 4, "1", "a"), event(permission.Updated, 9, "1", "a"))
	text := dump(t, from)
	into := open(t, t.TempDir())
	if got := restore(t, into, text); got != 2 {
		t.Errorf("%d states changed, want 2", got)
	}
	if dump(t, into) == text {
		t.Error("two files have one epoch")
	}
	if got, want := states(dump(t, into)), states(text); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got, want := into.Sync(), from.Sync()
	if got.Digest != want.Digest || got.EventID != want.EventID || got.AsOf != want.AsOf || got.Complete || got.Count != want.Count {
		t.Errorf("got %+v, want %+v", got, want)
	}
	revision := got.Revision
	if changed := restore(t, into, text); changed != 0 || into.Sync().Revision != revision {
		t.Errorf("restoring again changed %d states, revision %d to %d", changed, revision, into.Sync().Revision)
	}
}

func TestADumpOfACompleteCatalogCompletes(t *testing.T) {
	from := open(t, t.TempDir())
	apply(t, from, event(permission.Created, 1, "1", "a"))
	complete := strings.Replace(dump(t, from), `"complete":false`, `"complete":true`, 1)
	into := open(t, t.TempDir())
	restore(t, into, complete)
	if !into.Sync().Complete {
		t.Error("not complete")
	}
	if !strings.Contains(dump(t, into), `"complete":true`) {
		t.Error("its dump isn't, either")
	}
	restore(t, into, dump(t, from))
	if !into.Sync().Complete {
		t.Error("the dump of an incomplete one took it back")
	}
}

func TestRestoreKeepsWhatIsNewer(t *testing.T) {
	from := open(t, t.TempDir())
	apply(t, from, event(permission.Created, 1, "1", "a"))
	into := open(t, t.TempDir())
	apply(t, into, event(permission.Deleted, 2, "1", "a"))
	if changed := restore(t, into, dump(t, from)); changed != 0 || read(t, into, "scalekit", "permissions", "a") != nil {
		t.Errorf("%d states changed: an old dump brought a deleted permission back", changed)
	}
}

func TestDumpThroughRestoreIsTheIdentity(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from, into := open(t, t.TempDir()), open(t, t.TempDir())
		for _, e := range permissiontest.Histories().Draw(rt, "history") {
			apply(t, from, e)
		}
		restore(t, into, dump(t, from))
		if got, want := states(dump(t, into)), states(dump(t, from)); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		if got, want := into.Sync(), from.Sync(); got.Digest != want.Digest || got.EventID != want.EventID {
			rt.Fatalf("got %+v, want %+v", got, want)
		}
		closeNow(t, from)
		closeNow(t, into)
	})
}

func TestReadDumpRefuses(t *testing.T) {
	c := open(t, t.TempDir())
	apply(t, c, event(permission.Created, 1, "1", "a"), event(permission.Deleted, 2, "2", "b"))
	good := dump(t, c)
	for want, bad := range map[string]string{
		"it is empty":                         "",
		"line 1: format: want":                strings.Replace(good, "postern-dump/1", "postern-dump/2", 1),
		"2 states and 1 came; it was cut off": good[:strings.LastIndex(good[:len(good)-1], "\n")+1],
		"line 2: unexpected EOF":              good[:strings.Index(good, "\n")+20],
		"line 2: kind: want":                  strings.Replace(good, `"kind":"created"`, `"kind":"revived"`, 1),
		"line 2: source: want":                strings.Replace(good, `"source":"webhook"`, `"source":"hearsay"`, 1),
		"line 2: name: want 1 to 256 bytes":   strings.Replace(good, `"name":"a"`, `"name":""`, 1),
		"line 3: content: digest: want":       good[:strings.LastIndex(good, `"content":"`)] + `"content":"zz"}` + "\n",
		"newest: occurred_at: want":           strings.Replace(good, `"occurred_at":"2024`, `"occurred_at":"x`, 1),
		`unknown field "extra"`:               strings.Replace(good, `{"id"`, `{"extra":1,"id"`, 1),
		"line 2: want one JSON object":        strings.Replace(good, "}\n{\"id\":\"perm_1\"", "}\n{\"id\":\"perm_1\"}{\"id\":\"perm_1\"", 1),
		"want at most 65536 bytes":            good + strings.Repeat("x", 1<<20),
		"line 3: created_at, description":     strings.Replace(good, `"name":"b",`, `"name":"b","description":"x",`, 1),
	} {
		if _, err := catalog.ReadDump(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestRestoreRefusesAnotherEnvironment(t *testing.T) {
	from := open(t, t.TempDir(), func(o *catalog.Options) { o.EnvironmentID = "env_other" })
	apply(t, from, event(permission.Created, 1, "1", "a"))
	content, err := catalog.ReadDump(strings.NewReader(dump(t, from)))
	if err != nil {
		t.Fatal(err)
	}
	into := open(t, t.TempDir())
	if _, err := into.Restore(context.Background(), content, nil); !errors.Is(err, catalog.ErrEnvironment) || into.Sync().Revision != 0 {
		t.Errorf("got %v at revision %d", err, into.Sync().Revision)
	}
}

// What ReadDump takes can be restored, and its dump restores to itself.
func FuzzReadDump(f *testing.F) {
	c := open(f, f.TempDir())
	f.Add(dump(f, c))
	apply(f, c, event(permission.Created, 1, "1", "a"), event(permission.Deleted, 2, "2", "b"))
	f.Add(dump(f, c))
	f.Add(`{"format":"postern-dump/1","states":1}` + "\n" + `{"id":"a","name":"b","kind":"updated","occurred_at":"2024-01-15T10:30:00Z","source":"restore"}`)
	f.Fuzz(func(t *testing.T, text string) {
		content, err := catalog.ReadDump(strings.NewReader(text))
		if err != nil {
			return
		}
		dir := t.TempDir()
		into := open(t, dir, func(o *catalog.Options) { o.EnvironmentID = content.EnvironmentID })
		if _, err := into.Restore(context.Background(), content, nil); err != nil {
			t.Fatal(err)
		}
		again, err := catalog.ReadDump(strings.NewReader(dump(t, into)))
		if err != nil {
			t.Fatalf("its own dump can't be read: %v", err)
		}
		revision := into.Sync().Revision
		if changed, err := into.Restore(context.Background(), again, nil); err != nil || changed != 0 || into.Sync().Revision != revision {
			t.Fatalf("its own dump changed %d states: %v", changed, err)
		}
		closeNow(t, into)
		sound(t, dir)
	})
}

func BenchmarkApply(b *testing.B) {
	c := open(b, b.TempDir())
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := c.Apply(context.Background(), event(permission.Updated, i, fmt.Sprint(i%1000), fmt.Sprint("name:", i%1000))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
