package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
)

// What is asked. The seed is fixed: each run asks the same.
const (
	traceSeed   = 20240115
	traceLength = 8192 // questions; each connection repeats them
	heldCount   = 20   // permissions that a subject holds
	zipfS       = 1.1  // skew of the permission names: the most frequent one is a tenth of them
)

// question is one line of the trace with the answer that is right.
type question struct {
	body   []byte // JSON
	name   string // of the permission that is asked for
	allow  bool
	reason string // the only one
}

// Of 100 questions so many are denied, each kind for one reason; the rest is allowed.
const (
	percentNotGranted = 10
	percentUnknown    = 5
	percentDeleted    = 5
)

// newTrace draws questions over the catalog: which permission by Zipf's law, what else
// the subject holds evenly.
func newTrace(c *catalog) ([]question, error) {
	random := rand.New(rand.NewPCG(traceSeed, 0)) //nolint:gosec // the same trace each time
	zipf := rand.NewZipf(random, zipfS, 1, uint64(len(c.live)-1))
	trace := make([]question, traceLength)
	for i := range trace {
		q, err := c.drawQuestion(random, zipf)
		if err != nil {
			return nil, err
		}
		trace[i] = q
	}
	return trace, nil
}

func (c *catalog) drawQuestion(random *rand.Rand, zipf *rand.Zipf) (question, error) {
	q := question{allow: true, reason: "granted"}
	name := c.live[zipf.Uint64()].Name
	holds := true
	switch dice := random.IntN(100); {
	case dice < percentNotGranted:
		q, holds = question{reason: "not_granted"}, false
	case dice < percentNotGranted+percentUnknown:
		q, name = question{reason: "permission_unknown"}, "unheard-of:"+strconv.Itoa(random.IntN(1000))
	case dice < percentNotGranted+percentUnknown+percentDeleted:
		q, name = question{reason: "permission_deleted"}, c.deleted[random.IntN(len(c.deleted))].Name
	}
	q.name = name
	var err error
	q.body, err = json.Marshal(map[string]any{
		"subject": map[string]any{
			"type": "user", "id": fmt.Sprintf("usr_%06d", random.IntN(100_000)),
			"properties": map[string]any{"permissions": c.drawHeld(random, name, holds)},
		},
		"action":   map[string]any{"name": name},
		"resource": map[string]any{"type": "dataset", "id": fmt.Sprintf("ds_%06d", random.IntN(100_000))},
		"context":  map[string]any{},
	})
	if err != nil {
		return question{}, fmt.Errorf("rendering a question: %w", err)
	}
	return q, nil
}

// drawHeld draws what a subject holds, with name at a random place of it or nowhere.
func (c *catalog) drawHeld(random *rand.Rand, name string, holds bool) []string {
	held := make([]string, 0, heldCount)
	for len(held) < heldCount {
		other := c.live[random.IntN(len(c.live))].Name
		if other != name && !slices.Contains(held, other) {
			held = append(held, other)
		}
	}
	if holds {
		held[random.IntN(heldCount)] = name
	}
	return held
}

// render returns the HTTP request that posts body. It says what a client library says,
// and no more.
func render(path string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// posternTarget asks Postern's decision API.
func posternTarget(addr string, trace []question) *target {
	t := &target{addr: addr}
	begins := make([][]byte, len(trace))
	for i, q := range trace {
		t.requests = append(t.requests, render("/v1/authorize", q.body))
		begins[i] = fmt.Appendf(nil, `{"decision":%t,"context":{"reasons":[%q]`, q.allow, q.reason)
	}
	t.check = func(i int, body []byte) error {
		if bytes.HasPrefix(body, begins[i]) {
			return nil
		}
		var answer struct {
			Decision *bool
			Context  struct{ Reasons []string }
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("reading the answer %.200s: %w", body, err)
		}
		return trace[i].compare(answer.Decision, answer.Context.Reasons, body)
	}
	return t
}

// opaTarget asks OPA's Data API for the same rule.
func opaTarget(addr string, trace []question) *target {
	t := &target{addr: addr}
	begins := make([][]byte, len(trace))
	for i, q := range trace {
		t.requests = append(t.requests, render("/v1/data/authz/decision", slices.Concat([]byte(`{"input":`), q.body, []byte("}"))))
		begins[i] = fmt.Appendf(nil, `{"result":{"decision":%t,"reasons":[%q]}`, q.allow, q.reason)
	}
	t.check = func(i int, body []byte) error {
		if bytes.HasPrefix(body, begins[i]) {
			return nil
		}
		var answer struct {
			Result struct {
				Decision *bool
				Reasons  []string
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("reading the answer %.200s: %w", body, err)
		}
		return trace[i].compare(answer.Result.Decision, answer.Result.Reasons, body)
	}
	return t
}

// constantTarget sends Postern's questions to a server that doesn't read them.
func constantTarget(addr string, trace []question) *target {
	t := posternTarget(addr, trace)
	t.check = func(_ int, body []byte) error {
		if string(body) != constantAnswer {
			return fmt.Errorf("want the constant, got %.200s", body)
		}
		return nil
	}
	return t
}

// compare returns an error unless the answer is the right one.
func (q question) compare(decision *bool, reasons []string, body []byte) error {
	if decision == nil || *decision != q.allow || !slices.Equal(reasons, []string{q.reason}) {
		return fmt.Errorf("want decision %t for the reason %s, got %.300s; asked was %s", q.allow, q.reason, body, q.body)
	}
	return nil
}
