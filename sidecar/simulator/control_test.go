package simulator_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

func TestOrdersAreCheckedFieldByField(t *testing.T) {
	k := start(t, withPermissions("a", "b"), func(c *simulator.Config) {
		c.Fixture.Roles = []simulator.Role{{Name: "viewer", Permissions: []string{"a"}}, {Name: "editor", Extends: "viewer"}}
	})
	id := k.Live()[0].ID
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "permissions", `{"name":"a b"}`, `400 invalid_order name: want 1 to 64 of a-z, A-Z, 0-9, _ and :, got \"a b\"`},
		{"POST", "permissions", `{}`, `400 invalid_order name: want one, got none`},
		{"POST", "permissions", ``, `400 invalid_order name: want one, got none`},
		{"POST", "permissions", `{"name":1}`, `400 invalid_order name: want a string, got a number`},
		{"POST", "permissions", `{"name":null}`, `400 invalid_order name: want a string, got null`},
		{"POST", "permissions", `{"mane":"c"}`, `400 invalid_order \"mane\": no such member; want name, description`},
		{"POST", "permissions", `{"name":"c","name":"d"}`, `400 invalid_order want each key once in an object`},
		{"POST", "permissions", `{"name":"c"`, `400 invalid_order want one JSON value`},
		{"POST", "permissions", `[]`, `400 invalid_order want an object, got an array`},
		{"POST", "permissions", `{"name":"a"}`, `409 conflict a permission named \"a\"`},
		{"POST", "permissions", `{"name":"scalekit:users:manage"}`, `409 conflict`},
		{"POST", "permissions", `{"name":"c","description":"` + strings.Repeat("é", 2001) + `"}`, `400 invalid_order description: want at most 2000 characters`},
		{"PATCH", "permissions/perm_0", `{}`, `404 nothing_there no live permission has the id \"perm_0\"`},
		{"PATCH", "permissions/" + id, `{"name":"b"}`, `409 conflict`},
		{"PATCH", "permissions/" + id, `{"name":""}`, `400 invalid_order name: want 1 to 64`},
		{"DELETE", "permissions/perm_0", ``, `404 nothing_there`},
		{"DELETE", "permissions/" + id, `{"x":1}`, `400 invalid_order`},
		{"POST", "roles", `{"name":"a-b"}`, `400 invalid_order name: want 1 to 100`},
		{"POST", "roles", `{"name":"viewer"}`, `409 conflict a role named`},
		{"POST", "roles", `{"name":"x","permissions":["z"]}`, `400 invalid_order permissions[0]: want a live permission, each once, got \"z\"`},
		{"POST", "roles", `{"name":"x","permissions":["a","a"]}`, `400 invalid_order permissions[1]: want a live permission, each once`},
		{"POST", "roles", `{"name":"x","permissions":["a",null]}`, `400 invalid_order permissions: want an array of strings`},
		{"POST", "roles", `{"name":"x","extends":"y"}`, `400 invalid_order extends: want another role that exists`},
		{"PATCH", "roles/viewer", `{"extends":"editor"}`, `400 invalid_order extends: want another role that exists and doesn't extend this one`},
		{"PATCH", "roles/nobody", `{}`, `404 nothing_there no role is named`},
		{"DELETE", "roles/viewer", ``, `409 conflict`},
		{"POST", "tokens", `{"sub":"u","lifetime_seconds":1.5}`, `400 invalid_order lifetime_seconds: want a whole number of seconds, got a number`},
		{"POST", "tokens", `{"sub":"u","age_seconds":9999999999}`, `400 invalid_order age_seconds: want a whole number of seconds within a hundred years`},
		{"POST", "tokens", `{"sub":"u","aud":"a"}`, `400 invalid_order aud: want an array of strings, got a string`},
		{"POST", "tokens", `{"sub":"u","key":"x"}`, `404 nothing_there no signing key has the id`},
		{"POST", "keys", `{"keep":"no"}`, `400 invalid_order keep: want true or false, got a string`},
		{"PUT", "faults", `{"rules":{"webhook_dorp":"5%"}}`, `400 invalid_order rules: want one of webhook_drop, `},
		{"PUT", "faults", `{"rules":{"webhook_drop":"often"}}`, `400 invalid_order rules.webhook_drop: want a part such as 5%, a number of times such as 3, always or never, got \"often\"`},
		{"PUT", "faults", `{"rules":{"webhook_drop":5}}`, `400 invalid_order rules.webhook_drop: want a text such as \"5%\", got a number`},
		{"PUT", "faults", `{"delay":"soon"}`, `400 invalid_order delay: want a time such as \"500ms\" or \"2s\", got a string`},
		{"GET", "state?wait=1h", ``, `400 invalid_order wait: want a time up to 20s`},
		{"POST", "deliveries/evt_1/resend", ``, `404 nothing_there no webhooks are sent`},
		{"GET", "nothing", ``, `404 not_found`},
		{"PUT", "permissions", ``, `405 method_not_allowed`},
	} {
		r := k.do(c.method, "/simulator/"+c.path, c.body)
		got := fmt.Sprintf("%d %s", r.status, r.body)
		for _, noise := range []string{`{"error":{`, `"code":"`, `"message":"`, "invalid: ", "not found: ", "already exists: "} {
			got = strings.Replace(got, noise, "", 1)
		}
		got = strings.Replace(got, `",`, " ", 1)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s %.60s\ngot  %s\nwant %s", c.method, c.path, c.body, got, c.want)
		}
	}
	if got := len(k.Live()); got != 2 || len(k.Roles()) != 2 {
		t.Errorf("a refused order changed something: %d", got)
	}
}

