package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// said makes an answer as Postern writes it.
func said(t *testing.T, text string) (a answer) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

const (
	allowed  = `{"decision":true,"context":{"reasons":["granted"],"permission":{"id":"perm_1","name":"data:read","event_id":"e1"}}}`
	updated2 = `{"decision":true,"context":{"reasons":["granted"],"permission":{"id":"perm_1","name":"data:read","event_id":"e2"}}}`
	gone     = `{"decision":false,"context":{"reasons":["permission_deleted"],"permission":{"id":"perm_1","name":"data:read","event_id":"e3"}}}`
	unknown  = `{"decision":false,"context":{"reasons":["catalog_incomplete"]}}`
	unread   = `{"decision":false,"context":{"reasons":["catalog_unavailable"],"permission":{"id":"perm_1","name":"data:read","event_id":"e1"}}}`
)

var (
	creation = ev("e1", created, 1, p1, read, "")
	update   = ev("e2", updated, 2, p1, read, "x")
	deletion = ev("e3", deleted, 3, p1, read, "")
)

func TestJudgeAnswer(t *testing.T) {
	for _, row := range []struct {
		what      string
		must, may []event
		answer    string
		right     bool
	}{
		{"acknowledged creation allows", []event{creation}, nil, allowed, true},
		{"acknowledged creation lost", []event{creation}, nil, unknown, false},
		{"acknowledged deletion denies", []event{creation, deletion}, nil, gone, true},
		{"acknowledged deletion allowed", []event{creation, deletion}, nil, allowed, false},
		{"acknowledged update lost", []event{creation, update}, nil, allowed, false},
		{"deletion in flight, not seen", []event{creation}, []event{deletion}, allowed, true},
		{"deletion in flight, seen", []event{creation}, []event{deletion}, gone, true},
		{"update of an acknowledged deletion in flight", []event{deletion}, []event{update}, updated2, false},
		{"creation in flight, not seen", nil, []event{creation}, unknown, true},
		{"creation in flight, seen", nil, []event{creation}, allowed, true},
		{"something never sent", nil, nil, allowed, false},
		{"a read that failed", []event{creation}, nil, unread, false},
	} {
		if v := judgeAnswer(read, row.must, row.may, said(t, row.answer)); (v.wrong == "") != row.right || v.unjudged {
			t.Errorf("%s: got %+v", row.what, v)
		}
	}
}

func TestJudgeAnswerGivesUpOnTooMuchInFlight(t *testing.T) {
	if v := judgeAnswer(read, nil, make([]event, mostOpen+1), said(t, allowed)); !v.unjudged || v.wrong != "" {
		t.Errorf("got %+v", v)
	}
}

func TestJudgeProvenance(t *testing.T) {
	asked := moment{newest: update}
	for text, right := range map[string]bool{
		`{"context":{"as_of":"1970-01-01T00:00:00.000000001Z"}}`: false, // an event before the acknowledged one
		`{"context":{"as_of":"1970-01-01T00:00:00.000000002Z"}}`: true,
		`{"context":{"as_of":"1970-01-01T00:00:00.000000003Z"}}`: true,
		`{"context":{"as_of":"1970-01-01T00:00:00.000000004Z"}}`: false, // never sent
		`{"context":{"as_of":null}}`:                             false,
	} {
		if wrong := judgeProvenance(asked, deletion, said(t, text)); (wrong == "") != right {
			t.Errorf("%s: got %q", text, wrong)
		}
	}
}

func TestJudgeRevision(t *testing.T) {
	l := newLedger()
	for _, row := range []struct {
		name, answer string
		right        bool
	}{
		{read, allowed, true},
		{read, allowed, true},
		{read, gone, false}, // of the same revision
		{write, gone, true},
		{read, strings.Replace(gone, `"context":{`, `"context":{"data_revision":1,`, 1), true},
		{read, strings.Replace(allowed, `"context":{`, `"context":{"as_of":"2024",`, 1), false},
	} {
		a := said(t, row.answer)
		if wrong := judgeRevision(row.name, l.firstTold(row.name, a), a); (wrong == "") != row.right {
			t.Errorf("%s: got %q", row.answer, wrong)
		}
	}
}

