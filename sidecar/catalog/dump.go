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

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// A dump is JSON lines: a header, then one line for each permission id in the order of the
// ids' bytes, then one for each role in the order of their names. Deletions are part of it. Two catalogs that saw the same events have the
// same lines after the header.
const (
	dumpFamily = "postern-dump/" // of any version
	dumpFormat = dumpFamily + "1"
)

// longestDumpLine is more than the largest state needs, in bytes, even if JSON escapes
// each byte of its description. A role may need as much as all roles together.
const (
	longestDumpLine = 64 << 10
	longestRoleLine = 2 * largestRoles
)

// DumpHeader is the first line of a dump.
type DumpHeader struct {
	Format        string     `json:"format"`
	EnvironmentID string     `json:"environment_id"`
	Epoch         string     `json:"epoch"`
	Revision      uint64     `json:"revision"`
	Digest        string     `json:"digest"`
	Complete      bool       `json:"complete"`
	States        int        `json:"states"` // lines that follow, so that a cut-off dump is noticed
	Roles         int        `json:"roles"`  // lines behind those
	Newest        *dumpState `json:"newest"` // key of the newest event, null before the first
}

// dumpState is one state. Content is told where it can't be computed from the rest.
type dumpState struct {
	ID          string            `json:"id,omitempty"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	Kind        string            `json:"kind"`
	OccurredAt  string            `json:"occurred_at"`
	EventID     string            `json:"event_id,omitempty"`
	CreatedAt   string            `json:"created_at,omitempty"`
	Source      permission.Source `json:"source,omitempty"`
	Content     string            `json:"content,omitempty"`
	AbsentAt    string            `json:"absent_at,omitempty"`
	SeenAt      string            `json:"seen_at,omitempty"`
	ConfirmedAt string            `json:"confirmed_at,omitempty"`
}

// Dump writes the newest revision. It holds a database transaction until it is done, and
// the file grows by what is written meanwhile: w should be a file or memory, not a slow peer.
// A file that isn't sound is refused: half of a catalog restored elsewhere would allow what
// was deleted.
func (c *Catalog) Dump(ctx context.Context, w io.Writer, progress Progress) (err error) {
	defer containDamage(&err)()
	if c.writer == nil { // a writer's file was inspected when it was opened
		if err := inspectFile(ctx, c.path); err != nil {
			return fmt.Errorf("dumping the catalog: %w", err)
		}
	}
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	err = c.view(func(tx *bbolt.Tx) error {
		head, err := readHeader(tx.Bucket(bucketMeta))
		if err != nil {
			return err
		}
		states := tx.Bucket(bucketStates)
		all := states.Inspect().KeyN
		r, err := readRoles(tx.Bucket(bucketMeta))
		if err != nil {
			return err
		}
		if err := lines.Encode(c.dumpHeader(head, all, len(r.list))); err != nil {
			return err
		}
		count := counter{ctx: ctx, total: int64(all), progress: progress.orNone()}
		err = forEachState(ctx, states, func(s permission.State) error {
			return errors.Join(lines.Encode(dumped(s)), count.advance())
		})
		for _, role := range r.list {
			err = errors.Join(err, lines.Encode(dumpRole(role)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dumping the catalog: %w", err)
	}
	return out.Flush()
}

func forEachState(ctx context.Context, states *bbolt.Bucket, do func(permission.State) error) error {
	return states.ForEach(func(id, sealed []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := openState(id, sealed)
		if err != nil {
			return err
		}
		return do(s)
	})
}

func (c *Catalog) dumpHeader(head header, states, roles int) DumpHeader {
	h := DumpHeader{
		Format:        dumpFormat,
		EnvironmentID: c.identity.environment,
		Epoch:         c.identity.epoch,
		Revision:      head.revision,
		Digest:        head.digest.String(),
		Complete:      head.complete,
		States:        states,
		Roles:         roles,
	}
	if head.newest != (eventKey{}) {
		h.Newest = &dumpState{
			Kind:       head.newest.kind.String(),
			OccurredAt: head.newest.occurredAt.String(),
			EventID:    head.newest.eventID,
			Content:    head.newest.content.String(),
		}
	}
	return h
}

// dumpRole is a role.
type dumpRole struct {
	ID          string   `json:"role_id"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

func dumped(s permission.State) dumpState {
	d := dumpState{
		ID: s.ID, Name: s.Name, Description: s.Description,
		Kind:       s.Kind.String(),
		OccurredAt: s.OccurredAt.String(),
		EventID:    s.EventID,
		Source:     s.Source,
		CreatedAt:  instantText(s.CreatedAt),
		AbsentAt:   instantText(s.AbsentAt), SeenAt: instantText(s.SeenAt), ConfirmedAt: instantText(s.ConfirmedAt),
	}
	if s.Kind == permission.Deleted {
		d.Content = s.Content.String()
	}
	return d
}

// instantText returns nothing for an instant that isn't known.
func instantText(at permission.Instant) string {
	if at == 0 {
		return ""
	}
	return at.String()
}

// state reads a line of a dump; every field is a foreign one.
func (d dumpState) state() (permission.State, error) {
	s := permission.State{ID: d.ID, Name: d.Name, Description: d.Description, EventID: d.EventID, Source: d.Source}
	var err error
	if s.Kind, err = permission.ParseKind(d.Kind); err != nil {
		return s, err
	}
	if s.OccurredAt, err = permission.ParseInstant(d.OccurredAt); err != nil {
		return s, fmt.Errorf("occurred_at: %w", err)
	}
	if err := d.optionalInstants(&s); err != nil {
		return s, err
	}
	if s.Kind != permission.Deleted {
		s.Content = permission.ContentDigest(s.ID, s.Name, s.Description)
		return s, nil
	}
	if s.Content, err = permission.ParseDigest(d.Content); err != nil {
		return s, fmt.Errorf("content: %w", err)
	}
	return s, nil
}

func (d dumpState) optionalInstants(s *permission.State) error {
	for _, field := range [...]struct {
		name, text string
		into       *permission.Instant
	}{
		{"created_at", d.CreatedAt, &s.CreatedAt},
		{"absent_at", d.AbsentAt, &s.AbsentAt},
		{"seen_at", d.SeenAt, &s.SeenAt},
		{"confirmed_at", d.ConfirmedAt, &s.ConfirmedAt},
	} {
		if field.text == "" {
			continue
		}
		at, err := permission.ParseInstant(field.text)
		if err != nil {
			return fmt.Errorf("%s: %w", field.name, err)
		}
		*field.into = at
	}
	return nil
}

func (d dumpState) checkedState() (permission.State, error) {
	s, err := d.state()
	if err != nil {
		return s, err
	}
	if sourceTerms[s.Source] == nil {
		return s, fmt.Errorf("source: want webhook, reconcile or restore, got %.40q", s.Source)
	}
	if s.Kind == permission.Deleted && (s.CreatedAt != 0 || s.Description != "") {
		return s, errors.New("created_at, description: want none in a deletion")
	}
	return s, s.Check()
}

// dumpReader is what was read of a dump by now.
type dumpReader struct {
	announced DumpHeader
	content   Restorable
}

// ReadDump reads a whole dump. An error names the line; nothing is returned then.
func ReadDump(r io.Reader) (*Restorable, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longestRoleLine)
	d := &dumpReader{}
	for number := 1; lines.Scan(); number++ {
		if err := d.line(number, lines.Bytes()); err != nil {
			return nil, fmt.Errorf("reading the dump: line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the dump: behind line %d: %w", 1+len(d.content.states)+len(d.content.roles), err)
	}
	if d.announced.Format == "" {
		return nil, errors.New("reading the dump: it is empty")
	}
	if came := len(d.content.states); came != d.announced.States {
		return nil, fmt.Errorf("reading the dump: the header announces %d states and %d came; it was cut off", d.announced.States, came)
	}
	if came := len(d.content.roles); came != d.announced.Roles {
		return nil, fmt.Errorf("reading the dump: the header announces %d roles and %d came; it was cut off", d.announced.Roles, came)
	}
	if _, err := newRoles(d.content.roles); err != nil {
		return nil, fmt.Errorf("reading the dump: %w", err)
	}
	if err := d.content.sortByID(); err != nil {
		return nil, fmt.Errorf("reading the dump: %w", err)
	}
	d.content.EnvironmentID, d.content.complete = d.announced.EnvironmentID, d.announced.Complete
	return &d.content, nil
}

func (d *dumpReader) line(number int, text []byte) error {
	switch {
	case number == 1 && len(text) > longestDumpLine:
		return errLongLine
	case number == 1:
		return d.header(text)
	case len(d.content.states) == d.announced.States && d.announced.Roles > 0:
		return d.role(text)
	case len(text) > longestDumpLine:
		return errLongLine
	}
	var line dumpState
	if err := decodeLine(text, &line); err != nil {
		return err
	}
	s, err := line.checkedState()
	d.content.states = append(d.content.states, s)
	return err
}

var errLongLine = fmt.Errorf("want at most %d bytes", longestDumpLine)

func (d *dumpReader) role(text []byte) error {
	var line dumpRole
	if len(d.content.roles) == d.announced.Roles {
		return fmt.Errorf("the header announces %d states and %d roles, and more came", d.announced.States, d.announced.Roles)
	}
	if err := decodeLine(text, &line); err != nil {
		return err
	}
	d.content.roles = append(d.content.roles, permission.Role(line))
	return nil
}

func (d *dumpReader) header(text []byte) error {
	if err := decodeLine(text, &d.announced); err != nil {
		return err
	}
	if d.announced.Format != dumpFormat {
		return fmt.Errorf("format: want %q, got %.40q", dumpFormat, d.announced.Format)
	}
	if err := permission.CheckText("environment_id", d.announced.EnvironmentID, 0, permission.MaxID); err != nil {
		return err
	}
	if d.announced.Newest == nil {
		return nil
	}
	newest := *d.announced.Newest
	s, err := newest.state()
	if err == nil && s.Kind != permission.Deleted {
		s.Content, err = permission.ParseDigest(newest.Content)
	}
	if err != nil {
		return fmt.Errorf("newest: %w", err)
	}
	d.content.newest = keyOf(s)
	return permission.CheckText("newest.event_id", s.EventID, 1, permission.MaxID)
}

func decodeLine(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one JSON object")
	}
	return nil
}

