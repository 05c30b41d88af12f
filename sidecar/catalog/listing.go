package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/strictjson"
)

// A listing is what GET /api/v1/permissions of Scalekit's API answers: one JSON document a
// page, one after the other, with whatever white space between them.
const (
	// largestListingPage bounds one document, in bytes; a hundred permissions have about 30 KB.
	largestListingPage = 4 << 20
	// listingDepth is how deep a document may nest. Scalekit's own pages nest three times.
	listingDepth = 16
)

// ErrListing is wrapped by the errors of a listing that isn't one or isn't whole.
var ErrListing = errors.New("reading the listing")

// howToList ends the error of a listing that isn't whole.
const howToList = "fetch all pages again with page_size=100, each with the next_page_token of the page before, until that is empty"

// listing is what was read of a listing by now.
type listing struct {
	pages int
	// states holds one for each entry. Those of Scalekit's own permissions have an id and
	// nothing else: they count for total_size alone.
	states []permission.State
	total  *uint64 // total_size, nil while no page told it
	more   bool    // the last page has a next_page_token
}

// ReadListing reads a whole listing. An error wraps [ErrListing] and names the page, the entry
// and the field; nothing is returned then. Permissions of Scalekit's own are left out.
func ReadListing(r io.Reader) (*Restorable, error) {
	bounded := &boundedReader{from: r}
	documents := json.NewDecoder(bounded)
	l := &listing{}
	for {
		var text json.RawMessage
		bounded.left = largestListingPage
		err := documents.Decode(&text)
		if errors.Is(err, io.EOF) {
			break
		}
		l.pages++
		if err == nil {
			err = l.page(text)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: page %d: %w", ErrListing, l.pages, err)
		}
	}
	states, err := l.whole()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListing, err)
	}
	return &Restorable{Listing: true, complete: true, states: states}, nil
}

// boundedReader fails when more is read than what is left.
type boundedReader struct {
	from io.Reader
	left int
}

// Read reads no more than what is left.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("want at most %d bytes in one document; list with page_size=100", largestListingPage)
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// page reads one document.
func (l *listing) page(text []byte) error {
	if l.pages > 1 && !l.more {
		return fmt.Errorf("next_page_token: the page before has none, so this one isn't of the same listing; %s", howToList)
	}
	if err := strictjson.Check(text, listingDepth); err != nil {
		return err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return err
	}
	next, err := document.OptionalText("next_page_token")
	if err != nil {
		return err
	}
	l.more = next != ""
	if err := l.announce(document["total_size"]); err != nil {
		return err
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(document["permissions"], &entries); err != nil || entries == nil {
		return fmt.Errorf("permissions: want an array, got %s", strictjson.KindOf(document["permissions"]))
	}
	for i, entry := range entries {
		s, err := readListed(fmt.Sprintf("permissions[%d]", i), entry)
		if err != nil {
			return err
		}
		l.states = append(l.states, s)
	}
	return nil
}

// announce notes how many permissions a page says there are.
func (l *listing) announce(raw json.RawMessage) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	text := strings.Trim(string(raw), `"`) // JSON of Protocol Buffers tells 64-bit numbers as strings
	total, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return fmt.Errorf("total_size: want a whole number, got %s", strictjson.KindOf(raw))
	}
	if l.total != nil && *l.total != total {
		return fmt.Errorf("total_size: got %d, and %d in a page before: the permissions changed while they were listed; %s", total, *l.total, howToList)
	}
	l.total = &total
	return nil
}

// readListed reads an entry, which path names. What Scalekit listed is as good as an event
// of the time at which the permission changed last, but isn't one: it has no event id.
func readListed(path string, raw json.RawMessage) (permission.State, error) {
	entry, err := strictjson.Parse(raw)
	if err != nil {
		return permission.State{}, fmt.Errorf("%s: %w", path, err)
	}
	id, err := entry.Text(path + ".id")
	if err != nil {
		return permission.State{}, err
	}
	own, err := optionalBoolean(entry, "is_scalekit_permission")
	if err != nil {
		return permission.State{}, fmt.Errorf("%s.%w", path, err)
	}
	if own {
		return permission.State{ID: id}, nil
	}
	s := permission.State{ID: id, Kind: permission.Updated, Source: permission.SourceRestore}
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

func optionalBoolean(entry strictjson.Object, key string) (bool, error) {
	switch raw := entry[key]; string(raw) {
	case "true":
		return true, nil
	case "false", "null", "":
		return false, nil
	default:
		return false, fmt.Errorf("%s: want true or false, got %s", key, strictjson.KindOf(raw))
	}
}

// whole returns the states of the listing, each id once and in the order of ids, unless
// something shows that a part is missing: what the catalog takes for complete denies for
// good what isn't in it.
func (l *listing) whole() ([]permission.State, error) {
	if l.pages == 0 {
		return nil, errors.New("it is empty")
	}
	if l.more {
		return nil, fmt.Errorf("page %d, the last one, has a next_page_token, so pages are missing; %s", l.pages, howToList)
	}
	slices.SortFunc(l.states, func(a, b permission.State) int { return strings.Compare(a.ID, b.ID) })
	states := slices.Compact(l.states) // a permission that moves to the next page is listed twice
	for i := range states[:max(0, len(states)-1)] {
		if states[i].ID == states[i+1].ID {
			return nil, fmt.Errorf("permission %.64q is listed twice with different content: it changed while the pages were fetched; %s", states[i].ID, howToList)
		}
	}
	if l.total != nil && *l.total != uint64(len(states)) {
		return nil, fmt.Errorf("the pages hold %d different permissions and total_size is %d; %s", len(states), *l.total, howToList)
	}
	return slices.DeleteFunc(states, func(s permission.State) bool { return s.Kind == 0 }), nil
}
