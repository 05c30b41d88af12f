package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

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

// fixture is a receiver behind a real server.
type fixture struct {
	server *httptest.Server
	sink   *sink
	keys   atomic.Pointer[webhook.Keys]
	now    time.Time
	log    *lockedBuffer
	reader *sdk.ManualReader
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

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{sink: &sink{}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), log: &lockedBuffer{}, reader: sdk.NewManualReader()}
	keys := parse(t, secret)
	f.keys.Store(&keys)
	receiver, err := webhook.NewReceiver(webhook.Config{
		Keys:          func() webhook.Keys { return *f.keys.Load() },
		EnvironmentID: environment,
		Sink:          f.sink,
		Now:           func() time.Time { return f.now },
		Logger:        slog.New(slog.NewJSONHandler(f.log, nil)),
		Meter:         sdk.NewMeterProvider(sdk.WithReader(f.reader)).Meter("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.server = httptest.NewUnstartedServer(receiver)
	f.server.Config = listener.NewServer(receiver, time.Minute, slog.New(slog.DiscardHandler))
	f.server.Start()
	t.Cleanup(f.server.Close)
	return f
}

// deliver signs and posts a body; change is applied to the request before it is sent.
func (f *fixture) deliver(t testing.TB, body string, change func(*http.Request)) (status int, code string, header http.Header) {
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
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer.Outcome + answer.Error.Code, response.Header
}

func TestStatusMap(t *testing.T) {
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
		{"too large", strings.Repeat(" ", webhook.MaxBody+1), nil, 413, "body_too_large", 0},
		{"too large, of unknown length", strings.Repeat(" ", webhook.MaxBody+1), func(r *http.Request) { r.ContentLength = -1 }, 413, "body_too_large", 0},
		{"as large as may be", event + strings.Repeat(" ", webhook.MaxBody-len(event)), nil, 201, "applied", 1},
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

// deliveries returns the counter's values by outcome.
func (f *fixture) deliveries(t testing.TB) map[string]int64 {
	t.Helper()
	var collected metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &collected); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				outcome, _ := point.Attributes.Value(attribute.Key("outcome"))
				counts[outcome.AsString()] += point.Value
			}
		}
	}
	return counts
}

func TestAnEventThatCantBeKeptIsAskedForAgain(t *testing.T) {
	f := newFixture(t)
	f.sink.do = func(context.Context) (permission.Outcome, error) {
		return "", errors.New("open /var/lib/postern/catalog.db: no space left on device")
	}
	status, code, header := f.deliver(t, event, nil)
	if status != 503 || code != "catalog_unavailable" || header.Get("Retry-After") == "" {
		t.Errorf("got %d %s, Retry-After %q", status, code, header.Get("Retry-After"))
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

// Senders who have proved nothing can't hold more than 64 bodies; the next one is told to
// come back, and there is room again when they are gone.
func TestBodiesAtOnceAreBounded(t *testing.T) {
	f := newFixture(t)
	var slow []net.Conn
	for range 64 {
		conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		var head bytes.Buffer
		head.WriteString("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n")
		if err := parse(t, secret).Sign("msg_1", f.now, nil).Write(&head); err != nil {
			t.Fatal(err)
		}
		head.WriteString("\r\n")
		if _, err := conn.Write(head.Bytes()); err != nil {
			t.Fatal(err)
		}
		// The server asks for the body when a turn was given and the handler reads.
		if answer := make([]byte, 12); must(io.ReadFull(conn, answer)) != 12 || string(answer) != "HTTP/1.1 100" {
			t.Fatalf("got %q", answer)
		}
		slow = append(slow, conn)
	}
	status, code, header := f.deliver(t, event, nil)
	if status != 503 || code != "too_many_deliveries" || header.Get("Retry-After") == "" || f.sink.count() != 0 {
		t.Errorf("got %d %s", status, code)
	}
	for _, conn := range slow {
		_ = conn.Close()
	}
	if status, code, _ := f.deliver(t, event, nil); status != 201 {
		t.Errorf("afterwards: %d %s", status, code)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestNothingSecretIsLogged(t *testing.T) {
	f := newFixture(t)
	body := strings.Replace(event, `"data":{`, `"data":{"description":"the-body-itself",`, 1)
	var signature string
	f.deliver(t, body, func(r *http.Request) { signature = r.Header.Get("webhook-signature") })
	f.deliver(t, strings.Replace(body, "evt_1", "", 1), nil)
	f.deliver(t, body, func(r *http.Request) { r.Header = parse(t, other).Sign("msg_1", f.now, []byte(body)) })
	logged := f.log.String()
	for _, word := range []string{secret[6:], other[6:], signature[3:], "the-body-itself", "whsec_"} {
		if strings.Contains(logged, word) {
			t.Errorf("%q was logged: %s", word, logged)
		}
	}
	if !strings.Contains(logged, "permission changed") || !strings.Contains(logged, "signature_mismatch") {
		t.Errorf("got %s", logged)
	}
}

func TestAFloodOfFailuresIsFewLines(t *testing.T) {
	f := newFixture(t)
	forge := func(r *http.Request) { r.Header.Set("webhook-id", "msg_forged") }
	for range 50 {
		f.deliver(t, event, forge)
	}
	if lines := strings.Count(f.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines for 50 failures of one kind", lines)
	}
	f.now = f.now.Add(11 * time.Second)
	f.deliver(t, event, forge)
	if !strings.Contains(f.log.String(), `"suppressed":49`) {
		t.Errorf("it isn't told how many were left out: %s", f.log)
	}
}
