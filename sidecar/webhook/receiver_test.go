package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	secret      = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	other       = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	environment = "env_1234567890"
	event       = `{"id":"evt_1","type":"permission.created","environment_id":"env_1234567890","occurred_at":"2026-01-01T00:00:00Z","data":{"id":"perm_1","name":"data:manage"}}`
)

// sink keeps what it was given, and does what it is told.
type sink struct {
	mu     sync.Mutex
	events []permission.Event
	do     func(context.Context) (permission.Outcome, error)
}

func (s *sink) Apply(ctx context.Context, e permission.Event) (permission.Outcome, error) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	if s.do != nil {
		return s.do(ctx)
	}
	return permission.OutcomeApplied, nil
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// fixture is a receiver, and what surrounds it.
type fixture struct {
	receiver *webhook.Receiver
	config   *http.Server
	server   *httptest.Server // nil in a bubble, whose clock the network doesn't know
	sink     *sink
	keys     atomic.Pointer[webhook.Keys]
	asked    func() // called when the receiver asks for the keys, unless nil
	now      time.Time
	log      *lockedBuffer
	reader   *sdk.ManualReader
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func parse(t testing.TB, text string) webhook.Keys {
	t.Helper()
	keys, err := webhook.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// newFixture is a receiver behind a real server.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := newReceiver(t)
	f.server = httptest.NewUnstartedServer(f.config.Handler)
	f.server.Config = f.config
	f.server.Start()
	t.Cleanup(f.server.Close)
	return f
}

func newReceiver(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{sink: &sink{}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), log: &lockedBuffer{}, reader: sdk.NewManualReader()}
	keys := parse(t, secret)
	f.keys.Store(&keys)
	receiver, err := webhook.NewReceiver(webhook.Config{
		Keys: func() webhook.Keys {
			if f.asked != nil {
				f.asked()
			}
			return *f.keys.Load()
		},
		EnvironmentID: environment,
		Sink:          f.sink,
		Now:           func() time.Time { return f.now },
		Logger:        slog.New(slog.NewJSONHandler(f.log, nil)),
		Meter:         sdk.NewMeterProvider(sdk.WithReader(f.reader)).Meter("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.receiver = receiver
	f.config = listener.NewServer(receiver, time.Minute, slog.New(slog.DiscardHandler))
	return f
}

// deliver signs and posts a body; change is applied to the request before it is sent.
func (f *fixture) deliver(t testing.TB, body string, change func(*http.Request)) (status int, code string, header http.Header) {
	t.Helper()
	status, code, _, header = f.deliverAndRead(t, body, change)
	return status, code, header
}

// deliverAndRead is deliver that returns the whole answer too.
func (f *fixture) deliverAndRead(t testing.TB, body string, change func(*http.Request)) (status int, code, whole string, header http.Header) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, f.server.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = parse(t, secret).Sign("msg_1", f.now, []byte(body))
	if change != nil {
		change(request)
	}
	response, err := f.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Outcome string
		Error   struct{ Code string }
	}
	read, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(read, &answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer.Outcome + answer.Error.Code, string(read), response.Header
}

func TestStatusMap(t *testing.T) {
	const maxBody = 256 << 10 // the contract's
	at := func(text string) string { return strings.Replace(event, "2026-01-01T00:00:00Z", text, 1) }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, test := range []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
		code   string
		kept   int
	}{
		{"an event", event, nil, 201, "applied", 1},
		{"five minutes ahead", at("2026-01-01T12:05:00Z"), nil, 201, "applied", 1},
		{"a foreign type", strings.Replace(event, "permission.created", "user.created", 1), nil, 201, "ignored", 0},
		{"a foreign type from the future", strings.Replace(at("2030-01-01T00:00:00Z"), "permission.created", "user.created", 1), nil, 201, "ignored", 0},
		{"an identity encoding", event, header("Content-Encoding", "identity"), 201, "applied", 1},
		{"no headers", event, func(r *http.Request) { r.Header = http.Header{} }, 401, "signature_headers_missing", 0},
		{"a misleading header", event, func(r *http.Request) { r.Header = http.Header{"Scalekit-Signature": {"t=1,v1=x"}} }, 401, "signature_headers_missing", 0},
		{"two ids", event, func(r *http.Request) { r.Header.Add("webhook-id", "msg_2") }, 401, "signature_headers_malformed", 0},
		{"stale", event, func(r *http.Request) {
			r.Header = parse(t, secret).Sign("msg_1", time.Date(2026, 1, 1, 11, 54, 59, 0, time.UTC), []byte(event))
		}, 401, "timestamp_outside_window", 0},
		{"forged", event, func(r *http.Request) {
			r.Header = parse(t, other).Sign("msg_1", time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), []byte(event))
		}, 401, "signature_mismatch", 0},
		{"malformed and forged: the signature comes first", "{", header("webhook-id", "msg_2"), 401, "signature_mismatch", 0},
		{"malformed", "{", nil, 400, "malformed_event", 0},
		{"malformed, of a foreign environment", `{"type":"permission.created","environment_id":"env_other"}`, nil, 400, "malformed_event", 0},
		{"encoded", event, header("Content-Encoding", "gzip"), 400, "content_encoding_unsupported", 0},
		{"too large", strings.Repeat(" ", maxBody+1), nil, 413, "body_too_large", 0},
		{"too large, of unknown length", strings.Repeat(" ", maxBody+1), func(r *http.Request) { r.ContentLength = -1 }, 413, "body_too_large", 0},
		{"as large as may be", event + strings.Repeat(" ", maxBody-len(event)), nil, 201, "applied", 1},
		{"another environment", strings.Replace(event, environment, "env_other", 1), nil, 422, "wrong_environment", 0},
		{"a foreign type of another environment", `{"type":"user.created","environment_id":"env_other"}`, nil, 422, "wrong_environment", 0},
		{"another environment from the future", strings.Replace(at("2030-01-01T00:00:00Z"), environment, "env_other", 1), nil, 422, "wrong_environment", 0},
		{"more than five minutes ahead", at("2026-01-01T12:05:00.000000001Z"), nil, 422, "occurred_in_future", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			status, code, _ := f.deliver(t, test.body, test.change)
			if status != test.status || code != test.code || f.sink.count() != test.kept {
				t.Errorf("got %d %s and %d events, want %d %s and %d", status, code, f.sink.count(), test.status, test.code, test.kept)
			}
			if got := f.deliveries(t)[test.code]; got != 1 {
				t.Errorf("counted %v", f.deliveries(t))
			}
		})
	}
}