func TestJudgeDumped(t *testing.T) {
	good := foldIDs([]event{creation, update})[p1].dumped()
	other := good
	other.Description = "y"
	late := good
	late.CreatedAt = ""
	for _, row := range []struct {
		what      string
		must, may []event
		line      *dumpLine
		right     bool
	}{
		{"right", []event{creation, update}, nil, &good, true},
		{"missing", []event{creation, update}, nil, nil, false},
		{"another text", []event{creation, update}, nil, &other, false},
		{"creation forgotten", []event{creation, update}, nil, &late, false},
		{"creation in flight", []event{update}, []event{creation}, &late, true},
		{"alive after its deletion", []event{creation, update, deletion}, nil, &good, false},
		{"invented", nil, nil, &good, false},
		{"absent", nil, []event{creation}, nil, true},
	} {
		if v := judgeDumped(p1, row.must, row.may, row.line); (v.wrong == "") != row.right {
			t.Errorf("%s: got %+v", row.what, v)
		}
	}
}

func TestJudgeSync(t *testing.T) {
	events := []event{creation, update}
	sum, _ := digest(foldNames(foldIDs(events)))
	right := syncAnswer{Digest: sum, Count: 1, EventID: "e2", AsOf: instant(2)}
	if wrong := judgeSync(events, right); len(wrong) != 0 {
		t.Errorf("got %q", wrong)
	}
	for what, spoil := range map[string]func(*syncAnswer){
		"digest": func(a *syncAnswer) { a.Digest = strings.Repeat("0", 64) },
		"count":  func(a *syncAnswer) { a.Count = 2 },
		"event":  func(a *syncAnswer) { a.EventID = "e1" },
		"time":   func(a *syncAnswer) { a.AsOf = instant(1) },
	} {
		bad := right
		spoil(&bad)
		if wrong := judgeSync(events, bad); len(wrong) != 1 {
			t.Errorf("another %s: got %q", what, wrong)
		}
	}
}

