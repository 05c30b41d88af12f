package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// dumpLine is one permission in `postern catalog dump`.
type dumpLine struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Kind        string `json:"kind"`
	OccurredAt  string `json:"occurred_at"`
	EventID     string `json:"event_id"`
	CreatedAt   string `json:"created_at"`
	Source      string `json:"source"`
	Content     string `json:"content"`
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
