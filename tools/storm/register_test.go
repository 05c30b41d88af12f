package main

import (
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/simulator"
)

const (
	allowed2   = `{"decision":true,"context":{"reasons":["granted"],"permission":{"id":"perm_2","name":"data:read"}}}`
	otherName  = `{"decision":true,"context":{"reasons":["granted"],"permission":{"id":"perm_1","name":"data:write"}}}`
	groundless = `{"decision":true,"context":{"reasons":["granted"]}}`
	never      = `{"decision":false,"context":{"reasons":["permission_unknown"]}}`
)

func TestJudgeAfterDeletions(t *testing.T) {
	const asked = 5
	for _, row := range []struct {
		what   string
		lives  []life
		answer string
		right  bool
	}{
		{"a live permission is allowed", []life{{id: p1}}, allowed, true},
		{"an acknowledged deletion is allowed", []life{{id: p1, gone: asked}}, allowed, false},
		{"a deletion that was acknowledged after the question", []life{{id: p1, gone: asked + 1}}, allowed, true},
		{"an acknowledged deletion denies", []life{{id: p1, gone: asked}}, gone, true},
		{"nothing is known of it yet", []life{{id: p1}}, never, true},
		{"the name is reused", []life{{id: p1, gone: 1}, {id: p2}}, allowed2, true},
		{"the name is reused, and the old id allows", []life{{id: p1, gone: 1}, {id: p2}}, allowed, false},
		{"the old id's deletion was lost", []life{{id: p1}, {id: p2}}, allowed, true},
		{"so it was, and the new id is deleted", []life{{id: p1}, {id: p2, gone: 2}}, allowed, false},
		{"both are deleted", []life{{id: p1, gone: 1}, {id: p2, gone: 2}}, allowed2, false},
		{"an id before its creation", []life{{id: p1, gone: 1}}, allowed2, false},
		{"a name that never was", nil, allowed, false},
		{"another name's id", []life{{id: p1}}, otherName, false},
		{"an allow that rests on nothing", []life{{id: p1}}, groundless, false},
		{"a read that failed", []life{{id: p1}}, unread, false},
		{"a catalog that forgot that it was complete", []life{{id: p1}}, unknown, false},
	} {
		if wrong := judgeAfterDeletions(read, row.lives, asked, said(t, row.answer)); (wrong == "") != row.right {
			t.Errorf("%s: got %q", row.what, wrong)
		}
	}
}

func TestJudgeTruth(t *testing.T) {
	for _, row := range []struct {
		bearer, answer string
		right          bool
	}{
		{p1, allowed, true},
		{"", gone, true},
		{"", never, true},
		{"", allowed, false},
		{p1, gone, false},
		{p2, allowed, false},
		{p1, groundless, false},
	} {
		if wrong := judgeTruth(read, row.bearer, said(t, row.answer)); (wrong == "") != row.right {
			t.Errorf("borne by %q, %s: got %q", row.bearer, row.answer, wrong)
		}
	}
}

func TestJudgeAgreement(t *testing.T) {
	right := syncAnswer{Digest: "aa", Count: 1, State: "fresh"}
	if wrong := judgeAgreement("aa", 1, right); wrong != "" {
		t.Error(wrong)
	}
	for what, spoil := range map[string]func(*syncAnswer){
		"digest": func(a *syncAnswer) { a.Digest = "ab" },
		"count":  func(a *syncAnswer) { a.Count = 2 },
		"state":  func(a *syncAnswer) { a.State = "stale" },
	} {
		bad := right
		spoil(&bad)
		if judgeAgreement("aa", 1, bad) == "" {
			t.Errorf("another %s passes", what)
		}
	}
}

func TestRegister(t *testing.T) {
	r := newRegister()
	r.lives[read] = []life{{id: p1}, {id: p2}}
	told := func(kind, id string, at int64) simulator.Delivery {
		return simulator.Delivery{Type: "permission." + kind, SubjectID: id, Name: read, OccurredAt: permission.Instant(at)}
	}
	if r.arrived(told("created", p2, 2)) || r.now() != 0 {
		t.Error("a creation counts as a deletion, or the first webhook as late")
	}
	if !r.arrived(told("deleted", p1, 1)) || r.now() != 1 || goneBy(r.of(read), r.now()) != 1 {
		t.Errorf("the deletion is lost: %+v", r.of(read))
	}
	r.arrived(told("deleted", p1, 1))
	r.arrived(told("deleted", "perm_3", 3))
	if r.now() != 1 || len(r.lately()) != 1 || <-r.deleted != read {
		t.Errorf("a repeated deletion or one of nobody counts: %+v", r.of(read))
	}
}

// A storm that did nothing may not say that everything held.
func TestACalmIsNoStorm(t *testing.T) {
	storm := &truth{field: &field{account: newAccount("truth", &strings.Builder{})}}
	for _, what := range essential {
		if storm.wasOne() == nil {
			t.Errorf("it passes without %s", what)
		}
		storm.count(what, 1)
	}
	if err := storm.wasOne(); err != nil {
		t.Error(err)
	}
}