func TestParseDump(t *testing.T) {
	const header, one = `{"digest":"00","states":1}` + "\n", `{"id":"perm_1","name":"data:read"}` + "\n"
	for text, right := range map[string]bool{
		header + one:       true,
		header:             false, // cut off
		header + one + one: false,
		header + one[:9]:   false,
		"":                 false,
	} {
		if _, err := parseDump([]byte(text)); (err == nil) != right {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestJudgeRefusal(t *testing.T) {
	for value, right := range map[string]bool{"5": true, "": false, "0": false, "soon": false} {
		if wrong := judgeRefusal(&response{header: http.Header{"Retry-After": {value}}}); (wrong == "") != right {
			t.Errorf("Retry-After %q: got %q", value, wrong)
		}
	}
}

func TestJudgeAcknowledgment(t *testing.T) {
	applied, unchanged := []byte(`{"outcome":"applied"}`), []byte(`{"outcome":"unchanged"}`)
	if wrong := judgeAcknowledgment(creation, applied, true); wrong == "" {
		t.Error("an acknowledgment without a commit passes")
	}
	if wrong := judgeAcknowledgment(creation, unchanged, true) + judgeAcknowledgment(creation, applied, false); wrong != "" {
		t.Error(wrong)
	}
}

func TestTellsOfFailure(t *testing.T) {
	for text, tells := range map[string]bool{
		"[+]catalog: fine\n[+]writes: FAILING, webhooks are answered 503: no space left on device\nok\n": true,
		"[+]writes: the last commit succeeded, or none was needed\n[-]policy: FAILING\n":                 false,
		"ok\n": false,
	} {
		if tellsOfFailure(text) != tells {
			t.Errorf("%q: want %t", text, tells)
		}
	}
}

func TestJudgeDamage(t *testing.T) {
	const helps = "postern: the catalog's file can't be used: invalid database; restore it from a dump, or move it away to start empty"
	failed := exec.Command("sh", "-c", "exit 1").Run()
	killed := exec.Command("sh", "-c", "kill -9 $$").Run()
	if wrong := judgeDamage(failed, helps); wrong != "" {
		t.Error(wrong)
	}
	if judgeDamage(nil, helps) == "" || judgeDamage(killed, helps) == "" || judgeDamage(failed, "postern: EOF") == "" {
		t.Error("a refusal without a status, or without advice, passes")
	}
}

func TestJudgeExamination(t *testing.T) {
	failed := exec.Command("sh", "-c", "exit 1").Run()
	if wrong := judgeExamination("dump", "", nil) + judgeExamination("dump", "postern: it is damaged", failed); wrong != "" {
		t.Error(wrong)
	}
	if judgeExamination("dump", "", errors.New("too slow")) == "" || judgeExamination("dump", "goroutine 1 [running]:", failed) == "" {
		t.Error("a verb that hangs, or panics, passes")
	}
}

func TestIsTrace(t *testing.T) {
	for line, trace := range map[string]bool{
		"panic: runtime error": true, "goroutine 1 [running]:": true, "fatal error: fault": true,
		`{"msg":"internal error","stack":"goroutine 7 [running]"}`: true,
		`{"msg":"listening","listener":"webhook"}`:                 false,
	} {
		if isTrace(line) != trace {
			t.Errorf("%q: want %t", line, trace)
		}
	}
}

// A judge that complains makes the run fail.
func TestAViolationFailsTheRun(t *testing.T) {
	spoiled := storm{name: "spoiled", share: 1, run: func(_ context.Context, f *field) error {
		f.judged("asked", judgeAnswer(read, []event{deletion}, nil, said(t, allowed)))
		return nil
	}}
	var printed bytes.Buffer
	err := rage(context.Background(), options{length: time.Second}, []storm{spoiled}, t.TempDir(), &printed)
	if err == nil || !strings.Contains(err.Error(), "asked about data:read: got allow") || !strings.Contains(printed.String(), "spoiled: BROKEN") {
		t.Errorf("got %v and\n%s", err, &printed)
	}
}

func TestAStormThatCanNotRunIsAnErrorWhenStrict(t *testing.T) {
	impossible := storm{name: "impossible", needs: func(context.Context) error { return errors.New("no root") }}
	var printed bytes.Buffer
	if err := rage(context.Background(), options{}, []storm{impossible}, t.TempDir(), &printed); err != nil || !strings.Contains(printed.String(), "NOT RUN") {
		t.Errorf("got %v and %s", err, &printed)
	}
	if err := rage(context.Background(), options{strict: true}, []storm{impossible}, t.TempDir(), io.Discard); err == nil {
		t.Error("want an error")
	}
}

// What the ledger says was certain when a question was asked.
func TestLedger(t *testing.T) {
	l := newLedger()
	first, second := &entry{event: creation}, &entry{event: deletion}
	l.sending(first)
	l.acknowledge(first)
	asked := l.now()
	l.sending(second)
	l.acknowledge(second) // after the question
	must, may := l.about(read, asked)
	if len(must) != 1 || must[0] != creation || len(may) != 1 || may[0] != deletion {
		t.Errorf("got %v and %v", must, may)
	}
	if asked.newest != creation || l.sentSoFar() != deletion {
		t.Errorf("got %v and %v", asked.newest, l.sentSoFar())
	}
	if must, may := l.about(read, l.now()); len(must) != 2 || len(may) != 0 {
		t.Errorf("later: got %v and %v", must, may)
	}
}

// The test vector of Standard Webhooks.
func TestSign(t *testing.T) {
	key, err := decodeSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	h := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got := h.Get("Webhook-Signature"); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("got %s", got)
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(storms(), ""); err != nil || len(all) != len(storms()) {
		t.Errorf("by default: %d storms and %v", len(all), err)
	}
	if some, err := choose(storms(), "flip,kill"); err != nil || len(some) != 2 {
		t.Errorf("got %d storms and %v", len(some), err)
	}
	if _, err := choose(storms(), "flop"); err == nil || !strings.Contains(err.Error(), `"flop"`) {
		t.Errorf("got %v", err)
	}
}
