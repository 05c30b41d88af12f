package listing_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/listing"
	"github.com/postern-authz/postern/sidecar/permission"
)

// entry is one permission as Scalekit lists it.
func entry(id, name string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"description":"listed","create_time":"2024-01-01T00:00:00Z","update_time":"2024-01-02T00:00:00Z","is_scalekit_permission":false}`, id, name)
}

const own = `{"id":"perm_own","name":"organizations:read","is_scalekit_permission":true}`

// page is one page as Scalekit's API answers it.
func page(next string, total int, entries ...string) string {
	return fmt.Sprintf(`{"permissions":[%s],"next_page_token":%q,"prev_page_token":"","total_size":%d}`, strings.Join(entries, ","), next, total)
}

// read collects pages as a reconciliation does.
func read(texts ...string) ([]permission.State, error) {
	var pages listing.Pages
	for _, text := range texts {
		p, err := listing.ParsePage([]byte(text), permission.SourceReconcile)
		if err != nil {
			return nil, err
		}
		if err := pages.Add(p); err != nil {
			return nil, err
		}
	}
	return pages.Whole()
}

func TestWhole(t *testing.T) {
	got, err := read(page("x", 3, entry("perm_2", "b"), own), page("", 3, entry("perm_1", "a"), entry("perm_2", "b")))
	want := func(id, name string) permission.State {
		return permission.State{
			ID: id, Name: name, Description: "listed", Kind: permission.Updated, Source: permission.SourceReconcile,
			CreatedAt: 1704067200e9, OccurredAt: 1704153600e9, Content: permission.ContentDigest(id, name, "listed"),
		}
	}
	if err != nil || !slices.Equal(got, []permission.State{want("perm_1", "a"), want("perm_2", "b")}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := read(`{"permissions":[]}`); err != nil || len(got) > 0 {
		t.Errorf("of an environment without permissions: got %v, %v", got, err)
	}
}

// Each of these is understood, and shows that a part is missing.
func TestPartial(t *testing.T) {
	a, b := entry("perm_1", "a"), entry("perm_2", "b")
	for _, test := range []struct {
		want  string
		pages []string
	}{
		{"page 1, the last one, has a next_page_token, so pages are missing", []string{page("x", 1, a)}},
		{"next_page_token: the page before has none, so this one isn't of the same listing", []string{page("", 2, a), page("", 2, b)}},
		{"total_size: got 3, and 2 in a page before: the permissions changed while they were listed", []string{page("x", 2, a), page("", 3, b)}},
		{`permission "perm_1" is listed twice with different content: it changed while the pages were fetched`, []string{page("x", 1, a), page("", 1, entry("perm_1", "b"))}},
		{"the pages hold 1 different permissions and total_size is 2", []string{page("x", 2, a), page("", 2, a)}},
		{"the pages hold 2 different permissions and total_size is 1", []string{page("", 1, a, own)}},
	} {
		states, err := read(test.pages...)
		if notWhole := new(listing.PartialError); fmt.Sprint(err) != test.want || !errors.As(err, &notWhole) || states != nil {
			t.Errorf("got %v, %v, want %s", states, err, test.want)
		}
	}
	if _, err := read(); fmt.Sprint(err) != "it is empty" {
		t.Errorf("without a page: %v", err)
	}
}

func TestPageCounts(t *testing.T) {
	var pages listing.Pages
	for range 2 {
		p, err := listing.ParsePage([]byte(page("x", 9, entry("perm_1", "a"), own)), permission.SourceReconcile)
		if err != nil || p.Next != "x" || p.Len() != 2 {
			t.Fatalf("got %+v, %v", p, err)
		}
		if err := pages.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	if pages.Count() != 2 || pages.Entries() != 4 {
		t.Errorf("got %d pages and %d entries", pages.Count(), pages.Entries())
	}
}

// What ParsePage takes can be kept by the catalog, and makes a whole or tells why it doesn't.
// That what it refuses is refused for a reason, catalog's tests of restoring show.
func FuzzParsePage(f *testing.F) {
	f.Add([]byte(page("", 2, entry("perm_1", "a"), own)))
	f.Add([]byte(page("next", 1, entry("perm_1", "a"))))
	f.Add([]byte(`{"permissions":[{"id":"1","name":"n","create_time":"2024-01-01T00:00:00.5+02:00","update_time":null}],"total_size":"1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := listing.ParsePage(text, permission.SourceReconcile)
		if err != nil {
			return
		}
		var pages listing.Pages
		if err := pages.Add(p); err != nil {
			t.Fatal(err)
		}
		states, err := pages.Whole()
		if notWhole := new(listing.PartialError); err != nil && !errors.As(err, &notWhole) {
			t.Fatalf("got %v", err)
		}
		for i, s := range states {
			if err := s.Check(); err != nil || !s.Live() || s.Source != permission.SourceReconcile || s.EventID != "" || (i > 0 && states[i-1].ID >= s.ID) {
				t.Fatalf("got %+v, %v", s, err)
			}
		}
	})
}
