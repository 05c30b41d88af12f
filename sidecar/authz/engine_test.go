package authz_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/listener"
)

// document is what a data document of the catalog looks like to the engine.
func document() storage.Store {
	return inmem.NewFromObjectWithOpts(map[string]any{"scalekit": map[string]any{
		"permissions": map[string]any{"live": map[string]any{"id": "perm_1", "name": "live", "event_id": "evt_1"}, "listed": map[string]any{"id": "perm_3", "event_id": nil}},
		"deleted":     map[string]any{"gone": map[string]any{"id": "perm_2", "event_id": "evt_2"}},
		"sync":        map[string]any{"revision": 7, "event_id": "evt_2", "as_of": "2024-01-15T10:40:00.123456789Z"},
	}}, inmem.OptReturnASTValuesOnRead(true))
}

func policy(t testing.TB, store storage.Store, rego string) authz.Policy {
	t.Helper()
	module, err := ast.ParseModule("test.rego", "package test\n"+rego)
	if err != nil {
		t.Fatal(err)
	}
	compiler := ast.NewCompiler()
	if compiler.Compile(map[string]*ast.Module{"test.rego": module}); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	return authz.Policy{Compiler: compiler, Store: store, Decision: ast.MustParseRef("data.test.decision"), Revision: "test-1"}
}

func engine(t testing.TB, store storage.Store, rego string, timeout time.Duration) *authz.Engine {
	t.Helper()
	e := authz.NewEngine(authz.Options{Timeout: timeout, MaxInFlight: 2})
	if err := e.Use(context.Background(), policy(t, store, rego)); err != nil {
		t.Fatal(err)
	}
	return e
}

func body(permission string) string {
	return fmt.Sprintf(`{"subject":{"type":"user","id":"usr_1"},"action":{"name":%q},"resource":{"type":"r","id":"1"}}`, permission)
}

func decide(t testing.TB, e *authz.Engine, permission string) authz.Decision {
	t.Helper()
	d, err := e.Decide(context.Background(), []byte(body(permission)), "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhateverThePolicyAnswersIsADecision(t *testing.T) {
	for rego, want := range map[string]struct {
		allow   bool
		reasons string
	}{
		`decision := true`:                                                             {true, ""},
		`decision := false`:                                                            {false, "policy_denied"},
		`decision := {"decision": true}`:                                               {true, ""},
		`decision := {"decision": true, "reasons": {"b", "a"}}`:                        {true, "a,b"},
		`decision := {"decision": false, "reasons": ["b", "a"]}`:                       {false, "b,a"},
		`decision := {"decision": false, "reasons": []}`:                               {false, "policy_denied"},
		`decision := {"decision": "true"}`:                                             {false, "evaluation_error"},
		`decision := {"decision": 1}`:                                                  {false, "evaluation_error"},
		`decision := {"allow": true}`:                                                  {false, "evaluation_error"},
		`decision := {"decision": true, "reasons": [1]}`:                               {false, "evaluation_error"},
		`decision := {"decision": true, "reasons": "granted"}`:                         {false, "evaluation_error"},
		`decision := {"decision": true, "reasons": null}`:                              {false, "evaluation_error"},
		`decision := "true"`:                                                           {false, "evaluation_error"},
		`decision := [true]`:                                                           {false, "evaluation_error"},
		`decision := null`:                                                             {false, "evaluation_error"},
		`decision if { input.action.name == "other" }`:                                 {false, "undefined_decision"},
		"decision := true if input.action.name\ndecision := false if input.subject.id": {false, "evaluation_error"},
		`decision := count(numbers.range(1, 1e8)) > 0`:                                 {false, "evaluation_timeout"},
	} {
		timeout := 30 * time.Second
		if want.reasons == authz.ReasonEvaluationTimeout {
			timeout = 50 * time.Millisecond
		}
		d := decide(t, engine(t, document(), rego, timeout), "live")
		if got := strings.Join(d.Reasons, ","); d.Allow != want.allow || got != want.reasons {
			t.Errorf("%s: got %v %s (%s), want %v %s", rego, d.Allow, got, d.Message, want.allow, want.reasons)
		}
		if d.DataRevision != "7" || d.EventID != "evt_2" || d.AsOf != "2024-01-15T10:40:00.123456789Z" || d.PolicyRevision != "test-1" || len(d.ID) != 36 {
			t.Errorf("%s: provenance %+v", rego, d)
		}
	}
}

func TestPermissionProvenance(t *testing.T) {
	e := engine(t, document(), `decision := true`, time.Second)
	for name, want := range map[string]authz.Permission{
		"live": {ID: "perm_1", Name: "live", EventID: "evt_1"}, "gone": {ID: "perm_2", Name: "gone", EventID: "evt_2"}, "listed": {ID: "perm_3", Name: "listed"},
	} {
		if d := decide(t, e, name); d.Permission == nil || *d.Permission != want {
			t.Errorf("%s: got %+v, want %+v", name, d.Permission, want)
		}
	}
	if d := decide(t, e, "unknown"); d.Permission != nil {
		t.Errorf("unknown: got %+v", d.Permission)
	}
}

// A runaway policy is really stopped: OPA's evaluation ends, and its turn is free again.
func TestARunawayPolicyIsStopped(t *testing.T) {
	e := engine(t, document(), `decision if { some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == -1 }`, 30*time.Millisecond)
	for range 6 { // more than there are turns
		if d := decide(t, e, "live"); d.Allow || d.Reasons[0] != authz.ReasonEvaluationTimeout {
			t.Fatalf("got %+v", d)
		}
	}
}

// blocking is a document whose reads wait, to keep an evaluation in flight.
type blocking struct {
	storage.Store
	entered chan struct{}
	release chan struct{}
}

func (b blocking) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	if len(path) > 2 && path[2] == "wait" {
		select {
		case b.entered <- struct{}{}:
		case <-time.After(20 * time.Second):
			return nil, errors.New("nobody expected one more question in hand")
		}
		<-b.release
	}
	return b.Store.Read(ctx, txn, path)
}