// What the merge made of an event is passed on and counted as it is.
func TestEveryOutcomeIsASuccess(t *testing.T) {
	f := newFixture(t)
	for _, outcome := range []permission.Outcome{permission.OutcomeApplied, permission.OutcomeUnchanged, permission.OutcomeDuplicate, permission.OutcomeConflict} {
		f.sink.do = func(context.Context) (permission.Outcome, error) { return outcome, nil }
		if status, code, _ := f.deliver(t, event, nil); status != 201 || code != string(outcome) {
			t.Errorf("got %d %s, want 201 %s", status, code, outcome)
		}
		if got := f.deliveries(t)[string(outcome)]; got != 1 {
			t.Errorf("%s: counted %v", outcome, f.deliveries(t))
		}
	}
	if changes := strings.Count(f.log.String(), "permission changed"); changes != 1 {
		t.Errorf("%d changes were logged", changes)
	}
	if !strings.Contains(f.log.String(), "event id came with two contents") {
		t.Errorf("a conflict goes unseen: %s", f.log)
	}
	want := permission.Event{
		ID: "evt_1", Kind: permission.Created, OccurredAt: permission.InstantOf(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		EnvironmentID: environment, PermissionID: "perm_1", Name: "data:manage",
	}
	if got := f.sink.events[0]; got != want {
		t.Errorf("the sink got %+v", got)
	}
}

func TestOnlyPostIsADelivery(t *testing.T) {
	f := newFixture(t)
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		status, code, header := f.deliver(t, event, func(r *http.Request) { r.Method = method })
		if status != 405 || code != "method_not_allowed" || header.Get("Allow") != "POST" || f.sink.count() != 0 {
			t.Errorf("%s: got %d %s, Allow %q", method, status, code, header.Get("Allow"))
		}
	}
}

// Who followed a guide that shows another header is told what is expected; who has a wrong
// clock, by how much.
func TestAnAnswerSaysWhatIsWrong(t *testing.T) {
	f := newFixture(t)
	stamped := func(at time.Time) func(*http.Request) {
		return func(r *http.Request) { r.Header = parse(t, secret).Sign("msg_1", at, []byte(event)) }
	}
	for _, test := range []struct {
		body   string
		change func(*http.Request)
		want   []string
	}{
		{event, func(r *http.Request) { r.Header = http.Header{"Scalekit-Signature": {"t=1,v1=x"}} }, []string{"scalekit-signature", "webhook-id", "webhook-timestamp", "webhook-signature"}},
		{event, func(r *http.Request) { r.Header.Set("webhook-signature", "t=1,v1=x") }, []string{"t=…,v1=…", "webhook-id", "webhook-timestamp", "webhook-signature"}},
		{event, func(r *http.Request) { r.Header = http.Header{} }, []string{"webhook-id", "webhook-timestamp", "webhook-signature"}},
		{event, stamped(f.now.Add(-301 * time.Second)), []string{"300 seconds", "301 seconds behind"}},
		{event, stamped(f.now.Add(400 * time.Second)), []string{"300 seconds", ": 400 seconds ahead"}},
		{strings.Replace(event, environment, "env_other", 1), nil, []string{"environment", "--environment-id"}},
		{strings.Replace(event, `"name":"data:manage"`, `"name":7`, 1), nil, []string{"data.name: want a string that isn't empty, got a number"}},
	} {
		_, _, answer, _ := f.deliverAndRead(t, test.body, test.change)
		for _, want := range test.want {
			if !strings.Contains(answer, want) {
				t.Errorf("got %s, want %q in it", answer, want)
			}
		}
	}
}

