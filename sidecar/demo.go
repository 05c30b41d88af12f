package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

// demoConfig is what `postern demo` runs with.
type demoConfig struct{ serve bool }

func (c *demoConfig) settings() []setting {
	return []setting{{
		name: "serve", initial: "false", bare: true, set: boolean(&c.serve),
		help: "keep the sidecar running afterwards, until interrupted",
	}}
}

// The demonstration's cast, as Scalekit's documentation has it.
const (
	demoEnvironment = "env_1234567890"
	demoPermission  = "data:manage"
)

var (
	demoCreated = wireEvent{
		ID: "evt_1234567890", Type: "permission.created", EnvironmentID: demoEnvironment, OccurredAt: "2024-01-15T10:30:00.123456789Z",
		Permission: wirePermission{"perm_1234567890", demoPermission, "Permission to manage data"},
	}
	demoUpdated = wireEvent{
		ID: "evt_2345678901", Type: "permission.updated", EnvironmentID: demoEnvironment, OccurredAt: "2024-01-15T10:35:00.123456789Z",
		Permission: wirePermission{"perm_1234567890", demoPermission, "Updated permission to manage all data"},
	}
	demoDeleted = wireEvent{
		ID: "evt_3456789012", Type: "permission.deleted", EnvironmentID: demoEnvironment, OccurredAt: "2024-01-15T10:40:00.123456789Z",
		Permission: wirePermission{"perm_1234567890", demoPermission, "Updated permission to manage all data"},
	}
	// demoLate happened between the update and the deletion, and comes after both.
	demoLate = wireEvent{
		ID: "evt_2999999999", Type: "permission.updated", EnvironmentID: demoEnvironment, OccurredAt: "2024-01-15T10:38:00Z",
		Permission: wirePermission{"perm_1234567890", demoPermission, "An update that lost its way"},
	}
)

// expectation is what an answer has to say for the story to be true.
type expectation struct {
	decision bool
	reason   string
	eventID  string // the event that the permission's state rests on; empty: no record
	revision uint64 // of the data
}

// stage is where the story plays.
type stage struct {
	std     streams
	dir     string
	genuine webhook.Keys
	forged  webhook.Keys
	sidecar *child
	failed  []string
}

// run tells the story. Its error says which answers weren't the expected ones.
func (c *demoConfig) run(ctx context.Context, _ []string, std streams) (err error) {
	dir, err := os.MkdirTemp("", "postern-demo-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newStage(dir, std)
	if err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.sidecar.stop()) }()
	if err := s.tell(ctx); err != nil {
		return err
	}
	if len(s.failed) > 0 {
		return fmt.Errorf("the story didn't come true: %s", strings.Join(s.failed, "; "))
	}
	s.say("\nEvery answer was the expected one.\n")
	if c.serve {
		s.keepServing(ctx)
	}
	return nil
}

func newStage(dir string, std streams) (*stage, error) {
	s := &stage{std: std, dir: dir}
	secret := newSecret()
	var err error
	if s.genuine, err = webhook.ParseKeys(secret); err != nil {
		return nil, err
	}
	if s.forged, err = webhook.ParseKeys(newSecret()); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.secretFile(), []byte(secret+"\n"), 0o600)
}

func newSecret() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails, by its documentation
	return "whsec_" + base64.StdEncoding.EncodeToString(key[:])
}

func (s *stage) secretFile() string { return filepath.Join(s.dir, "webhook-secret") }

func (s *stage) start(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	started, err := startChild(ctx, executable,
		"--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir="+filepath.Join(s.dir, "data"),
		"--webhook-secret-file="+s.secretFile(), "--environment-id="+demoEnvironment,
	)
	if err == nil {
		s.sidecar = started
	}
	return err
}

func (s *stage) say(format string, arguments ...any) {
	fmt.Fprintf(s.std.stdout, format, arguments...)
}