func TestEvaluationsInFlightAreBounded(t *testing.T) {
	store := blocking{document(), make(chan struct{}), make(chan struct{})}
	e := engine(t, store, `decision if { not data.scalekit.permissions[input.action.name] }`, time.Second)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { decide(t, e, "wait") })
		<-store.entered
	}
	d := decide(t, e, "other")
	if d.Allow || d.Reasons[0] != authz.ReasonEvaluationTimeout || !strings.Contains(d.Message, "in hand") || d.DataRevision != "7" {
		t.Errorf("got %+v", d)
	}
	go func() {
		for range store.entered { // the provenance of the waiting ones is read as well
		}
	}()
	close(store.release)
	wg.Wait()
	if d := decide(t, e, "other"); !d.Allow {
		t.Errorf("afterwards: %+v", d)
	}
}

type failingRead struct{ storage.Store }

type unavailable struct{ error }

func (unavailable) CatalogUnavailable() {}

func (f failingRead) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	if len(path) > 2 && path[1] == "permissions" && path[2] == "broken" {
		return nil, unavailable{errors.New("disk /dev/sda1 is on fire")}
	}
	return f.Store.Read(ctx, txn, path)
}

func TestAFailedReadIsADenyThatSaysSo(t *testing.T) {
	for _, rego := range []string{`decision if { data.scalekit.permissions[input.action.name] }`, `decision if { not data.scalekit.permissions[input.action.name] }`, `decision := true`} {
		d := decide(t, engine(t, failingRead{document()}, rego, time.Second), "broken")
		if d.Allow || d.Reasons[0] != authz.ReasonCatalogUnavailable || strings.Contains(d.Message, "sda1") || d.DataRevision != "7" {
			t.Errorf("%s: got %+v", rego, d)
		}
	}
}

func TestAQuestionBeforeAnyPolicy(t *testing.T) {
	e := authz.NewEngine(authz.Options{Timeout: time.Second, MaxInFlight: 1})
	if _, err := e.Decide(context.Background(), []byte(body("live")), ""); !errors.Is(err, authz.ErrNoPolicy) {
		t.Errorf("got %v", err)
	}
	if _, loaded := e.PolicyRevision(); loaded {
		t.Error("a policy is loaded")
	}
	w := httptest.NewRecorder()
	handler(e).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(body("live"))))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "not_ready") || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestAnotherPolicyTakesOver(t *testing.T) {
	e := engine(t, document(), `decision := true`, time.Second)
	denying := policy(t, document(), `decision := false`)
	denying.Revision = "test-2"
	if err := e.Use(context.Background(), denying); err != nil {
		t.Fatal(err)
	}
	if d := decide(t, e, "live"); d.Allow || d.PolicyRevision != "test-2" {
		t.Errorf("got %+v", d)
	}
}

