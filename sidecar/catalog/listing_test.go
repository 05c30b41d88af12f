package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

// entry is one permission as Scalekit lists it.
func entry(id, name, created, updated string) string {
	return fmt.Sprintf(`{"id":"perm_%s","name":%q,"description":"listed","create_time":%q,"update_time":%q,"is_scalekit_permission":false}`, id, name, created, updated)
}

const ownEntry = `{"id":"perm_own","name":"organizations:read","is_scalekit_permission":true}`

// listingPage is one page as Scalekit's API answers it.
func listingPage(next string, total int, entries ...string) string {
	return fmt.Sprintf(`{"permissions":[%s],"next_page_token":%q,"prev_page_token":"","total_size":%d}`, strings.Join(entries, ","), next, total)
}

func readListing(t testing.TB, text string) *catalog.Restorable {
	t.Helper()
	l, err := catalog.ReadRestorable(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !l.Listing || l.EnvironmentID != "" {
		t.Errorf("got %+v", l)
	}
	return l
}

func restoreListing(t testing.TB, c *catalog.Catalog, text string) (changed, absent int) {
	t.Helper()
	l := readListing(t, text)
	changed, err := c.Restore(context.Background(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if absent, err = c.Absent(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	return changed, absent
}

func TestAListingCompletesTheCatalog(t *testing.T) {
	c := open(t, t.TempDir())
	apply(t, c, event(permission.Created, 1, "kept", "kept"), event(permission.Created, 2, "gone", "gone"), event(permission.Deleted, 3, "gone", "gone"))
	before := c.Sync()
	text := listingPage("page2", 4, entry("1", "b", "2023-01-01T00:00:00Z", "2023-01-01T00:00:00Z"), ownEntry) + "\n" +
		listingPage("", 4, entry("2", "a", "2023-01-01T00:00:00.5Z", "2023-02-01T00:00:00+01:00"),
			`{"id":"perm_3","name":"c","create_time":"2023-01-01T00:00:00Z","update_time":null,"new":{"a":[1]}}`)
	if changed, absent := restoreListing(t, c, text); changed != 3 || absent != 1 {
		t.Errorf("%d states changed and %d are absent, want 3 and 1", changed, absent)
	}
	after := c.Sync()
	if !after.Complete || after.EventID != before.EventID || after.AsOf != before.AsOf || after.Count != before.Count+3 {
		t.Errorf("from %+v to %+v", before, after)
	}
	want := "map[created_at:2023-01-01T00:00:00.500000000Z description:listed event_id:<nil> id:perm_2 name:a source:restore updated_at:2023-01-31T23:00:00.000000000Z]"
	if got := fmt.Sprint(read(t, c, "scalekit", "permissions", "a")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, kind := range map[string]string{"a": "updated", "b": "created", "c": "created"} {
		if !strings.Contains(dump(t, c), fmt.Sprintf(`"name":%q,`, name)) || !strings.Contains(lineOf(dump(t, c), name), `"kind":"`+kind+`"`) {
			t.Errorf("%s: want kind %s in %s", name, kind, dump(t, c))
		}
	}
	if read(t, c, "scalekit", "permissions", "organizations:read") != nil {
		t.Error("Scalekit's own permission was taken")
	}
	if read(t, c, "scalekit", "permissions", "kept") == nil || read(t, c, "scalekit", "deleted", "gone") == nil {
		t.Error("what the listing doesn't name changed")
	}
	if changed, _ := restoreListing(t, c, text); changed != 0 || c.Sync() != after {
		t.Errorf("again: %d states changed, %+v", changed, c.Sync())
	}
}

// lineOf returns the line of a dump that tells of name.
func lineOf(dump, name string) string {
	for line := range strings.Lines(dump) {
		if strings.Contains(line, fmt.Sprintf(`"name":%q`, name)) {
			return line
		}
	}
	return ""
}

// A listing takes part in the merge like an event of its time: what is newer wins, and a
// deletion event stays final for its id.
func TestAListingIsMerged(t *testing.T) {
	const at5 = "2024-01-15T10:35:00Z" // minute 5 of event()
	for _, test := range []struct {
		name    string
		history []permission.Event
		source  string // of the permission "a" afterwards; empty: it isn't live
	}{
		{"an older event gives way", []permission.Event{event(permission.Updated, 4, "1", "a")}, "restore"},
		{"a newer event stays", []permission.Event{event(permission.Updated, 6, "1", "a")}, "webhook"},
		{"so does one of the same instant", []permission.Event{event(permission.Updated, 5, "1", "a")}, "webhook"},
		{"an older deletion is final", []permission.Event{event(permission.Deleted, 4, "1", "a")}, ""},
		{"a newer deletion of another id decides", []permission.Event{event(permission.Deleted, 6, "0", "a")}, ""},
		{"an older deletion of another id doesn't", []permission.Event{event(permission.Deleted, 4, "0", "a")}, "restore"},
	} {
		for _, listingFirst := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, listingFirst), func(t *testing.T) {
				c := open(t, t.TempDir())
				text := listingPage("", 1, entry("1", "a", "2024-01-15T10:30:00Z", at5))
				if listingFirst {
					restoreListing(t, c, text)
				}
				apply(t, c, test.history...)
				if !listingFirst {
					restoreListing(t, c, text)
				}
				record := read(t, c, "scalekit", "permissions", "a")
				if source, _ := field(record, "source").(string); source != test.source {
					t.Errorf("got %v", record)
				}
			})
		}
	}
}

// What is counted as absent decides for its name: an older id whose deletion was lost and
// whose name the listing knows under a newer one is not.
func TestAbsent(t *testing.T) {
	c := open(t, t.TempDir())
	apply(t, c, event(permission.Created, 1, "1", "a"), event(permission.Created, 1, "5", "b"), event(permission.Created, 1, "9", "c"), event(permission.Deleted, 2, "9", "c"))
	_, absent := restoreListing(t, c, listingPage("", 2, entry("2", "a", "2024-02-01T00:00:00Z", ""), entry("3", "d", "2024-02-01T00:00:00Z", "")))
	if absent != 1 {
		t.Errorf("%d absent, want b alone", absent)
	}
	if _, absent := restoreListing(t, c, listingPage("", 0)); absent != 3 {
		t.Errorf("%d absent from an empty listing, want 3", absent)
	}
}

func TestReadListingRefuses(t *testing.T) {
	a, b := entry("1", "a", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), entry("2", "b", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z")
	changed := strings.Replace(a, "listed", "changed", 1)
	one := func(entry string) string { return listingPage("", 1, entry) }
	for _, test := range []struct{ want, bad string }{
		{"page 1, the last one, has a next_page_token", listingPage("more", 2, a)},
		{"page 2: next_page_token: the page before has none", listingPage("", 2, a) + listingPage("", 2, b)},
		{"the pages hold 1 different permissions and total_size is 2; fetch all pages again with page_size=100", listingPage("", 2, a)},
		{"the pages hold 1 different permissions and total_size is 2", listingPage("x", 2, a) + listingPage("", 2, a)},
		{"page 2: total_size: got 3, and 2 in a page before", listingPage("x", 2, a) + listingPage("", 3, b)},
		{`permission "perm_1" is listed twice with different content`, listingPage("x", 2, a) + listingPage("", 2, changed)},
		{`permission "perm_own" is listed twice`, listingPage("", 1, ownEntry, strings.Replace(a, "perm_1", "perm_own", 1))},
		{"page 2: permissions[1].update_time: want an RFC 3339 time such as 2024-01-15T10:30:00.123456789Z, got \"yesterday\"", listingPage("x", 3, a) + listingPage("", 3, b, entry("3", "c", "", "yesterday"))},
		{"page 1: permissions[0].create_time: want a time from 1970 to 2262", one(entry("1", "a", "1960-01-01T00:00:00Z", ""))},
		{"page 1: permissions[0].update_time: want it or create_time, got none", one(entry("1", "a", "", ""))},
		{"page 1: permissions[0].id: want a string that isn't empty, got none", one(strings.Replace(a, `"id"`, `"ID"`, 1))},
		{"page 1: permissions[0].id: want 1 to 256 bytes", one(entry(strings.Repeat("1", 256), "a", "2024-01-01T00:00:00Z", ""))},
		{"page 1: permissions[0].name: want a string that isn't empty, got a number", one(strings.Replace(a, `"name":"a"`, `"name":1`, 1))},
		{"page 1: permissions[0].name: want no control characters", one(strings.Replace(a, `"name":"a"`, `"name":"a\u0000"`, 1))},
		{"page 1: permissions[0].description: want at most 8000 bytes", one(strings.Replace(a, "listed", strings.Repeat("x", 8001), 1))},
		{"page 1: permissions[0].is_scalekit_permission: want true or false, got a string", one(strings.Replace(a, `false`, `"false"`, 1))},
		{"page 1: permissions[0]: want an object, got an array", one("[]")},
		{"page 1: permissions: want an array, got an object", `{"permissions":{}}`},
		{"page 1: permissions: want an array, got null", `{"permissions":null}`},
		{"page 1: next_page_token: want a string", `{"permissions":[],"next_page_token":7}`},
		{"page 1: total_size: want a whole number, got a number", `{"permissions":[],"total_size":-1}`},
		{"page 1: want each key once", one(strings.Replace(a, `{"id"`, `{"id":"perm_0","id"`, 1))},
		{"page 1: want each key once", `{"permissions":[],"permissions":[` + a + `]}`},
		{"page 1: want UTF-8", one(strings.Replace(a, "listed", "\xff", 1))},
		{"page 1: want escaped surrogates in pairs", one(strings.Replace(a, `"name":"a"`, `"name":"\ud800"`, 1))},
		{"page 1: want at most 16 nested values", `{"permissions":[],"x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`},
		{"page 1: want at most 4194304 bytes in one document", `{"permissions":[` + strings.Repeat(" ", 5<<20) + `]}`},
		{"page 1: unexpected EOF", listingPage("", 1, a)[:60]},
		{"page 2: want an object, got an array", listingPage("x", 1, a) + "[]"},
		{"page 2: invalid character", listingPage("x", 1, a) + "x"},
		{"neither a dump", ""},
		{"neither a dump", "[]"},
		{"neither a dump", `{"code":16,"message":"unauthenticated"}`},
		{"neither a dump", `{"format":"something-else/1"}`},
	} {
		l, err := catalog.ReadRestorable(strings.NewReader(test.bad))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v %v, want %q", l, err, test.want)
		}
		if neither := strings.HasPrefix(test.want, "neither"); errors.Is(err, catalog.ErrListing) == neither {
			t.Errorf("%v is told as a listing's: %v", err, !neither)
		}
	}
}

func TestReadListingTakes(t *testing.T) {
	a := entry("1", "a", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z")
	for text, states := range map[string]int{
		listingPage("", 0):                                   0,
		`{"permissions":[]}`:                                 0,
		`{"total_size":"1","permissions":[` + a + `]}`:       1, // 64-bit numbers of Protocol Buffers
		listingPage("x", 1, a) + listingPage("", 1, a):       1, // it moved to the next page
		"\n " + listingPage("", 1, a) + "\n\n":               1,
		listingPage("", 2, a, ownEntry):                      1,
		`{"format":"of theirs",` + listingPage("", 1, a)[1:]: 1,
	} {
		l, err := catalog.ReadRestorable(strings.NewReader(text))
		if err != nil || l.States() != states {
			t.Errorf("%s: got %v, %v", text, l, err)
		}
	}
}

// pagesOf is a listing of n permissions that nobody holds in memory.
type pagesOf struct {
	n, next int
	buffer  []byte
}

func (p *pagesOf) Read(into []byte) (int, error) {
	if len(p.buffer) == 0 {
		if p.next == p.n {
			return 0, io.EOF
		}
		var entries []string
		for ; p.next < p.n && len(entries) < 100; p.next++ {
			entries = append(entries, entry(fmt.Sprint(p.next), fmt.Sprint("name:", p.next), "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"))
		}
		token := "more"
		if p.next == p.n {
			token = ""
		}
		p.buffer = []byte(listingPage(token, p.n, entries...))
	}
	n := copy(into, p.buffer)
	p.buffer = p.buffer[n:]
	return n, nil
}

func TestALongListing(t *testing.T) {
	const n = 12_345
	l, err := catalog.ReadRestorable(&pagesOf{n: n})
	if err != nil || l.States() != n {
		t.Fatalf("got %v, %v", l, err)
	}
	dir := t.TempDir()
	c := open(t, dir)
	if changed, err := c.Restore(context.Background(), l, nil); err != nil || changed != n || c.Sync().Count != n || !c.Sync().Complete {
		t.Errorf("%d changed, %v, %+v", changed, err, c.Sync())
	}
	closeNow(t, c)
	sound(t, dir)
}

// What ReadListing takes can be restored, once, completes the catalog, and is restored from
// a dump of that.
func FuzzReadListing(f *testing.F) {
	a := entry("1", "a", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z")
	f.Add(listingPage("", 2, a, ownEntry))
	f.Add(listingPage("x", 2, a) + "\n" + listingPage("", 2, entry("2", "b", "2024-01-01T00:00:00Z", "")))
	f.Add(`{"permissions":[],"total_size":"0"}`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := catalog.ReadListing(strings.NewReader(text))
		if err != nil {
			return
		}
		dir := t.TempDir()
		c := open(t, dir)
		if changed, err := c.Restore(context.Background(), l, nil); err != nil || changed != l.States() || !c.Sync().Complete || c.Sync().EventID != "" {
			t.Fatalf("%d of %d changed, %v, %+v", changed, l.States(), err, c.Sync())
		}
		if changed, err := c.Restore(context.Background(), l, nil); err != nil || changed != 0 {
			t.Fatalf("again: %d changed, %v", changed, err)
		}
		if absent, err := c.Absent(context.Background(), l); err != nil || absent != 0 {
			t.Fatalf("%d absent, %v", absent, err)
		}
		into := open(t, t.TempDir())
		if restore(t, into, dump(t, c)); into.Sync().Digest != c.Sync().Digest || !into.Sync().Complete {
			t.Fatalf("got %+v, want %+v", into.Sync(), c.Sync())
		}
		closeNow(t, into)
		closeNow(t, c)
		sound(t, dir)
	})
}
