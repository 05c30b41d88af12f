package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// webhookSecret is a made-up signing secret of the Standard Webhooks form.
const webhookSecret = "whsec_c2lnbnMgZXZlbnRzIG9mIGEgYmVuY2htYXJrIQ==" //nolint:gosec // signs nothing but events of a benchmark

// signer makes the deliveries of Scalekit. Each one is a new event.
type signer struct {
	key   []byte
	made  int
	known []record // live permissions, in the order in which they are updated
}

func newSigner(c *catalog) (*signer, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(webhookSecret, "whsec_"))
	if err != nil {
		return nil, fmt.Errorf("reading the signing secret: %w", err)
	}
	s := &signer{key: key, known: slices.Clone(c.live)}
	random := rand.New(rand.NewPCG(traceSeed, 2)) //nolint:gosec // the same events each time
	random.Shuffle(len(s.known), func(i, j int) { s.known[i], s.known[j] = s.known[j], s.known[i] })
	return s, nil
}

// update returns the next permission with a new description. Each one is updated before
// the first one is again: of two updates of one permission in flight at once, the later
// one could come first, and the other one would rightly change nothing.
func (s *signer) update() record {
	s.made++
	r := s.known[s.made%len(s.known)]
	r.Description = fmt.Sprintf("%s, in version %d", r.Description, s.made)
	return r
}

// updates returns that many signed deliveries of permission.updated, each of a live
// permission whose description changes: what is decided with it stays the same. They are
// to be sent within five minutes, which is how long a signature holds.
func (s *signer) updates(addr string, count int) (*target, error) {
	return s.deliveries(addr, count, `"outcome":"applied"`, "permission.updated", "Permission")
}

// foreign returns the same as events that aren't ours: they are verified, decoded,
// acknowledged, and change nothing.
func (s *signer) foreign(addr string, count int) (*target, error) {
	return s.deliveries(addr, count, `"outcome":"ignored"`, "user.created", "User")
}

func (s *signer) deliveries(addr string, count int, outcome, eventType, object string) (*target, error) {
	now := time.Now()
	t := &target{addr: addr, status: statusCreated, check: func(_ int, body []byte) error {
		if !bytes.Contains(body, []byte(outcome)) {
			return fmt.Errorf("want %s, got %.200s", outcome, body)
		}
		return nil
	}}
	for range count {
		body, err := s.event(now, eventType, object)
		if err != nil {
			return nil, err
		}
		t.requests = append(t.requests, s.sign(now, body))
	}
	return t, nil
}

// event renders the next event. Each one occurred after the one before it.
func (s *signer) event(now time.Time, eventType, object string) ([]byte, error) {
	r := s.update()
	body, err := json.Marshal(map[string]any{
		"spec_version": "1", "id": fmt.Sprintf("evt_update%d", s.made), "type": eventType, "object": object,
		"environment_id": environmentID, "occurred_at": now.Add(time.Duration(s.made)).UTC().Format(instantLayout),
		"data": map[string]string{"id": r.ID, "name": r.Name, "description": r.Description},
	})
	if err != nil {
		return nil, fmt.Errorf("rendering an event: %w", err)
	}
	return body, nil
}

// sign returns the HTTP request that delivers body, signed as Standard Webhooks v1 says.
func (s *signer) sign(now time.Time, body []byte) []byte {
	id, timestamp := fmt.Sprintf("msg_%d", s.made), strconv.FormatInt(now.Unix(), 10)
	return fmt.Appendf(nil, "POST /webhooks/scalekit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"webhook-id: %s\r\nwebhook-timestamp: %s\r\nwebhook-signature: %s\r\n\r\n%s",
		len(body), id, timestamp, signature(s.key, id, timestamp, body), body)
}

func signature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// puts returns as many writes of OPA's Data API, each of a live permission.
func (s *signer) puts(addr string, count int) (*target, error) {
	t := &target{addr: addr, status: statusNoContent, check: func(int, []byte) error { return nil }}
	for range count {
		r := s.update()
		body, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("rendering a permission: %w", err)
		}
		t.requests = append(t.requests, fmt.Appendf(nil, "PUT /v1/data/scalekit/permissions/%s HTTP/1.1\r\nHost: localhost\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", r.Name, len(body), body))
	}
	return t, nil
}

// healthChecks returns as many requests to OPA that write nothing.
func healthChecks(addr string) *target {
	return &target{
		addr: addr, requests: [][]byte{[]byte("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		check: func(int, []byte) error { return nil },
	}
}
