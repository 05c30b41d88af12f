package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/postern-authz/postern/sidecar/listing"
	"github.com/postern-authz/postern/sidecar/permission"
)

// ErrListing is wrapped by the errors of a listing that isn't one or isn't whole.
var ErrListing = errors.New("reading the listing")

// howToList ends the error of a listing that isn't whole.
const howToList = "fetch all pages again with page_size=100, each with the next_page_token of the page before, until that is empty"

// ReadListing reads a whole listing: what GET /api/v1/permissions of Scalekit's API answers,
// one JSON document a page, one after the other, with whatever white space between them. An
// error wraps [ErrListing] and names the page, the entry and the field; nothing is returned
// then. Permissions of Scalekit's own are left out.
func ReadListing(r io.Reader) (*Restorable, error) {
	bounded := &boundedReader{from: r}
	documents := json.NewDecoder(bounded)
	var pages listing.Pages
	for number := 1; ; number++ {
		bounded.left = listing.MaxPage
		err := readPage(&pages, documents)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: page %d: %w", ErrListing, number, adviseOnListing(err))
		}
	}
	states, err := pages.Whole()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListing, adviseOnListing(err))
	}
	return &Restorable{Listing: true, complete: true, states: states}, nil
}

// readPage adds the next document. It returns [io.EOF] after the last one.
func readPage(pages *listing.Pages, documents *json.Decoder) error {
	var text json.RawMessage
	if err := documents.Decode(&text); err != nil {
		return err
	}
	page, err := listing.ParsePage(text, permission.SourceRestore)
	if err != nil {
		return err
	}
	return pages.Add(page)
}

// adviseOnListing tells who lists by hand what to do about pages that don't make a whole.
func adviseOnListing(err error) error {
	if notWhole := new(listing.PartialError); errors.As(err, &notWhole) {
		return fmt.Errorf("%w; %s", err, howToList)
	}
	return err
}

// boundedReader fails when more is read than what is left.
type boundedReader struct {
	from io.Reader
	left int
}

// Read reads no more than what is left.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("want at most %d bytes in one document; list with page_size=100", listing.MaxPage)
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