func TestAnEventThatCantBeKeptIsAskedForAgain(t *testing.T) {
	f := newFixture(t)
	f.sink.do = func(context.Context) (permission.Outcome, error) {
		return "", errors.New("open /var/lib/postern/catalog.db: no space left on device")
	}
	status, code, answer, header := f.deliverAndRead(t, event, nil)
	if status != 503 || code != "catalog_unavailable" || header.Get("Retry-After") != "5" {
		t.Errorf("got %d %s, Retry-After %q", status, code, header.Get("Retry-After"))
	}
	if strings.Contains(answer, "/var/lib") || strings.Contains(answer, "no space") {
		t.Errorf("the sender is told of this machine: %s", answer)
	}
	if !strings.Contains(f.log.String(), "no space left") {
		t.Errorf("the operator isn't told: %s", f.log)
	}
}

func TestSecretsRotateWithoutARestart(t *testing.T) {
	f := newFixture(t)
	signed := func(with string) int {
		status, _, _ := f.deliver(t, event, func(r *http.Request) { r.Header = parse(t, with).Sign("msg_1", f.now, []byte(event)) })
		return status
	}
	for _, step := range []struct {
		live         string
		first, later int
	}{{secret, 201, 401}, {secret + "\n" + other, 201, 201}, {other, 401, 201}} {
		keys := parse(t, step.live)
		f.keys.Store(&keys)
		if got := [2]int{signed(secret), signed(other)}; got != [2]int{step.first, step.later} {
			t.Errorf("got %v, want %v", got, step)
		}
	}
}

// countingBody notices whether somebody read it.
type countingBody struct {
	io.Reader
	read atomic.Bool
}

func (b *countingBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}

func (b *countingBody) Close() error { return nil }

// What the headers give away is refused before a byte of the body is read.
func TestHeadersAreJudgedBeforeTheBody(t *testing.T) {
	f := newFixture(t)
	for _, change := range []func(http.Header){
		func(h http.Header) { h.Del("webhook-id") },
		func(h http.Header) { h.Set("webhook-timestamp", "1") },
		func(h http.Header) { h.Set("webhook-signature", "v1,***") },
		func(h http.Header) { h.Set("webhook-signature", strings.Repeat("v1,AAAA ", 17)) },
	} {
		body := &countingBody{Reader: strings.NewReader(event)}
		request := httptest.NewRequest(http.MethodPost, "/", body)
		request.Header = parse(t, secret).Sign("msg_1", f.now, []byte(event))
		change(request.Header)
		w := httptest.NewRecorder()
		f.server.Config.Handler.ServeHTTP(w, request)
		if w.Code != 401 || body.read.Load() {
			t.Errorf("got %d, body read: %v", w.Code, body.read.Load())
		}
	}
	body := &countingBody{Reader: strings.NewReader(event)}
	request := httptest.NewRequest(http.MethodPost, "/", body)
	request.Header, request.ContentLength = parse(t, secret).Sign("msg_1", f.now, []byte(event)), webhook.MaxBody+1
	w := httptest.NewRecorder()
	if f.server.Config.Handler.ServeHTTP(w, request); w.Code != 413 || body.read.Load() {
		t.Errorf("too large by its own word: got %d, body read: %v", w.Code, body.read.Load())
	}
}

// A sender who hangs up doesn't cut the commit short.
func TestHangingUpDoesntCancelTheSink(t *testing.T) {
	f := newFixture(t)
	entered, gone, verdict := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f.sink.do = func(ctx context.Context) (permission.Outcome, error) {
		close(entered)
		<-gone
		verdict <- ctx.Err()
		return permission.OutcomeApplied, nil
	}
	ctx, hangUp := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.server.URL, strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = parse(t, secret).Sign("msg_1", f.now, []byte(event))
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		if response, err := f.server.Client().Do(request); err == nil {
			_ = response.Body.Close()
		}
	}()
	<-entered
	hangUp()
	<-finished
	close(gone)
	if err := <-verdict; err != nil {
		t.Errorf("the sink's context: %v", err)
	}
}
