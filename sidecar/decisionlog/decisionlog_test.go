package decisionlog_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postern-authz/postern/sidecar/decisionlog"
)

// service is a decision log service: it takes uploads as OPA's documentation describes them.
type service struct {
	url    string
	events chan map[string]any

	mu     sync.Mutex
	answer func() int // status of the next upload
}

func newService(t *testing.T, answer func() int) *service {
	t.Helper()
	s := &service{events: make(chan map[string]any, 20_000), answer: answer}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		if status := answer(); status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
	}
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/logs" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var events []map[string]any
	if err := json.NewDecoder(unzipped).Decode(&events); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, event := range events {
		s.events <- event
	}
}

// next waits for an event.
func (s *service) next(t *testing.T) map[string]any {
	t.Helper()
	select {
	case event := <-s.events:
		return event
	case <-time.After(20 * time.Second):
		t.Fatal("no event was uploaded")
		return nil
	}
}

// fixture is a log beside its service.
type fixture struct {
	*decisionlog.Log
	service *service
	lines   *lockedBuffer
	reader  *sdk.ManualReader
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

const quick = `{"service":"sink","reporting":{"min_delay_seconds":1,"max_delay_seconds":1}}`

func newFixture(t *testing.T, section string, answer func() int) fixture {
	t.Helper()
	f := fixture{service: newService(t, answer), lines: &lockedBuffer{}, reader: sdk.NewManualReader()}
	log, err := decisionlog.New(t.Context(), decisionlog.Options{
		Services:     fmt.Appendf(nil, `{"sink":{"url":%q,"credentials":{"bearer":{"token":"s3cr3t-bearer"}}}}`, f.service.url),
		DecisionLogs: []byte(section),
		ID:           "instance-1",
		Logger:       slog.New(slog.NewJSONHandler(f.lines, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Meter:        sdk.NewMeterProvider(sdk.WithReader(f.reader)).Meter("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Log = log
	return f
}

// close ends the log, uploading what is left.
func (f fixture) close(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer stop()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

// dropped reads the metric, by cause.
func (f fixture) dropped(t *testing.T) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := f.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	causes := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				cause, _ := point.Attributes.Value(attribute.Key("cause"))
				causes[cause.AsString()] = point.Value
			}
		}
	}
	return causes
}

func entry(id string) decisionlog.Entry {
	return decisionlog.Entry{
		DecisionID: id,
		Decision:   "authz/decision",
		Revision:   "r1",
		Input:      ast.MustParseTerm(`{"subject": {"id": "usr_1", "properties": {"password": "hunter2"}}, "action": {"name": "data:manage"}}`).Value,
		Answer:     []byte(`{"decision":false,"context":{"reasons":["permission_deleted"],"event_id":"evt_7"}}`),
		At:         time.Date(2024, 1, 15, 10, 35, 0, 5, time.UTC),
	}
}

// What stands in the log is OPA's form with Postern's answer in it.
func TestAnEntryIsUploaded(t *testing.T) {
	f := newFixture(t, quick, nil)
	f.Record(entry("d-1"), 100)
	got := f.service.next(t)
	f.close(t)
	for key, want := range map[string]string{
		"decision_id": `"d-1"`,
		"path":        `"authz/decision"`,
		"bundles":     `{"policy":{"revision":"r1"}}`,
		"timestamp":   `"2024-01-15T10:35:00.000000005Z"`,
		"input":       `{"action":{"name":"data:manage"},"subject":{"id":"usr_1","properties":{"password":"hunter2"}}}`,
		"result":      `{"context":{"event_id":"evt_7","reasons":["permission_deleted"]},"decision":false}`,
	} {
		if encoded, _ := json.Marshal(got[key]); string(encoded) != want {
			t.Errorf("%s: got %s, want %s", key, encoded, want)
		}
	}
	if labels, _ := got["labels"].(map[string]any); labels["id"] != "instance-1" {
		t.Errorf("got labels %v, want the instance's id", labels)
	}
	if strings.Contains(f.lines.String(), "s3cr3t-bearer") {
		t.Error("the log tells the service's token")
	}
}

// A question that wasn't read has a decision all the same.
func TestAnEntryWithoutAQuestion(t *testing.T) {
	f := newFixture(t, quick, nil)
	e := entry("d-1")
	e.Input = nil
	f.Record(e, 0)
	f.close(t)
	if got := f.service.next(t); got["input"] != nil || got["result"] == nil {
		t.Errorf("got input %v and result %v, want none and the answer", got["input"], got["result"])
	}
}

// A policy's own mask and drop rules hold, those of the newest policy.
func TestPoliciesMaskAndDrop(t *testing.T) {
	f := newFixture(t, quick, nil)
	compiler, err := ast.CompileModules(map[string]string{"log.rego": `
package system.log

mask contains "/input/subject/properties/password"

drop if input.input.action.name in data.uninteresting
`})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Use(t.Context(), compiler, map[string]any{"uninteresting": []any{"health:check"}}); err != nil {
		t.Fatal(err)
	}
	dull := entry("d-0")
	dull.Input = ast.MustParseTerm(`{"action": {"name": "health:check"}}`).Value
	f.Record(dull, 100)
	f.Record(entry("d-1"), 100)
	f.close(t)
	got := f.service.next(t)
	if got["decision_id"] != "d-1" {
		t.Errorf("got %v first, want d-1: d-0 is to be dropped", got["decision_id"])
	}
	if encoded, _ := json.Marshal(got); strings.Contains(string(encoded), "hunter2") {
		t.Errorf("got %s, want it without the password", encoded)
	}
}

// What masks can't be asked about isn't logged: it might have been masked.
func TestAMaskThatFailsKeepsTheEntryBack(t *testing.T) {
	f := newFixture(t, quick, nil)
	compiler, err := ast.CompileModules(map[string]string{"log.rego": `
package system.log

mask := "/input/subject" if input.decision_id == "d-1"

mask := "/input/action" if input.input.subject.id == "usr_1"
`})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Use(t.Context(), compiler, map[string]any{}); err != nil {
		t.Fatal(err)
	}
	f.Record(entry("d-1"), 100)
	f.close(t)
	if n := len(f.service.events); n != 0 {
		t.Errorf("%d entries were uploaded, want none", n)
	}
	if lost := f.dropped(t)["refused"]; lost != 1 {
		t.Errorf("%d are counted as lost, want 1", lost)
	}
	if !strings.Contains(f.lines.String(), "masking failed") {
		t.Errorf("got the log %s, want it to tell of the mask", f.lines)
	}
}

// A failure that each decision brings is a few lines, and quotes no question.
func TestFailingMasksAreToldOfOnce(t *testing.T) {
	f := newFixture(t, quick, nil)
	compiler, err := ast.CompileModules(map[string]string{"log.rego": `
package system.log

mask contains "/input" if to_number(input.input.subject.properties.password) > 0

mask contains "/result" if regex.match(input.input.subject.properties.password, "(")
`})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Use(t.Context(), compiler, map[string]any{"scalekit": map[string]any{}}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		f.Record(entry("d"), 100)
	}
	f.close(t)
	if n := strings.Count(f.lines.String(), "\n"); n > 5 || strings.Contains(f.lines.String(), "hunter2") {
		t.Errorf("got %d lines, want a few without the password:\n%s", n, f.lines)
	}
}

// A service that doesn't answer keeps no decision waiting and fills no memory.
func TestASlowServiceDropsAndCounts(t *testing.T) {
	f := newFixture(t, quick, nil)
	const n = 200
	began := time.Now()
	for range n {
		f.Record(entry("d"), 1<<20) // of which two fit
	}
	took := time.Since(began)
	f.close(t)
	lost := f.dropped(t)
	if lost["queue"] == 0 || lost["queue"] >= n {
		t.Errorf("got %v lost of %d, want some", lost, n)
	}
	if took > 5*time.Second {
		t.Errorf("recording took %v: it waited", took)
	}
	if got := int64(len(f.service.events)) + lost["queue"] + lost["encoding"] + lost["buffer"]; got != n {
		t.Errorf("%d were uploaded and %v lost, want %d together", len(f.service.events), lost, n)
	}
}

// What a service refuses is sent again.
func TestAnUploadIsRepeated(t *testing.T) {
	var tries int
	f := newFixture(t, quick, func() int {
		if tries++; tries < 3 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	f.Record(entry("d-1"), 100)
	if got := f.service.next(t); got["decision_id"] != "d-1" {
		t.Errorf("got %v, want d-1", got["decision_id"])
	}
	f.close(t)
	if !strings.Contains(f.lines.String(), "503") {
		t.Errorf("got the log %s, want it to tell of the refusal", f.lines)
	}
}

// Decisions, and the headers that the configuration sends along, go to the service alone.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := make(chan string, 100)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.Header.Get("X-Api-Key") }))
	defer other.Close()
	asked := make(chan string, 100)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("X-Api-Key") + r.Header.Get("Authorization")
		http.Redirect(w, r, other.URL+"/logs", http.StatusTemporaryRedirect)
	}))
	defer service.Close()
	log, err := decisionlog.New(t.Context(), decisionlog.Options{
		Services: fmt.Appendf(nil, `[{"name":"sink","url":%q,"headers":{"X-Api-Key":"k3y"},"credentials":{"bearer":{"token":"t0ken"}}}]`, service.URL),
		Keys:     []byte(`{"signer":{"algorithm":"HS256","key":"0123456789abcdef0123456789abcdef"}}`), DecisionLogs: []byte(quick), ID: "i",
		Logger: slog.New(slog.DiscardHandler), Meter: sdk.NewMeterProvider().Meter("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	log.Record(entry("d-1"), 100)
	for range 2 { // it is refused, and tried again
		select {
		case got := <-asked:
			if got != "k3yBearer t0ken" {
				t.Errorf("the service was asked with %q", got)
			}
		case key := <-elsewhere:
			t.Fatalf("an upload went elsewhere, with the key %q", key)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	_ = log.Close(ctx) // it can't be uploaded
	if len(elsewhere) > 0 {
		t.Errorf("%d uploads went elsewhere, with the key %q", len(elsewhere), <-elsewhere)
	}
}

func TestCloseUploadsWhatIsQueued(t *testing.T) {
	f := newFixture(t, `{"service":"sink","reporting":{"min_delay_seconds":300,"max_delay_seconds":600}}`, nil)
	for i := range 1000 {
		f.Record(entry(fmt.Sprintf("d-%d", i)), 10)
	}
	f.close(t)
	if n := len(f.service.events); n != 1000 {
		t.Errorf("%d entries were uploaded, want 1000", n)
	}
	f.Record(entry("late"), 10) // lost, and no panic
}

func TestConfigurationErrors(t *testing.T) {
	for section, want := range map[string]string{
		`[]`:                                   "decision_logs: want an object",
		`{"service":"elsewhere"}`:              `decision_logs: invalid service name "elsewhere"`,
		`{"service":"sink","plugin":"mine"}`:   "decision_logs: plugin:",
		`{"service":"sink","console":true}`:    "decision_logs: console:",
		`{"service":"sink","reporting":[]}`:    "decision_logs: reporting: want an object",
		`{"service":"sink","mask_decision":7}`: "decision_logs: ",
		`{"service":"sink","reporting":{"min_delay_seconds":9,"max_delay_seconds":1}}`: "decision_logs: max reporting delay",
	} {
		_, err := decisionlog.New(t.Context(), decisionlog.Options{
			Services: []byte(`{"sink":{"url":"http://127.0.0.1:1"}}`), DecisionLogs: []byte(section),
			ID: "i", Logger: slog.New(slog.DiscardHandler), Meter: sdk.NewMeterProvider().Meter("test"),
		})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", section, err, want)
		}
	}
	_, err := decisionlog.New(t.Context(), decisionlog.Options{
		DecisionLogs: []byte(`{}`), ID: "i", Logger: slog.New(slog.DiscardHandler), Meter: sdk.NewMeterProvider().Meter("test"),
	})
	if err == nil || !strings.Contains(err.Error(), "service") {
		t.Errorf("without services: got %v, want it to ask for one", err)
	}
}

// The end doesn't depend on the service: neither one that never answers nor one whose answer
// never ends holds it up beyond the deadline.
func TestCloseDoesNotWaitForTheService(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"no answer":         func(http.ResponseWriter) {},
		"an endless answer": func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK); _ = http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			asked, release := make(chan struct{}, 100), make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer(w)
				asked <- struct{}{}
				<-release
			}))
			defer server.Close()
			defer close(release)
			log, err := decisionlog.New(t.Context(), decisionlog.Options{
				Services:     fmt.Appendf(nil, `{"sink":{"url":%q}}`, server.URL),
				DecisionLogs: []byte(quick),
				ID:           "instance-1",
				Logger:       slog.New(slog.DiscardHandler),
				Meter:        sdk.NewMeterProvider().Meter("test"),
			})
			if err != nil {
				t.Fatal(err)
			}
			log.Record(entry("d-1"), 100)
			<-asked
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer stop()
			began := time.Now()
			_ = log.Close(ctx) // what it says doesn't matter here
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v to close", took)
			}
		})
	}
}
