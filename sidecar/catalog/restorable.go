package catalog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Restorable is a dump or a listing that was read and checked as a whole.
type Restorable struct {
	EnvironmentID string // "env_…", of a dump; empty when the dumped catalog had none, and of a listing
	Listing       bool   // it came from Scalekit's API; its states are in the order of their ids
	complete      bool
	states        []permission.State
	roles         []permission.Role // of a dump; nil when it has none
	newest        eventKey          // of a dump; the zero key before the first event
}

// States returns the number of states in it, deletions of a dump included.
func (r *Restorable) States() int { return len(r.states) }

// sortByID brings the states into the order of their ids, and refuses an id that comes twice.
func (r *Restorable) sortByID() error {
	slices.SortFunc(r.states, func(a, b permission.State) int { return strings.Compare(a.ID, b.ID) })
	for i := 1; i < len(r.states); i++ {
		if r.states[i].ID == r.states[i-1].ID {
			return fmt.Errorf("permission %.64q comes twice, so that another line may be missing", r.states[i].ID)
		}
	}
	return nil
}

// longestPreamble is how far into a file the member stands that tells what it is, in bytes:
// the longest header of a dump fits, and so does all that Scalekit writes around a page.
const longestPreamble = longestDumpLine

var errNeither = errors.New(`it is neither a dump, whose first line has "format", nor a listing, whose documents have "permissions"`)

// ReadRestorable reads a whole dump or listing, whichever r holds. An error says where it
// isn't one; for a listing it wraps [ErrListing].
func ReadRestorable(r io.Reader) (*Restorable, error) {
	content := bufio.NewReaderSize(r, longestPreamble)
	preamble, err := content.Peek(longestPreamble)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	isListing, err := tellListing(preamble)
	switch {
	case err != nil:
		return nil, err
	case isListing:
		return ReadListing(content)
	default:
		return ReadDump(content)
	}
}

// tellListing tells a listing from a dump by the members of its first object.
func tellListing(preamble []byte) (bool, error) {
	tokens := json.NewDecoder(bytes.NewReader(preamble))
	if opening, err := tokens.Token(); err != nil || opening != json.Delim('{') {
		return false, errNeither
	}
	for tokens.More() {
		key, err := tokens.Token()
		if err != nil {
			return false, errNeither
		}
		if key == "permissions" {
			return true, nil
		}
		var value any
		if err := tokens.Decode(&value); err != nil {
			return false, errNeither
		}
		if text, ok := value.(string); ok && key == "format" && strings.HasPrefix(text, dumpFamily) {
			return false, nil
		}
	}
	return false, errNeither
}

// Absent counts the permissions that the catalog holds alive and the listing doesn't name.
// They were deleted without a webhook that came, or created after the listing was made: it
// takes a second listing to tell, so restoring one leaves them alone.
func (c *Catalog) Absent(ctx context.Context, listing *Restorable) (absent int, err error) {
	defer containDamage(&err)()
	rest := listing.states
	err = c.view(func(tx *bbolt.Tx) error {
		return forEachState(ctx, tx.Bucket(bucketStates), func(s permission.State) error {
			for len(rest) > 0 && rest[0].ID < s.ID {
				rest = rest[1:]
			}
			if !s.Live() || (len(rest) > 0 && rest[0].ID == s.ID) {
				return nil
			}
			decider, _, err := readDecider(tx, []byte(s.Name))
			if decider.ID == s.ID {
				absent++
			}
			return err
		})
	})
	return absent, err
}
