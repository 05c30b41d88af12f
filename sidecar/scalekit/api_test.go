package scalekit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/scalekit"
)

const (
	testSecret = "test_secret_0123456789"
	testToken  = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJza2MifQ.c2lnbmF0dXJl"
	testDate   = "Mon, 15 Jan 2024 10:30:00 GMT"
)

// api is a Scalekit on loopback. Its handlers may be replaced before it is asked.
type api struct {
	*httptest.Server
	token, permissions, roles http.HandlerFunc

	mu       sync.Mutex
	requests []string // the paths asked for, with their queries
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{}
	a.token = answering(tokenAnswer(testToken, 86399))
	a.permissions = answering(permissionPage("", 0))
	a.roles = answering(`{"roles":[]}`)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth/token", func(w http.ResponseWriter, r *http.Request) { a.token(w, r) })
	mux.HandleFunc("GET /api/v1/permissions", func(w http.ResponseWriter, r *http.Request) { a.permissions(w, r) })
	mux.HandleFunc("GET /api/v1/roles", func(w http.ResponseWriter, r *http.Request) { a.roles(w, r) })
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.URL.RequestURI())
		a.mu.Unlock()
		w.Header().Set("Date", testDate)
		mux.ServeHTTP(w, r)
	}))
	a.Config.ErrorLog = log.New(io.Discard, "", 0)
	a.Start()
	t.Cleanup(a.Close)
	return a
}

// asked returns what was asked for by now.
func (a *api) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

func tokenAnswer(token string, life int) string {
	return fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, token, life)
}

// listed is one permission as Scalekit lists it.
func listed(id, name string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"description":"","create_time":"2024-01-01T00:00:00Z","update_time":"2024-01-02T00:00:00.5Z","is_scalekit_permission":false}`, id, name)
}

func permissionPage(next string, total int, entries ...string) string {
	return fmt.Sprintf(`{"permissions":[%s],"next_page_token":%q,"prev_page_token":"","total_size":%d}`, strings.Join(entries, ","), next, total)
}

// answering answers 200 with the body.
func answering(body string) http.HandlerFunc { return failing(http.StatusOK, body) }

// failing answers with a status and a body, and headers "Name: value".
func failing(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// oneAfterTheOther gives each request the next handler, and the last one from then on.
func oneAfterTheOther(handlers ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		handler := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		handler(w, r)
	}
}

// errorBody is an error as Scalekit writes it, with the credentials where they don't belong.
func errorBody(code string) string {
	return fmt.Sprintf(`{"code":16,"message":"%s %s","details":[{"error_code":%q}]}`, testSecret, testToken, code)
}

// waits is a sleep that takes no time.
type waits struct{ all []time.Duration }

func (w *waits) sleep(ctx context.Context, wait time.Duration) error {
	w.all = append(w.all, wait)
	return ctx.Err()
}

func configOf(url string) scalekit.ClientConfig {
	return scalekit.ClientConfig{
		BaseURL: url, ClientID: "skc_1", ClientSecret: func() (string, error) { return testSecret + "\n", nil },
		Timeout: 10 * time.Second, UserAgent: "postern/test",
		Sleep: (&waits{}).sleep, Random: func() float64 { return 0.5 },
	}
}

func newClient(t *testing.T, config scalekit.ClientConfig) *scalekit.Client {
	t.Helper()
	c, err := scalekit.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asAPIError returns the error as what it has to be.
func asAPIError(t *testing.T, err error) *scalekit.APIError {
	t.Helper()
	failure := new(scalekit.APIError)
	if !errors.As(err, &failure) {
		t.Fatalf("want an APIError, got %v", err)
	}
	return failure
}
