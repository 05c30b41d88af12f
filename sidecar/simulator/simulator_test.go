package simulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/simulator"
)

// noon is when tests begin.
var noon = time.Date(2026, 1, 15, 12, 0, 0, 123456789, time.UTC)

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(by)
}

// scalekit is a simulator on a loopback port, and who talks to it.
type scalekit struct {
	*simulator.Simulator
	t     *testing.T
	url   string
	clock *clock
}

func start(t *testing.T, change ...func(*simulator.Config)) *scalekit {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	k := &scalekit{t: t, url: "http://" + server.Listener.Addr().String(), clock: &clock{at: noon}}
	c := config(k.url, k.clock.now)
	for _, do := range change {
		do(&c)
	}
	var err error
	if k.Simulator, err = simulator.New(c); err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = k.Simulator
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		k.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		server.CloseClientConnections()
		server.Close()
	})
	return k
}

func config(url string, now func() time.Time) simulator.Config {
	return simulator.Config{
		URL: url, EnvironmentID: "env_1", ClientID: "skc_1", ClientSecret: "s3cret", Seed: 7,
		Now: now, Logger: slog.New(slog.DiscardHandler),
	}
}

func withFaults(rules ...string) func(*simulator.Config) {
	return func(c *simulator.Config) { c.Faults.Rules = ruled(rules...) }
}

func ruled(rules ...string) map[simulator.Fault]simulator.Rule {
	out := map[simulator.Fault]simulator.Rule{}
	for _, text := range rules {
		fault, rule, err := simulator.ParseFault(text)
		if err != nil {
			panic(err)
		}
		out[fault] = rule
	}
	return out
}

func withPermissions(names ...string) func(*simulator.Config) {
	return func(c *simulator.Config) {
		for _, name := range names {
			c.Fixture.Permissions = append(c.Fixture.Permissions, simulator.FixturePermission{Name: name})
		}
	}
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body, or of the request
}

func (r reply) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), into); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
}

func (k *scalekit) do(method, path, body string, header ...string) reply {
	k.t.Helper()
	request, err := http.NewRequestWithContext(k.t.Context(), method, k.url+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		}
		request.Header.Set(header[i], header[i+1])
	}
	request.Close = true // else the client asks again when an old connection breaks off
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(bytes.TrimSpace(text)), err}
}

// order sends an order that must be obeyed.
func (k *scalekit) order(method, path, body string, into any) {
	k.t.Helper()
	r := k.do(method, path, body)
	if r.err != nil || r.status/100 != 2 {
		k.t.Fatalf("%s %s: %d %s %v", method, path, r.status, r.body, r.err)
	}
	if into != nil {
		r.decode(k.t, into)
	}
}

func (k *scalekit) login(id, secret string) reply {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
	return k.do("POST", "/oauth/token", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

func (k *scalekit) token() string {
	k.t.Helper()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	k.login("skc_1", "s3cret").decode(k.t, &got)
	return got.AccessToken
}

// read asks the management API.
func (k *scalekit) read(path string) reply {
	k.t.Helper()
	return k.do("GET", path, "", "Authorization", "Bearer "+k.token())
}

type listing struct {
	Permissions []struct {
		ID, Name, Description string
		CreateTime            string `json:"create_time"`
		UpdateTime            string `json:"update_time"`
		Own                   bool   `json:"is_scalekit_permission"`
	}
	Next  string `json:"next_page_token"`
	Prev  string `json:"prev_page_token"`
	Total int    `json:"total_size"`
}

func (l listing) names() string {
	var names []string
	for _, p := range l.Permissions {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

func (k *scalekit) list(query string) (l listing) {
	k.t.Helper()
	r := k.read("/api/v1/permissions?" + query)
	if r.status != 200 {
		k.t.Fatalf("listing: %d %s %v", r.status, r.body, r.err)
	}
	r.decode(k.t, &l)
	return l
}

// digestOf is the digest as the contract tells it, from what a listing shows.
func digestOf(l listing) string {
	var d permission.Digest
	for _, p := range l.Permissions {
		d = d.Plus(permission.ContentDigest(p.ID, p.Name, p.Description))
	}
	return d.String()
}
