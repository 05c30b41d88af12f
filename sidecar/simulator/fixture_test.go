package simulator_test

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

const fixture = `
permissions:
  - {name: data:read, description: Read data, id: perm_1}
  - name: data:write
roles:
  - {name: viewer, display_name: Viewer, permissions: [data:read]}
  - {name: editor, extends: viewer, description: Edits, permissions: [data:write]}
`

func TestFixtures(t *testing.T) {
	f, err := simulator.ReadFixture([]byte(fixture))
	want := simulator.Fixture{
		Permissions: []simulator.FixturePermission{{ID: "perm_1", Name: "data:read", Description: "Read data"}, {Name: "data:write"}},
		Roles: []simulator.Role{
			{Name: "viewer", DisplayName: "Viewer", Permissions: []string{"data:read"}},
			{Name: "editor", Extends: "viewer", Description: "Edits", Permissions: []string{"data:write"}},
		},
	}
	if err != nil || !reflect.DeepEqual(f, want) {
		t.Fatalf("got %+v, %v", f, err)
	}
	k := start(t, func(c *simulator.Config) { c.Fixture = f })
	l := k.list("type=ENVIRONMENT")
	if l.names() != "data:read data:write" || l.Permissions[0].ID != "perm_1" || k.Digest().String() != digestOf(l) {
		t.Errorf("got %+v", l)
	}
	if _, err := k.Update("perm_1", simulator.Change{Description: new("x")}); err != nil {
		t.Error(err)
	}
	if got := simulator.Numbered(2).Permissions; len(got) != 2 || got[0].Name == got[1].Name {
		t.Errorf("got %v", got)
	}
}

func TestFixturesAreCheckedFieldByField(t *testing.T) {
	for text, want := range map[string]string{
		"permissions: [{mane: a}]":           `invalid: permissions[0]."mane": no such member; want id, name, description`,
		"permissions: [{description: a}]":    "invalid: permissions[0].name: want one, got none",
		"permissions: [{}, {}]":              "invalid: permissions[0].name: want one, got none",
		"permissions: [{name: 1}]":           "invalid: permissions[0].name: want a string, got a number",
		"permissions: [a]":                   "invalid: permissions[0]: want an object, got a string",
		"permissions: {name: a}":             "invalid: permissions: want an array of objects, got an object",
		"roles: [{name: a, permissions: b}]": "invalid: roles[0].permissions: want an array of strings, got a string",
		"rules: []":                          `invalid: "rules": no such member; want permissions, roles`,
		"[]":                                 "invalid: want an object, got an array",
		"":                                   "invalid: want an object, got null",
		"permissions: [{name: a, name: b}]":  "invalid: want YAML or JSON: ",
		"1: 2":                               "invalid: want what JSON can say, too",
		"a: .nan":                            "invalid: want what JSON can say, too",
		strings.Repeat("[", 40):              "invalid: want YAML or JSON: ",
		strings.Repeat(" ", simulator.MaxFixture) + "a":                 "invalid: want at most",
		"permissions: [{name: a, id: " + strings.Repeat("p", 33) + "}]": "invalid: permissions[0].id: want 0 to 32 bytes, got 33",
	} {
		if _, err := simulator.ReadFixture([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "permissions[1]") || !errors.Is(err, simulator.ErrInvalid) {
			t.Errorf("%.40s: got %v, want %s", text, err, want)
		}
	}
}

func FuzzReadFixture(f *testing.F) {
	f.Add([]byte(fixture))
	f.Add([]byte(`{"permissions":[{"name":"a"}]}`))
	f.Add([]byte("a: &a [b]\nc: [*a, *a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := simulator.ReadFixture(text)
		if err != nil {
			if !errors.Is(err, simulator.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		c := config("http://127.0.0.1:1", time.Now)
		c.Fixture = read
		if s, err := simulator.New(c); err == nil && len(s.Live()) != len(read.Permissions) {
			t.Errorf("got %d of %d", len(s.Live()), len(read.Permissions))
		}
	})
}

// Whatever an order's body is, the answer is a success or an error of the one form.
func FuzzOrders(f *testing.F) {
	f.Add("POST", "permissions", `{"name":"a"}`)
	f.Add("PUT", "faults", `{"rules":{"webhook_drop":"5%"},"hang":"1ms"}`)
	f.Add("POST", "roles", `{"name":"r","permissions":[]}`)
	f.Add("GET", "state", ``)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if strings.ContainsAny(method+path, " \r\n\x00?#%") || method == "" || strings.HasPrefix(path, "tokens") || strings.HasPrefix(path, "keys") {
			t.Skip("no request line, or one that makes keys, which is slow")
		}
		s, err := simulator.New(config("http://127.0.0.1:1", time.Now))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "http://127.0.0.1/", strings.NewReader(body))
		r.Method, r.URL.Path, r.RemoteAddr = method, "/simulator/"+path, "127.0.0.1:1"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var answer struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); w.Code >= 500 || err != nil || (w.Code >= 400) != (answer.Error.Code != "") {
			t.Errorf("got %d %s %v", w.Code, w.Body, err)
		}
	})
}

// A page token that isn't one of ours is refused, and one that is leads to a page.
func FuzzPageToken(f *testing.F) {
	for _, token := range []string{"", "MC4wLjA", "My4wLjE", "OTk5OS45LjA", "MDAuMC4w"} {
		f.Add(token)
	}
	c := config("http://127.0.0.1:1", time.Now)
	withPermissions("a", "b", "c")(&c)
	s, err := simulator.New(c)
	if err != nil {
		f.Fatal(err)
	}
	token := func(t *testing.T) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "http://127.0.0.1/oauth/token", strings.NewReader("grant_type=client_credentials&client_id=skc_1&client_secret=s3cret"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		s.ServeHTTP(w, r)
		var got struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got.Token
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("GET", "http://127.0.0.1/api/v1/permissions", nil)
		q := r.URL.Query()
		q.Set("page_token", text)
		q.Set("page_size", "2")
		r.URL.RawQuery = q.Encode()
		r.Header.Set("Authorization", "Bearer "+token(t))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 && (w.Code != 400 || !strings.Contains(w.Body.String(), "page_token")) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}
