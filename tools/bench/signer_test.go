package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

// The vector is that of the Standard Webhooks specification.
func TestSignature(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("want %s, got %s", want, got)
	}
}

// request reads a rendered request as a server does.
func request(t *testing.T, raw []byte) (*http.Request, []byte) {
	t.Helper()
	rest := bufio.NewReader(bytes.NewReader(raw))
	r, err := http.ReadRequest(rest)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rest.Buffered() > 0 {
		t.Fatalf("%d bytes behind the body", rest.Buffered())
	}
	return r, body
}

func TestUpdatesKeepThePermissionAndComeLater(t *testing.T) {
	c := newCatalog(100)
	live := map[string]record{}
	for _, r := range c.live {
		live[r.Name] = r
	}
	s, err := newSigner(c)
	if err != nil {
		t.Fatal(err)
	}
	ids, before, recent := map[string]bool{}, "", map[string]bool{}
	for range 2 { // batches, in which the clock may stand still
		updates, err := s.updates("", 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range updates.requests {
			r, body := request(t, raw)
			var e struct {
				ID, Type   string
				OccurredAt string `json:"occurred_at"`
				Data       record
			}
			if err := json.Unmarshal(body, &e); err != nil {
				t.Fatal(err)
			}
			known := live[e.Data.Name]
			if recent[known.ID] {
				t.Errorf("want all others updated before %s is again", known.Name)
			}
			recent[known.ID] = true
			if e.Type != "permission.updated" || known.ID != e.Data.ID || known.Description == e.Data.Description || known.Name == "" {
				t.Errorf("want another description of %+v, got %s", known, body)
			}
			if ids[e.ID] || ids[r.Header.Get("webhook-id")] || e.OccurredAt <= before {
				t.Errorf("want a new event after %s, got %s", before, body)
			}
			if want := signature(s.key, r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body); r.Header.Get("webhook-signature") != want {
				t.Errorf("want the signature %s, got %v", want, r.Header)
			}
			ids[e.ID], ids[r.Header.Get("webhook-id")], before = true, true, e.OccurredAt
		}
	}
}

func TestWhatArrivesBesideTheQuestionsIsChecked(t *testing.T) {
	s, err := newSigner(newCatalog(100))
	if err != nil {
		t.Fatal(err)
	}
	updates, updatesErr := s.updates("", 1)
	foreign, foreignErr := s.foreign("", 1)
	if updatesErr != nil || foreignErr != nil {
		t.Fatal(updatesErr, foreignErr)
	}
	applied, ignored := []byte(`{"outcome":"applied"}`), []byte(`{"outcome":"ignored"}`)
	if updates.check(0, applied) != nil || foreign.check(0, ignored) != nil {
		t.Error("want the right outcomes taken")
	}
	if updates.check(0, ignored) == nil || foreign.check(0, applied) == nil {
		t.Error("want errors for the other outcome")
	}
	if updates.status != http.StatusCreated || foreign.status != http.StatusCreated {
		t.Error("want 201 as the only right status")
	}
	puts, err := s.puts("", 1)
	if err != nil {
		t.Fatal(err)
	}
	r, body := request(t, puts.requests[0])
	var put record
	if err := json.Unmarshal(body, &put); err != nil || r.URL.Path != "/v1/data/scalekit/permissions/"+put.Name || r.Method != http.MethodPut {
		t.Errorf("want the permission at its place, got %s %s %s", r.Method, r.URL, body)
	}
}
