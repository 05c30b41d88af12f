// Package listing reads what GET /api/v1/permissions of Scalekit's API answers: one page
// after the other, and whether they make a whole.
//
// Its promise: states come out only of pages that were understood to the last field, and
// only when nothing shows that a part is missing. What is taken for complete denies for good
// what isn't in it. Nothing here fetches; who calls bounds the text of a page.
package listing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/strictjson"
)

// MaxPage is the largest page, in bytes; a hundred permissions have about 30 KB.
const MaxPage = 4 << 20

// depth is how deep a page may nest. Scalekit's own nest three times.
const depth = 16

// PartialError tells why pages don't make a whole listing. Fetching all of them again may
// help: nothing promises that they show one moment.
type PartialError struct{ reason string }

// Error returns the reason.
func (e *PartialError) Error() string { return e.reason }

func partial(format string, values ...any) error {
	return &PartialError{fmt.Sprintf(format, values...)}
}

// Page is one page that was read.
type Page struct {
	Next string // next_page_token, empty on the last page
	// states holds one for each entry. Those of Scalekit's own permissions have an id and
	// nothing else: they count for total_size alone.
	states []permission.State
	total  *uint64 // total_size, nil when the page doesn't tell it
}

// Len returns the number of entries, Scalekit's own permissions included.
func (p Page) Len() int { return len(p.states) }

// ParsePage reads one page; its states get the source. An error names the entry and the field.
func ParsePage(text []byte, source permission.Source) (Page, error) {
	if err := strictjson.Check(text, depth); err != nil {
		return Page{}, err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return Page{}, err
	}
	var page Page
	if page.Next, err = document.OptionalText("next_page_token"); err != nil {
		return Page{}, err
	}
	if page.total, err = readTotal(document["total_size"]); err != nil {
		return Page{}, err
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(document["permissions"], &entries); err != nil || entries == nil {
		return Page{}, fmt.Errorf("permissions: want an array, got %s", strictjson.KindOf(document["permissions"]))
	}
	page.states = make([]permission.State, len(entries))
	for i, entry := range entries {
		if page.states[i], err = readEntry(fmt.Sprintf("permissions[%d]", i), entry, source); err != nil {
			return Page{}, err
		}
	}
	return page, nil
}

// readTotal reads how many permissions a page says there are.
func readTotal(raw json.RawMessage) (*uint64, error) {
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	text := strings.Trim(string(raw), `"`) // JSON of Protocol Buffers tells 64-bit numbers as strings
	total, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return nil, fmt.Errorf("total_size: want a whole number, got %s", strictjson.KindOf(raw))
	}
	return &total, nil
}

// readEntry reads an entry, which path names. What Scalekit listed is as good as an event
// of the time at which the permission changed last, but isn't one: it has no event id.
func readEntry(path string, raw json.RawMessage, source permission.Source) (permission.State, error) {
	entry, err := strictjson.Parse(raw)
	if err != nil {
		return permission.State{}, fmt.Errorf("%s: %w", path, err)
	}
	id, err := entry.Text(path + ".id")
	if err != nil {
		return permission.State{}, err
	}
	own, err := entry.OptionalBoolean(path + ".is_scalekit_permission")
	if err != nil {
		return permission.State{}, err
	}
	if own {
		return permission.State{ID: id}, nil
	}
	s := permission.State{ID: id, Kind: permission.Updated, Source: source}
	if s.Name, err = entry.Text(path + ".name"); err != nil {
		return permission.State{}, err
	}
	if s.Description, err = entry.OptionalText(path + ".description"); err != nil {
		return permission.State{}, err
	}
	if err := readTimes(&s, path, entry); err != nil {
		return permission.State{}, err
	}
	s.Content = permission.ContentDigest(s.ID, s.Name, s.Description)
	if err := s.Check(); err != nil {
		return permission.State{}, fmt.Errorf("%s.%w", path, err)
	}
	return s, nil
}

func readTimes(s *permission.State, path string, entry strictjson.Object) (err error) {
	if s.CreatedAt, err = optionalInstant(path+".create_time", entry); err != nil {
		return err
	}
	if s.OccurredAt, err = optionalInstant(path+".update_time", entry); err != nil {
		return err
	}
	switch s.OccurredAt {
	case 0:
		if s.CreatedAt == 0 {
			return fmt.Errorf("%s.update_time: want it or create_time, got none", path)
		}
		s.OccurredAt, s.Kind = s.CreatedAt, permission.Created
	case s.CreatedAt:
		s.Kind = permission.Created
	}
	return nil
}

// optionalInstant returns zero for a time that isn't told.
func optionalInstant(path string, entry strictjson.Object) (permission.Instant, error) {
	text, err := entry.OptionalText(path)
	if err != nil || text == "" {
		return 0, err
	}
	at, err := permission.ParseInstant(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w, got %.40q", path, err, text)
	}
	return at, nil
}

// Pages collects the pages of one listing, in their order. The zero Pages is ready for use.
type Pages struct {
	count  int
	states []permission.State
	total  *uint64 // what the pages said by now, nil while none did
	more   bool    // the last page has a next_page_token
}

// Count returns the number of pages.
func (p *Pages) Count() int { return p.count }

// Entries returns the number of entries of all pages, an id counted as often as it came.
func (p *Pages) Entries() int { return len(p.states) }

// Add takes the next page, unless it is none of the same listing: a [PartialError] says why.
func (p *Pages) Add(page Page) error {
	if p.count > 0 && !p.more {
		return partial("next_page_token: the page before has none, so this one isn't of the same listing")
	}
	if page.total != nil {
		if p.total != nil && *p.total != *page.total {
			return partial("total_size: got %d, and %d in a page before: the permissions changed while they were listed", *page.total, *p.total)
		}
		p.total = page.total
	}
	p.count++
	p.more = page.Next != ""
	p.states = append(p.states, page.states...)
	return nil
}

// Whole returns the live permissions of the environment, each id once and in the order of
// ids, and leaves Scalekit's own out. A [PartialError] says what shows that a part is missing.
// The pages belong to the answer then: none is added after this.
func (p *Pages) Whole() ([]permission.State, error) {
	if p.count == 0 {
		return nil, errors.New("it is empty")
	}
	if p.more {
		return nil, partial("page %d, the last one, has a next_page_token, so pages are missing", p.count)
	}
	slices.SortFunc(p.states, func(a, b permission.State) int { return strings.Compare(a.ID, b.ID) })
	states := slices.Compact(p.states) // a permission that moves to the next page is listed twice
	for i := range states[:max(0, len(states)-1)] {
		if states[i].ID == states[i+1].ID {
			return nil, partial("permission %.64q is listed twice with different content: it changed while the pages were fetched", states[i].ID)
		}
	}
	if p.total != nil && *p.total != uint64(len(states)) {
		return nil, partial("the pages hold %d different permissions and total_size is %d", len(states), *p.total)
	}
	return slices.DeleteFunc(states, func(s permission.State) bool { return s.Kind == 0 }), nil
}
