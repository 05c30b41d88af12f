package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/simulator"
)

// person asks, with an access token or without.
type person struct{ name, token string }

// expectation is what an answer has to say for the story to be true.
type expectation struct {
	decision bool
	reason   string
	eventID  string // the event that the permission's state rests on; empty: none, or a listing
}

// tell is the story. It ends at the first answer that isn't the expected one.
func (s *stage) tell(ctx context.Context) error {
	s.say("Postern's demo: a simulated Scalekit and a sidecar run on this machine.\n"+
		"Ada's access token was issued this morning. It says that she holds %s, %s and\n"+
		"%s, and goes on saying so until it expires. After each event the app asks Postern.\n\n"+
		"  decision API  POST http://%s/v1/authorize\n"+
		"  webhooks      POST http://%s/webhooks/scalekit\n", demoPermission, demoOther, demoThird, s.sidecar.addr("authorize"), s.sidecar.addr("webhook"))
	scenes := []func(context.Context) error{
		s.listed, s.notHis, s.believed, s.updated, s.duplicate, s.killed, s.deleted, s.late, s.lost, s.reconciled,
	}
	for _, scene := range scenes {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) listed(ctx context.Context) error {
	s.say("\n1. All of them are older than the sidecar, and no webhook will tell of them.\n" +
		"   It asked Scalekit's API for what exists before it answered anybody.\n")
	return s.ask(ctx, s.ada, demoPermission, expectation{true, "granted", ""})
}

func (s *stage) notHis(ctx context.Context) error {
	s.say("\n2. Bob's token never had the permission.\n")
	return s.ask(ctx, s.bob, demoPermission, expectation{false, "not_granted", ""})
}

func (s *stage) believed(ctx context.Context) error {
	s.say("\n3. Without a token nobody is believed, nor with one that somebody else has signed.\n")
	if err := s.ask(ctx, person{name: "Ada"}, demoPermission, expectation{false, "token_required", ""}); err != nil {
		return err
	}
	return s.ask(ctx, s.mallory, demoPermission, expectation{false, "token_invalid", ""})
}

func (s *stage) updated(ctx context.Context) error {
	s.say("\n4. An administrator words the description better. Somebody without the signing secret\n" +
		"   sends two webhooks of their own along.\n")
	if err := s.goWrong(simulator.WebhookForge); err != nil {
		return err
	}
	events, err := s.change(ctx, demoPermission, s.describe("Manage all data"), "201 applied", "401 signature_mismatch", "401 signature_mismatch")
	if err != nil {
		return err
	}
	s.newest = events[0]
	return s.ask(ctx, s.ada, demoPermission, expectation{true, "granted", s.newest})
}

func (s *stage) duplicate(ctx context.Context) error {
	s.say("\n5. Scalekit delivers at least once: the same event comes again, and changes nothing.\n")
	again := func(string) error { return s.scalekit.Resend(s.newest) }
	if _, err := s.change(ctx, demoPermission, again, "201 duplicate"); err != nil {
		return err
	}
	return s.ask(ctx, s.ada, demoPermission, expectation{true, "granted", s.newest})
}

func (s *stage) killed(ctx context.Context) error {
	s.say("\n6. kill -9. The sidecar dies without a word and starts again on the same directory.\n")
	if err := s.sidecar.kill(); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	s.say("   It is back on %s, with everything that it had acknowledged.\n", s.sidecar.addr("authorize"))
	return s.ask(ctx, s.ada, demoPermission, expectation{true, "granted", s.newest})
}

func (s *stage) deleted(ctx context.Context) error {
	s.say("\n7. The administrator deletes %s. Ada's token doesn't know.\n", demoOther)
	events, err := s.change(ctx, demoOther, s.remove, "201 applied")
	if err != nil {
		return err
	}
	return s.ask(ctx, s.ada, demoOther, expectation{false, "permission_deleted", events[0]})
}

func (s *stage) late(ctx context.Context) error {
	s.say("\n8. %s is changed and deleted, and on the way the two webhooks change places.\n"+
		"   The dead stay dead.\n", demoPermission)
	if err := s.goWrong(simulator.WebhookReorder); err != nil {
		return err
	}
	both := func(id string) error { return errors.Join(s.describe("Lost its way")(id), s.remove(id)) }
	events, err := s.change(ctx, demoPermission, both, "201 applied", "201 unchanged")
	if err != nil {
		return err
	}
	return s.ask(ctx, s.ada, demoPermission, expectation{false, "permission_deleted", events[0]})
}

func (s *stage) lost(ctx context.Context) error {
	s.say("\n9. %s is deleted, too, and the webhook never arrives. The sidecar can't know.\n", demoThird)
	if err := s.goWrong(simulator.WebhookDrop); err != nil {
		return err
	}
	if _, err := s.change(ctx, demoThird, s.remove); err != nil {
		return err
	}
	return s.ask(ctx, s.ada, demoThird, expectation{true, "granted", ""})
}

func (s *stage) reconciled(ctx context.Context) error {
	s.say("\n10. Every five minutes, and now on SIGHUP, the sidecar holds itself against Scalekit's list.\n" +
		"    What is missing there has to be missing twice.\n")
	want := expectation{false, "permission_deleted", ""}
	if err := await(ctx, time.Second, func(ctx context.Context) error {
		answer, err := s.question(ctx, s.ada, demoThird)
		if err != nil || answer.seen() == want {
			return err
		}
		return errors.Join(fmt.Errorf("the answer: want %+v, got %+v", want, answer.seen()), s.sidecar.command.Process.Signal(syscall.SIGHUP))
	}); err != nil {
		return err
	}
	return s.ask(ctx, s.ada, demoThird, want)
}

// goWrong lets something go wrong once.
func (s *stage) goWrong(what simulator.Fault) error {
	return s.scalekit.SetFaults(simulator.Faults{Rules: map[simulator.Fault]simulator.Rule{what: {Count: 1}}})
}

func (s *stage) describe(text string) func(id string) error {
	return func(id string) error {
		_, err := s.scalekit.Update(id, simulator.Change{Description: &text})
		return err
	}
}

func (s *stage) remove(id string) error {
	_, err := s.scalekit.Delete(id)
	return err
}

// change does something to a live permission at Scalekit, and wants such answers to the
// webhooks that come of it. It returns their events' ids in the order of their arrival.
func (s *stage) change(ctx context.Context, name string, do func(id string) error, answers ...string) (events []string, err error) {
	live := s.scalekit.Live()
	at := slices.IndexFunc(live, func(p simulator.Permission) bool { return p.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("%s isn't live", name)
	}
	if err := do(live[at].ID); err != nil {
		return nil, err
	}
	return s.delivered(ctx, answers...)
}

// delivered waits until no webhook is on its way, and tells how they went.
func (s *stage) delivered(ctx context.Context, answers ...string) (events []string, err error) {
	if err := s.scalekit.Wait(ctx); err != nil {
		return nil, err
	}
	var got []string
	for _, c := range s.postman.collect() {
		e := c.event
		s.say("   webhook   %s  %s  %s  (%s at %s)\n", e.Type, e.Data.Name, e.Data.ID, e.ID, e.OccurredAt)
		s.say("   answer    %d %s\n", c.answer.status, c.answer.body)
		got, events = append(got, c.outcome()), append(events, e.ID)
	}
	if strings.Join(got, ", ") != strings.Join(answers, ", ") {
		return nil, fmt.Errorf("the answers to webhooks: want %q, got %q", answers, got)
	}
	return events, nil
}

// demoAnswer is what the story looks at in an answer.
type demoAnswer struct {
	Decision bool `json:"decision"`
	Context  struct {
		Reasons    []string `json:"reasons"`
		Permission *struct {
			EventID string `json:"event_id"`
		} `json:"permission"`
		DataRevision uint64 `json:"data_revision"`
	} `json:"context"`
}

func (a demoAnswer) seen() expectation {
	seen := expectation{decision: a.Decision, reason: strings.Join(a.Context.Reasons, ",")}
	if a.Context.Permission != nil {
		seen.eventID = a.Context.Permission.EventID
	}
	return seen
}

// restsOn says what the answer rests on.
func (a demoAnswer) restsOn() string {
	switch {
	case a.Context.Permission == nil:
		return "no permission"
	case a.Context.Permission.EventID == "":
		return "a listing of Scalekit's API"
	}
	return a.Context.Permission.EventID
}

// asking is the body of a question.
func asking(subject, permission string) string {
	return fmt.Sprintf(`{"subject":{"type":"user","id":%q},"action":{"name":%q},"resource":{"type":"dataset","id":"ds_7"}}`, subject, permission)
}

func (s *stage) question(ctx context.Context, who person, permission string) (demoAnswer, error) {
	header := http.Header{}
	if who.token != "" {
		header.Set(authz.TokenHeader, who.token)
	}
	answer, err := deliver(ctx, "http://"+s.sidecar.addr("authorize")+"/v1/authorize", []byte(asking(subject(who.name), permission)), header)
	if err != nil {
		return demoAnswer{}, err
	}
	if answer.status != http.StatusOK {
		return demoAnswer{}, fmt.Errorf("the question: want 200, got %d %s", answer.status, answer.body)
	}
	var got demoAnswer
	return got, json.Unmarshal([]byte(answer.body), &got)
}

// ask asks whether somebody may do something, tells what came back, and judges it.
func (s *stage) ask(ctx context.Context, who person, permission string, want expectation) error {
	answer, err := s.question(ctx, who, permission)
	if err != nil {
		return err
	}
	with := "with a token"
	if who.token == "" {
		with = "without a token"
	}
	s.say("   question  may %s do %s? (%s)\n", who.name, permission, with)
	s.say("   decision  %s, %s\n   rests on  %s (data revision %d)\n",
		map[bool]string{true: "ALLOW", false: "DENY"}[answer.Decision], strings.Join(answer.Context.Reasons, ", "), answer.restsOn(), answer.Context.DataRevision)
	if answer.seen() != want {
		return fmt.Errorf("the answer: want %+v, got %+v", want, answer.seen())
	}
	return nil
}

func (s *stage) say(format string, arguments ...any) {
	fmt.Fprintf(s.std.stdout, format, arguments...)
}
