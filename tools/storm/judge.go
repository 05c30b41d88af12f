package main

import (
	"fmt"
	"slices"
	"strings"
)

// mostOpen bounds the events in flight that a judge goes through all subsets of.
const mostOpen = 10

// answer is what POST /v1/authorize says.
type answer struct {
	Decision bool `json:"decision"`
	Context  struct {
		Reasons    []string `json:"reasons"`
		Permission *struct {
			ID      string `json:"id"`
			Name    string `json:"name"`
			EventID string `json:"event_id"`
		} `json:"permission"`
		Revision uint64 `json:"data_revision"`
		EventID  string `json:"event_id"`
		AsOf     string `json:"as_of"`
	} `json:"context"`
}

func (a answer) String() string {
	verdict := "deny"
	if a.Decision {
		verdict = "allow"
	}
	rests := "nothing"
	if p := a.Context.Permission; p != nil {
		rests = p.ID + " by " + p.EventID
	}
	return fmt.Sprintf("%s (%s) resting on %s, revision %d as of %s", verdict, strings.Join(a.Context.Reasons, ", "), rests, a.Context.Revision, a.Context.AsOf)
}

// says is what an answer must look like when s decides for the name and the subject holds it.
func (s state) says(known bool, a answer) bool {
	p := a.Context.Permission
	if !known {
		return !a.Decision && p == nil && slices.Equal(a.Context.Reasons, []string{"catalog_incomplete"})
	}
	if p == nil || p.ID != s.permission || p.Name != s.name || p.EventID != s.id {
		return false
	}
	if s.live() {
		return a.Decision && slices.Equal(a.Context.Reasons, []string{"granted"})
	}
	return !a.Decision && slices.Equal(a.Context.Reasons, []string{"permission_deleted"})
}

func (s state) describe(known bool) string {
	if !known {
		return "nothing"
	}
	return fmt.Sprintf("%s %s by %s at %s", s.permission, s.kind, s.id, instant(s.at))
}

// verdict is what a judge found.
type verdict struct {
	unjudged bool   // too much was in flight to tell
	wrong    string // empty: right
}

// judgeAnswer tells whether an answer about a name follows from all of must and any part
// of may.
func judgeAnswer(name string, must, may []event, a answer) verdict {
	return judgeAny(must, may, func(events []event) bool {
		s, known := foldName(name, events)
		return s.says(known, a)
	}, func() string {
		s, known := foldName(name, must)
		return fmt.Sprintf("asked about %s: got %s; what was acknowledged before leads to %s, with %d events in flight", name, a, s.describe(known), len(may))
	})
}

// judgeAny tries all of must with each subset of may.
func judgeAny(must, may []event, right func([]event) bool, describe func() string) verdict {
	if len(may) > mostOpen {
		return verdict{unjudged: true}
	}
	for subset := range 1 << len(may) {
		events := slices.Clip(must)
		for i, e := range may {
			if subset>>i&1 == 1 {
				events = append(events, e)
			}
		}
		if right(events) {
			return verdict{}
		}
	}
	return verdict{wrong: describe()}
}

// judgeProvenance tells whether the newest event that an answer names lies between the
// newest one acknowledged when it was asked and the newest one sent by now.
func judgeProvenance(asked moment, sent event, a answer) string {
	least, most := asked.newest, sent
	if a.Context.AsOf == "" {
		if least != (event{}) {
			return fmt.Sprintf("an answer without as_of, when %s of %s had been acknowledged", least.id, instant(least.at))
		}
		return ""
	}
	if a.Context.AsOf < instant(least.at) || a.Context.AsOf > instant(most.at) {
		return fmt.Sprintf("an answer as of %s, when %s had been acknowledged and %s sent", a.Context.AsOf, instant(least.at), instant(most.at))
	}
	return ""
}

// judgeRevision tells whether two answers of one revision about one name agree, in what
// they rest on and in what they say of the revision.
func judgeRevision(name string, first, again answer) string {
	if first.String() == again.String() && first.Context.EventID == again.Context.EventID {
		return ""
	}
	return fmt.Sprintf("one revision told two things about %s: %s, and then %s", name, first, again)
}

// judgeDumped tells whether a line of a dump, or its absence, follows from all of must and
// any part of may.
func judgeDumped(id string, must, may []event, line *dumpLine) verdict {
	return judgeAny(must, may, func(events []event) bool {
		s, known := foldIDs(events)[id]
		if !known || line == nil {
			return !known && line == nil
		}
		return *line == s.dumped()
	}, func() string {
		s, known := foldIDs(must)[id]
		if line == nil {
			return fmt.Sprintf("the dump lacks %s; what was acknowledged leads to %s", id, s.describe(known))
		}
		return fmt.Sprintf("the dump says %+v; what was acknowledged leads to %s, with %d events in flight", *line, s.describe(known), len(may))
	})
}

// judgeSync compares the answer of GET /v1/sync with what all events lead to.
func judgeSync(events []event, got syncAnswer) (wrong []string) {
	sum, count := digest(foldNames(foldIDs(events)))
	if got.Digest != sum {
		wrong = append(wrong, fmt.Sprintf("the digest is %s, want %s", got.Digest, sum))
	}
	if got.Count != count {
		wrong = append(wrong, fmt.Sprintf("there are %d live permissions, want %d", got.Count, count))
	}
	last := newest(events)
	if len(events) > 0 && (got.EventID != last.id || got.AsOf != instant(last.at)) {
		wrong = append(wrong, fmt.Sprintf("the newest event is %s of %s, want %s of %s", got.EventID, got.AsOf, last.id, instant(last.at)))
	}
	return wrong
}
