package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// dumpLine is one permission in `postern catalog dump`.
type dumpLine struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Kind        string `json:"kind"`
	OccurredAt  string `json:"occurred_at"`
	EventID     string `json:"event_id,omitempty"`
	CreatedAt   string `json:"created_at,omitempty"`
	Source      string `json:"source,omitempty"`
	Content     string `json:"content,omitempty"`
}

// dumped is the line that a state makes.
func (s state) dumped() dumpLine {
	line := dumpLine{
		ID: s.permission, Name: s.name, Kind: s.kind.String(), OccurredAt: instant(s.at), EventID: s.id, Source: "webhook",
	}
	if !s.live() {
		line.Content = hex.EncodeToString(s.content[:])
		return line
	}
	line.Description = s.description
	if s.createdAt != 0 {
		line.CreatedAt = instant(s.createdAt)
	}
	return line
}

// writeDump writes states as a dump that `postern catalog restore` takes.
func writeDump(w io.Writer, events []event) error {
	lines := json.NewEncoder(w)
	states := foldIDs(events)
	err := lines.Encode(map[string]any{"format": "postern-dump/1", "environment_id": environmentID, "states": len(states)})
	for _, s := range states {
		err = errors.Join(err, lines.Encode(s.dumped()))
	}
	if err != nil {
		return fmt.Errorf("writing a dump: %w", err)
	}
	return nil
}

// dump is what `postern catalog dump` printed.
type dump struct {
	digest string
	lines  map[string]dumpLine
}

// parseDump reads a dump. One that ends too early, or says an id twice, is an error.
func parseDump(text []byte) (*dump, error) {
	var header struct {
		Digest string `json:"digest"`
		States int    `json:"states"`
	}
	d := &dump{lines: map[string]dumpLine{}}
	first, rest, _ := bytes.Cut(text, []byte{'\n'})
	if err := json.Unmarshal(first, &header); err != nil {
		return nil, fmt.Errorf("reading the dump's header: %w", err)
	}
	for line := range bytes.Lines(rest) {
		var l dumpLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("reading the dump: %w", err)
		}
		if _, twice := d.lines[l.ID]; twice {
			return nil, fmt.Errorf("reading the dump: %s comes twice", l.ID)
		}
		d.lines[l.ID] = l
	}
	if len(d.lines) != header.States {
		return nil, fmt.Errorf("reading the dump: %d states are announced and %d came", header.States, len(d.lines))
	}
	d.digest = header.Digest
	return d, nil
}