// Not over a connection: the answer comes before the body was sent, and that may break it.
func TestOrdersAreBounded(t *testing.T) {
	k := start(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "http://127.0.0.1/simulator/permissions", strings.NewReader(`{"name":"`+strings.Repeat("a", 1<<20)+`"}`))
	r.RemoteAddr = "127.0.0.1:1"
	if k.ServeHTTP(w, r); w.Code != 413 || !strings.Contains(w.Body.String(), "body_too_large") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestOrdersAreObeyed(t *testing.T) {
	k := start(t)
	var p struct {
		ID, Name, Description string
	}
	k.order("POST", "/simulator/permissions", `{"name":"data:manage","description":"one"}`, &p)
	k.order("PATCH", "/simulator/permissions/"+p.ID, `{"description":"two"}`, &p)
	if p.Name != "data:manage" || p.Description != "two" {
		t.Errorf("got %+v", p)
	}
	k.order("PATCH", "/simulator/permissions/"+p.ID, `{"description":""}`, &p)
	k.order("PATCH", "/simulator/permissions/"+p.ID, `{"name":"data:rule"}`, &p)
	if p.Name != "data:rule" || p.Description != "" {
		t.Errorf("got %+v", p)
	}
	k.order("POST", "/simulator/roles", `{"name":"admin","permissions":["data:rule"]}`, nil)
	var role struct {
		Extends     string
		Permissions []string
	}
	k.order("PATCH", "/simulator/roles/admin", `{"display_name":"Admin"}`, &role)
	if len(role.Permissions) != 1 {
		t.Errorf("got %+v", role)
	}
	k.order("PATCH", "/simulator/roles/admin", `{"permissions":[]}`, &role)
	if len(role.Permissions) != 0 {
		t.Errorf("got %+v", role)
	}
	k.order("DELETE", "/simulator/roles/admin", "", nil)
	if len(k.Roles()) != 0 {
		t.Errorf("got %+v", k.Roles())
	}
	k.order("DELETE", "/simulator/permissions/"+p.ID, "", nil)
	if len(k.Live()) != 0 || k.Digest().String() != strings.Repeat("0", 64) {
		t.Errorf("got %v, %s", k.Live(), k.Digest())
	}
	// The name is free again, under another id.
	id := p.ID
	k.order("POST", "/simulator/permissions", `{"name":"data:rule"}`, &p)
	if p.ID == id {
		t.Errorf("an id came twice: %s", id)
	}
}

func TestStateTellsTheDigestOfTheLive(t *testing.T) {
	k := start(t, withPermissions("a", "b"))
	var state struct {
		URL, Digest string
		Seed        uint64
		Count       int
		Webhooks    struct{ Pending int }
		Environment string `json:"environment_id"`
	}
	k.order("GET", "/simulator/state?wait=1s", "", &state)
	if state.URL != k.url || state.Seed != 7 || state.Count != 2 || state.Environment != "env_1" {
		t.Errorf("got %+v", state)
	}
	if want := digestOf(k.list("type=ENVIRONMENT")); state.Digest != want || want != k.Digest().String() {
		t.Errorf("got %s, want %s", state.Digest, want)
	}
}

func TestFaultsAreSetAndShown(t *testing.T) {
	k := start(t)
	r := k.do("PUT", "/simulator/faults", `{"rules":{"webhook_drop":"12.5%","rate_limit":"3","hang":"never"},"delay":"500ms"}`)
	if want := `{"rules":{"rate_limit":"3","webhook_drop":"12.5%"},"delay":"500ms","retry_after":"1s","hang":"20s"}`; r.body != want {
		t.Errorf("got %s", r.body)
	}
	k.read("/api/v1/roles")
	if got := k.Faults().Rules[simulator.RateLimit]; got != (simulator.Rule{Count: 2}) {
		t.Errorf("got %+v", got)
	}
	k.order("PUT", "/simulator/faults", `{}`, nil)
	if r := k.read("/api/v1/roles"); r.status != 200 {
		t.Errorf("got %d", r.status)
	}
	for _, rules := range []map[simulator.Fault]simulator.Rule{
		{"nothing": {Count: 1}}, {simulator.Hang: {Count: -1}}, {simulator.Hang: {Probability: 1.1}}, {simulator.Hang: {Probability: .5, Count: 1}},
	} {
		if err := k.SetFaults(simulator.Faults{Rules: rules}); !errors.Is(err, simulator.ErrInvalid) {
			t.Errorf("%v: got %v", rules, err)
		}
	}
}

// What a web page could send, and what another machine could.
func TestOrdersComeFromThisMachineAlone(t *testing.T) {
	k := start(t)
	for _, header := range [][]string{{"Host", "evil.example"}, {"Origin", "http://evil.example"}, {"Origin", "null"}} {
		for _, path := range []string{"state", "tokens", "permissions"} {
			if r := k.do("GET", "/simulator/"+path, "", header...); r.status != 403 && r.status != 405 {
				t.Errorf("%s %v: got %d", path, header, r.status)
			}
		}
		if r := k.do("POST", "/simulator/tokens", `{"sub":"usr_1"}`, header...); r.status != 403 {
			t.Errorf("tokens %v: got %d", header, r.status)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://127.0.0.1/simulator/state", nil) // its peer is 192.0.2.1
	if k.ServeHTTP(w, r); w.Code != 403 || !strings.Contains(w.Body.String(), "peer_forbidden") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	// What Scalekit serves, it serves to everybody.
	if r := k.do("GET", "/keys", "", "Host", "scalekit.example"); r.status != 200 {
		t.Errorf("got %d", r.status)
	}
}

func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(*simulator.Config){
		"url: want scheme and host alone":        func(c *simulator.Config) { c.URL += "/" },
		"want an environment id":                 func(c *simulator.Config) { c.ClientSecret = "" },
		"token lifetime: want a positive one":    func(c *simulator.Config) { c.TokenLifetime = -1 },
		"webhooks: want what signs them":         func(c *simulator.Config) { c.Webhooks.URL = "http://x" },
		"webhook url: want a URL without creden": func(c *simulator.Config) { c.Webhooks = simulator.Webhooks{URL: "http://u:p@x", Sign: signed} },
		"webhooks: want no negative number":      func(c *simulator.Config) { c.Webhooks.Attempts = -1 },
		"fixture: permissions[1]: already exist": withPermissions("a", "a"),
		"invalid: rules":                         func(c *simulator.Config) { c.Faults.Rules = map[simulator.Fault]simulator.Rule{"x": {}} },
		"invalid: delay":                         func(c *simulator.Config) { c.Faults.Delay = -1 },
	} {
		c := config("http://127.0.0.1:1", time.Now)
		change(&c)
		if _, err := simulator.New(c); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}
