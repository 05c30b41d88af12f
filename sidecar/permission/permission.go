// Package permission is Postern's vocabulary: what a permission event says, what
// the catalog remembers of it, and the merge rule that leads from one to the other.
//
// Its promise: the state of a permission, and the state that decides for a name,
// are functions of the *set* of events that came in, whatever their order,
// repetition or delay. The package is pure (no clock, no lock, no I/O) and imports
// the standard library alone.
package permission

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what the catalog keeps, in bytes. Scalekit documents 32 characters
// for an id, 100 for a name and 2,000 for a description; Postern takes more, since a
// rejected webhook is retried and then lost for ever.
const (
	MaxID          = 256
	MaxName        = 256
	MaxDescription = 8000 // 2,000 characters of at most four bytes each
)

// Kind says what happened to a permission. The order of the constants is part of
// the merge rule: at one instant a deletion outranks an update outranks a creation.
type Kind uint8

// The three things that Scalekit reports about a permission.
const (
	Created Kind = iota + 1
	Updated
	Deleted
)

var kindNames = map[Kind]string{Created: "created", Updated: "updated", Deleted: "deleted"}

// String returns "created", "updated" or "deleted".
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind is the inverse of [Kind.String].
func ParseKind(name string) (Kind, error) {
	for kind, known := range kindNames {
		if name == known {
			return kind, nil
		}
	}
	return 0, fmt.Errorf("kind: want created, updated or deleted, got %q", name)
}

// Source says on whose word a state stands.
type Source string

// The sources of a state. Only SourceWebhook carries an event id.
const (
	SourceWebhook   Source = "webhook"
	SourceReconcile Source = "reconcile"
	SourceRestore   Source = "restore"
)

// Event is one verified permission event.
type Event struct {
	ID            string  // Scalekit's event id, "evt_…"
	Kind          Kind    // what happened
	OccurredAt    Instant // when, by Scalekit's clock: the only order there is
	EnvironmentID string  // the Scalekit environment it happened in, "env_…"
	PermissionID  string  // "perm_…", made anew when a permission is created again
	Name          string  // what policies and tokens call it, "data:manage"
	Description   string  // empty when absent
}

// State is what the catalog knows of one permission id: the outcome of [Merge]
// over everything that was heard of it. States are values; compare them with ==.
type State struct {
	ID          string
	Name        string
	Description string // empty for a deletion, whose Content still covers the one it came with
	Kind        Kind
	OccurredAt  Instant
	EventID     string // empty for a state that rests on a listing
	Source      Source
	CreatedAt   Instant // earliest creation seen, zero when none was; always zero for a deletion
	Content     Digest  // [ContentDigest] of id, name and description
	Marks
}

// Marks are what listings of Scalekit's API say about an id beside its content, by the
// listings' own clock (their Date header). Each is zero where no listing said so, and the
// latest time stands.
type Marks struct {
	// AbsentAt: a listing didn't name the id, and a later one confirmed it. The id counts as
	// deleted until a newer event or a later listing shows it.
	AbsentAt Instant
	// SeenAt: a listing named an id that was marked absent before.
	SeenAt Instant
	// ConfirmedAt: two listings agreed on an id's content against what events say. What
	// happened until then, a deletion event included, gives way to that content.
	ConfirmedAt Instant
}

func (m Marks) latest(other Marks) Marks {
	return Marks{
		AbsentAt:    max(m.AbsentAt, other.AbsentAt),
		SeenAt:      max(m.SeenAt, other.SeenAt),
		ConfirmedAt: max(m.ConfirmedAt, other.ConfirmedAt),
	}
}

// State returns the state that the event alone would lead to.
func (e Event) State() State {
	s := State{
		ID:          e.PermissionID,
		Name:        e.Name,
		Description: e.Description,
		Kind:        e.Kind,
		OccurredAt:  e.OccurredAt,
		EventID:     e.ID,
		Source:      SourceWebhook,
		Content:     ContentDigest(e.PermissionID, e.Name, e.Description),
	}
	if e.Kind == Created {
		s.CreatedAt = e.OccurredAt
	}
	if e.Kind == Deleted {
		s.Description = ""
	}
	return s
}

// Live reports whether the state is that of a permission that exists.
func (s State) Live() bool { return s.Kind.live() && !s.Absent() }

// Absent reports whether nothing but a listing says that the permission is gone.
func (s State) Absent() bool { return s.Kind.live() && s.AbsentAt != 0 && s.AbsentAt >= s.shownAt() }

// shownAt is when the id was last known to exist, by Scalekit's clock.
func (s State) shownAt() Instant { return max(s.OccurredAt, s.SeenAt, s.ConfirmedAt) }

// Deletion returns when a state that isn't live was deleted, and the id of the event that
// said so: empty where a listing did.
func (s State) Deletion() (at Instant, eventID string) {
	if s.Absent() {
		return s.AbsentAt, ""
	}
	return s.OccurredAt, s.EventID
}