// statesPerCommit bounds one commit of a restore. Webhooks take their turns in between,
// and bbolt slows down as one transaction grows.
const statesPerCommit = 2000

// Restore merges a dump or a listing into the catalog by the merge rule, so that what the
// catalog knows better stays; the roles of a dump replace those before. A large one is applied
// as a whole, as [Catalog.Repair] does it. A smaller one takes several commits; one that was
// broken off leaves some of it merged, which the next try completes. The catalog is complete afterwards if the
// dumped one was, or if it was a listing. It returns how many states changed, or
// [ErrEnvironment].
func (c *Catalog) Restore(ctx context.Context, from *Restorable, progress Progress) (changed int, err error) {
	if from, have := from.EnvironmentID, c.identity.environment; from != "" && from != have {
		return 0, fmt.Errorf("%w: the dump is from %q, this catalog from %q (see --environment-id)", ErrEnvironment, from, have)
	}
	if len(from.states) >= loadsFrom && c.writer != nil {
		return c.loadRepair(ctx, Repair{States: from.states, Roles: from.roles, Complete: from.complete, newest: from.newest}, progress.orNone())
	}
	done, total := int64(0), int64(len(from.states))
	for states := range slices.Chunk(from.states, statesPerCommit) {
		changes := make(chan int, 1)
		_, err := c.submit(ctx, func(t *transaction) (permission.Outcome, error) {
			n, err := t.restoreStates(states)
			changes <- n
			return permission.OutcomeApplied, err
		})
		if err != nil {
			return changed, err
		}
		changed += <-changes
		done += int64(len(states))
		progress.orNone()(done, total)
	}
	_, err = c.submit(ctx, func(t *transaction) (permission.Outcome, error) {
		t.header.complete = t.header.complete || from.complete
		t.seen(from.newest)
		if from.roles == nil {
			return permission.OutcomeApplied, nil
		}
		return permission.OutcomeApplied, t.putRoles(from.roles)
	})
	return changed, err
}

func (t *transaction) restoreStates(states []permission.State) (changed int, err error) {
	for _, s := range states {
		applied, err := t.apply(s)
		if err != nil {
			return changed, err
		}
		if applied {
			changed++
		}
		if s.EventID != "" {
			t.seen(keyOf(s))
		}
	}
	return changed, nil
}