// tell is the story. It goes on after a wrong answer, and says so.
func (s *stage) tell(ctx context.Context) error {
	s.say("Postern's demo: a sidecar runs on this machine, and Scalekit's webhooks come in.\n"+
		"Ada's access token was issued this morning. It says that she holds %s,\n"+
		"and it will go on saying so until it expires. After each event the app asks Postern.\n\n"+
		"  decision API  POST http://%s/v1/authorize\n"+
		"  webhooks      POST http://%s/webhooks/scalekit\n", demoPermission, s.sidecar.addr("authorize"), s.sidecar.addr("webhook"))
	scenes := []func(context.Context) error{
		s.nothingKnown, s.created, s.forgery, s.updated, s.duplicate, s.notHers, s.killed, s.deleted, s.late,
	}
	for _, scene := range scenes {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) nothingKnown(ctx context.Context) error {
	s.say("\n1. Before the first webhook nobody knows whether %s exists. Postern doesn't guess.\n", demoPermission)
	return s.ask(ctx, "Ada", true, expectation{false, "catalog_incomplete", "", 0})
}

func (s *stage) created(ctx context.Context) error {
	s.say("\n2. An administrator creates the permission.\n")
	if err := s.deliver(ctx, demoCreated, s.genuine, http.StatusCreated, "applied"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{true, "granted", demoCreated.ID, 1})
}

func (s *stage) forgery(ctx context.Context) error {
	s.say("\n3. Somebody without the signing secret tries to delete it.\n")
	if err := s.deliver(ctx, demoDeleted, s.forged, http.StatusUnauthorized, "signature_mismatch"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{true, "granted", demoCreated.ID, 1})
}

func (s *stage) updated(ctx context.Context) error {
	s.say("\n4. The administrator words its description better.\n")
	if err := s.deliver(ctx, demoUpdated, s.genuine, http.StatusCreated, "applied"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{true, "granted", demoUpdated.ID, 2})
}

func (s *stage) duplicate(ctx context.Context) error {
	s.say("\n5. Scalekit delivers at least once: the same event comes again, and changes nothing.\n")
	if err := s.deliver(ctx, demoUpdated, s.genuine, http.StatusCreated, "duplicate"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{true, "granted", demoUpdated.ID, 2})
}

func (s *stage) notHers(ctx context.Context) error {
	s.say("\n6. Bob's token never had the permission.\n")
	return s.ask(ctx, "Bob", false, expectation{false, "not_granted", demoUpdated.ID, 2})
}

func (s *stage) killed(ctx context.Context) error {
	s.say("\n7. kill -9. The sidecar dies without a word and starts again on the same directory.\n")
	if err := s.sidecar.kill(); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	s.say("   It is back on %s, with everything that it had acknowledged.\n", s.sidecar.addr("authorize"))
	return s.ask(ctx, "Ada", true, expectation{true, "granted", demoUpdated.ID, 2})
}

func (s *stage) deleted(ctx context.Context) error {
	s.say("\n8. The administrator deletes the permission. Ada's token doesn't know.\n")
	if err := s.deliver(ctx, demoDeleted, s.genuine, http.StatusCreated, "applied"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{false, "permission_deleted", demoDeleted.ID, 3})
}

func (s *stage) late(ctx context.Context) error {
	s.say("\n9. An update from before the deletion arrives late. The dead stay dead.\n")
	if err := s.deliver(ctx, demoLate, s.genuine, http.StatusCreated, "unchanged"); err != nil {
		return err
	}
	return s.ask(ctx, "Ada", true, expectation{false, "permission_deleted", demoDeleted.ID, 3})
}

// deliver posts an event as Scalekit does, signed with keys, and tells how it went.
func (s *stage) deliver(ctx context.Context, e wireEvent, keys webhook.Keys, status int, outcome string) error {
	body, err := e.body()
	if err != nil {
		return err
	}
	answer, err := deliver(ctx, "http://"+s.sidecar.addr("webhook")+"/webhooks/scalekit", body, keys.Sign("msg_"+rand.Text(), time.Now(), body))
	if err != nil {
		return err
	}
	s.say("   webhook   %s  %s  %s  (%s at %s)\n", e.Type, e.Permission.Name, e.Permission.ID, e.ID, e.OccurredAt)
	s.say("   answer    %d %s\n", answer.status, answer.body)
	if answer.status != status || !strings.Contains(answer.body, `"`+outcome+`"`) {
		s.miss("the webhook %s: want %d %s, got %d %s", e.ID, status, outcome, answer.status, answer.body)
	}
	return nil
}

// ask asks whether somebody may manage the data, and tells what came back.
func (s *stage) ask(ctx context.Context, who string, holds bool, want expectation) error {
	permissions := []string{}
	if holds {
		permissions = append(permissions, demoPermission)
	}
	question, err := json.Marshal(map[string]any{
		"subject":  map[string]any{"type": "user", "id": "usr_" + strings.ToLower(who), "properties": map[string]any{"permissions": permissions}},
		"action":   map[string]any{"name": demoPermission},
		"resource": map[string]any{"type": "dataset", "id": "ds_7"},
	})
	if err != nil {
		return err
	}
	answer, err := deliver(ctx, "http://"+s.sidecar.addr("authorize")+"/v1/authorize", question, http.Header{})
	if err != nil {
		return err
	}
	s.say("   question  may %s do %s? (the token says %s)\n", who, demoPermission, map[bool]string{true: "yes", false: "no"}[holds])
	s.judge(answer, want)
	return nil
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

func (s *stage) judge(answer httpAnswer, want expectation) {
	var got demoAnswer
	if err := json.Unmarshal([]byte(answer.body), &got); err != nil || answer.status != http.StatusOK {
		s.miss("the question: want 200 and a decision, got %d %s", answer.status, answer.body)
		return
	}
	seen := expectation{decision: got.Decision, reason: strings.Join(got.Context.Reasons, ","), revision: got.Context.DataRevision}
	rests := "nothing: there was no such event"
	if got.Context.Permission != nil {
		seen.eventID = got.Context.Permission.EventID
		rests = seen.eventID
	}
	s.say("   decision  %s, %s\n   rests on  %s (data revision %d)\n", map[bool]string{true: "ALLOW", false: "DENY"}[seen.decision], seen.reason, rests, seen.revision)
	if seen != want {
		s.miss("the answer: want %+v, got %+v", want, seen)
	}
}

func (s *stage) miss(format string, arguments ...any) {
	s.failed = append(s.failed, fmt.Sprintf(format, arguments...))
	s.say("   !! this was not expected\n")
}

// keepServing leaves the sidecar to the reader until ctx ends.
func (s *stage) keepServing(ctx context.Context) {
	postern := "postern"
	if executable, err := os.Executable(); err == nil && strings.Contains(executable, "go-build") {
		postern = "go run ./sidecar" // that's how it was started
	}
	s.say("\nThe sidecar goes on until you press Ctrl-C. In another terminal, create the permission again:\n\n"+
		"  %s event send --url http://%s/webhooks/scalekit --environment-id %s \\\n"+
		"    --webhook-secret-file %s --permission-id perm_2\n\nand ask:\n\n"+
		"  curl -s http://%s/v1/authorize -H 'Content-Type: application/json' -d '%s'\n",
		postern, s.sidecar.addr("webhook"), demoEnvironment, s.secretFile(), s.sidecar.addr("authorize"),
		`{"subject":{"type":"user","id":"usr_ada","properties":{"permissions":["data:manage"]}},"action":{"name":"data:manage"},"resource":{"type":"dataset","id":"ds_7"}}`)
	<-ctx.Done()
}