func (k Kind) live() bool { return k == Created || k == Updated }

// Check returns an error that names the first field of s that the catalog can't keep.
func (s State) Check() error {
	if err := CheckText("id", s.ID, 1, MaxID); err != nil {
		return err
	}
	if err := CheckText("name", s.Name, 1, MaxName); err != nil {
		return err
	}
	if !utf8.ValidString(s.Description) {
		return errors.New("description: want UTF-8")
	}
	if len(s.Description) > MaxDescription {
		return fmt.Errorf("description: want at most %d bytes, got %d", MaxDescription, len(s.Description))
	}
	if _, ok := kindNames[s.Kind]; !ok {
		return fmt.Errorf("kind: want created, updated or deleted, got %s", s.Kind)
	}
	if s.OccurredAt <= 0 {
		return fmt.Errorf("occurred_at: want an instant after 1970, got %s", s.OccurredAt)
	}
	return CheckText("event_id", s.EventID, 0, MaxID)
}

// CheckText returns an error unless text has from least to most bytes of UTF-8 and no
// control characters. The text itself is left out of the error: it is a foreign
// string of any length.
func CheckText(field, text string, least, most int) error {
	if len(text) < least || len(text) > most {
		return fmt.Errorf("%s: want %d to %d bytes, got %d", field, least, most, len(text))
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s: want UTF-8", field)
	}
	if i := strings.IndexFunc(text, isControl); i >= 0 {
		return fmt.Errorf("%s: want no control characters, got one at byte %d", field, i)
	}
	return nil
}

// isControl reports C0 and C1 controls and DEL. Zero bytes among them separate the
// parts of the catalog's keys, so a name that bears one must never get there.
func isControl(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

// Compare orders states by the key of the merge rule: instant, then kind, then event
// id as bytes, then content. The source comes last of all, so that the order is total;
// it can only tell apart states that say the same.
func Compare(a, b State) int {
	return cmp.Or(
		cmp.Compare(a.OccurredAt, b.OccurredAt),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.EventID, b.EventID),
		a.Content.Compare(b.Content),
		cmp.Compare(a.Source, b.Source),
	)
}

// Merge joins two states of the same permission id. It is commutative and idempotent. A
// deletion event is final for its id, because Scalekit makes a new id for a permission that
// is created again; otherwise the greater key wins. Where two listings confirmed what the id
// is, that wins over all that happened until then.
//
// It is associative, too, so that no order matters, as long as nothing but a confirmation
// follows a deletion event: an event of the id that is newer than both is lost when it comes
// between them. The next listing brings back what it said.
func Merge(a, b State) State {
	marks := a.latest(b.Marks)
	winner := a
	if outranks(b, a, marks.ConfirmedAt) {
		winner = b
	}
	winner.Marks = marks
	winner.CreatedAt = 0
	if winner.Kind.live() {
		winner.CreatedAt = earliest(a.CreatedAt, b.CreatedAt)
	}
	return winner
}

func outranks(challenger, holder State, confirmed Instant) bool {
	if overruled := holder.overruled(confirmed); overruled != challenger.overruled(confirmed) {
		return overruled
	}
	if challenger.Kind.live() != holder.Kind.live() {
		return holder.Kind.live()
	}
	return Compare(challenger, holder) > 0
}

// overruled reports whether a confirmation of that instant leaves no room for s.
func (s State) overruled(confirmed Instant) bool {
	return s.ConfirmedAt < confirmed && s.OccurredAt <= confirmed
}

func earliest(a, b Instant) Instant {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Decides returns which of the states of different ids that bear one name decides for
// the name: the one with the greatest key, deletion events included. So a deletion that was
// lost for an old id can't bring the name back when a newer id of it is deleted. The instant
// of the key is when the id was last known to exist. An id that listings miss, and no event
// deleted, decides only where nothing else bears the name: the listing that misses it names
// whoever took its place. Without any state it returns the zero State, which isn't live.
func Decides(bearers []State) State {
	var decider State
	for _, s := range bearers {
		if decider == (State{}) || decidesOver(s, decider) {
			decider = s
		}
	}
	return decider
}

func decidesOver(challenger, holder State) bool {
	if challenger.Absent() != holder.Absent() {
		return holder.Absent()
	}
	return cmp.Or(cmp.Compare(challenger.shownAt(), holder.shownAt()), Compare(challenger, holder)) > 0
}

// Outcome says what an event did to the catalog.
type Outcome string

// The outcomes of applying an event. All of them are successes: the catalog now
// holds what the event says, or already knew better.
const (
	OutcomeApplied   Outcome = "applied"   // the catalog changed
	OutcomeUnchanged Outcome = "unchanged" // it already held this, or something newer
	OutcomeDuplicate Outcome = "duplicate" // the same event id with the same content came before
	OutcomeConflict  Outcome = "conflict"  // the same event id came before with another content; the merge decided
)