func handler(e *authz.Engine) http.Handler {
	return listener.Contain(authz.NewHandler(e, nil, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
}

func TestHandler(t *testing.T) {
	server := httptest.NewServer(handler(engine(t, document(), `decision := {"decision": true, "reasons": ["granted"], "ttl": 5, "tags": {"b", "a"}, "decision_id": "mine"}`, time.Second)))
	t.Cleanup(server.Close)
	for _, test := range []struct {
		name, contentType, encoding, body string
		status                            int
		code                              string
	}{
		{"a question", "application/json", "", body("live"), 200, ""},
		{"with a charset", "application/json; charset=utf-8", "", body("live"), 200, ""},
		{"without a type", "", "", body("live"), 200, ""},
		{"a form", "application/x-www-form-urlencoded", "", body("live"), 400, "content_type_unsupported"},
		{"compressed", "application/json", "gzip", body("live"), 400, "content_encoding_unsupported"},
		{"empty", "application/json", "", "", 400, "malformed_question"},
		{"malformed", "application/json", "", "{", 400, "malformed_question"},
		{"too large", "application/json", "", strings.Repeat(" ", authz.MaxQuestion+1), 413, "body_too_large"},
		{"many members", "application/json", "", manyMembers(1001), 400, "malformed_question"},
		{"many values", "application/json", "", manyValues(50_001), 400, "malformed_question"},
		{"as many values as may be", "application/json", "", manyValues(50_000), 200, ""},
		{"as large as may be", "application/json", "", strings.Repeat(" ", authz.MaxQuestion-len(body("live"))) + body("live"), 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPost, server.URL+"/v1/authorize", strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-Request-ID", "req-1")
			if test.contentType != "" {
				request.Header.Set("Content-Type", test.contentType)
			}
			if test.encoding != "" {
				request.Header.Set("Content-Encoding", test.encoding)
			}
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			var answer struct {
				Decision bool
				Context  map[string]any
				Error    struct{ Code, Message string }
			}
			if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status || answer.Error.Code != test.code || response.Header.Get("X-Request-ID") != "req-1" {
				t.Fatalf("got %d %+v", response.StatusCode, answer)
			}
			if test.status != 200 {
				return
			}
			if !answer.Decision || fmt.Sprint(answer.Context["ttl"]) != "5" || fmt.Sprint(answer.Context["tags"]) != "[a b]" || answer.Context["decision_id"] == "mine" ||
				fmt.Sprint(answer.Context["data_revision"]) != "7" || fmt.Sprint(answer.Context["permission"]) != "map[event_id:evt_1 id:perm_1 name:live]" {
				t.Errorf("got %+v", answer)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	e := engine(b, document(), `decision := {"decision": true, "reasons": {"granted"}} if { data.scalekit.permissions[input.action.name]; input.subject.type == "user" }`, time.Second)
	raw := []byte(body("live"))
	b.ReportAllocs()
	for b.Loop() {
		d, err := e.Decide(context.Background(), raw, "")
		if err != nil || !d.Allow {
			b.Fatal(d, err)
		}
		if _, err := d.AppendJSON(nil); err != nil {
			b.Fatal(err)
		}
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	b.WriteString(`{"context":{"a":0`)
	for i := range n - 1 {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return b.String() + `}` + `,` + body("live")[1:]
}

// manyValues makes a question of n values: body has nine, and the array is one.
func manyValues(n int) string {
	return `{"x":[` + strings.Repeat("1,", n-10-1) + `1],` + body("live")[1:]
}

// counted is a document that counts its transactions.
type counted struct {
	storage.Store
	mu          sync.Mutex
	begun, open int
}

func (c *counted) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	c.open++
	return c.Store.NewTransaction(ctx, params...)
}

func (c *counted) Abort(ctx context.Context, txn storage.Transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.Store.Abort(ctx, txn)
}

// A decision and its provenance come from one transaction, which ends.
func TestOneTransactionPerDecision(t *testing.T) {
	store := &counted{Store: document()}
	e := engine(t, store, `decision if { data.scalekit.permissions[input.action.name] }`, time.Second)
	before := store.begun
	for i, name := range []string{"live", "gone", "unknown"} {
		decide(t, e, name)
		if store.begun != before+i+1 || store.open != 0 {
			t.Errorf("after %d decisions: %d transactions, %d of them open", i+1, store.begun-before, store.open)
		}
	}
}

// Large questions take turns of their own: small ones don't queue behind them.
func TestLargeQuestionsDontCrowdOutSmallOnes(t *testing.T) {
	store := blocking{document(), make(chan struct{}), make(chan struct{})}
	e := authz.NewEngine(authz.Options{Timeout: time.Second, MaxInFlight: 10})
	if err := e.Use(context.Background(), policy(t, store, `decision if { not data.scalekit.permissions[input.action.name] }`)); err != nil {
		t.Fatal(err)
	}
	large := []byte(body("wait") + strings.Repeat(" ", 20<<10))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := e.Decide(context.Background(), large, ""); err != nil {
				t.Error(err)
			}
		})
		<-store.entered
	}
	if d, err := e.Decide(context.Background(), large, ""); err != nil || d.Allow || d.Reasons[0] != authz.ReasonEvaluationTimeout {
		t.Errorf("a third large one: %+v, %v", d, err)
	}
	if d := decide(t, e, "other"); !d.Allow {
		t.Errorf("a small one: %+v", d)
	}
	go func() {
		for range store.entered { // the provenance of the waiting ones is read as well
		}
	}()
	close(store.release)
	wg.Wait()
}
