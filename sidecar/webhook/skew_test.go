package webhook_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Only what was signed with a live secret moves the estimate, whatever becomes of it then.
func TestVerifiedDeliveriesMeasureTheClock(t *testing.T) {
	f := newFixture(t)
	if strings.Contains(f.measured(t), "postern.webhook.clock.skew") {
		t.Error("a skew is measured before the first delivery")
	}
	signed := func(id, with, body string, late time.Duration) func(*http.Request) {
		return func(r *http.Request) { r.Header = parse(t, with).Sign(id, f.now.Add(-late), []byte(body)) }
	}
	f.deliver(t, event, signed("msg_forged", other, event, 200*time.Second))
	if got := f.receiver.Clock(); !strings.HasPrefix(got, "no verified delivery") || strings.Contains(got, "outside") {
		t.Errorf("a forged delivery counts: %s", got)
	}
	f.deliver(t, event, signed("msg_1", secret, event, 45*time.Second))
	f.deliver(t, "{", signed("msg_2", secret, "{", 44*time.Second))
	foreign := strings.Replace(event, environment, "env_other", 1)
	f.deliver(t, foreign, signed("msg_3", secret, foreign, 43*time.Second))
	if got := f.receiver.Clock(); !strings.HasPrefix(got, "WRONG by +44.0 s from the webhooks' timestamps (median of 3 in the last hour, the last one +43.0 s)") {
		t.Errorf("got %s", got)
	}
	if got := f.measured(t); !strings.Contains(got, `"Name":"postern.webhook.clock.skew"`) || !strings.Contains(got, `"Unit":"s"`) || !strings.Contains(got, `"Value":44}`) {
		t.Errorf("measured %s", got)
	}
	if got := strings.Count(f.log.String(), `"skew_seconds":45`); got != 1 || strings.Count(f.log.String(), "skew_seconds") != 1 {
		t.Errorf("logged %s", f.log)
	}
}

// Deliveries outside of the window are told apart: nobody knows who sent them.
func TestDeliveriesOutsideTheWindowAreTold(t *testing.T) {
	f := newFixture(t)
	for _, late := range []int64{301, -3600} {
		status, code, _ := f.deliver(t, event, func(r *http.Request) {
			r.Header.Set("webhook-timestamp", fmt.Sprint(f.now.Unix()-late))
		})
		if status != http.StatusUnauthorized || code != "timestamp_outside_window" {
			t.Errorf("got %d %s", status, code)
		}
	}
	f.deliver(t, event, func(r *http.Request) { r.Header.Set("webhook-timestamp", "soon") })
	f.deliver(t, event, func(r *http.Request) { r.Header.Set("webhook-signature", "nonsense") })
	if got := f.receiver.Clock(); !strings.Contains(got, "2 of the deliveries since 2026-01-01T12:00:00Z were outside of the window of 300 s, the last by -3600 s") {
		t.Errorf("got %s", got)
	}
	if strings.Contains(f.measured(t), "postern.webhook.clock.skew") {
		t.Error("they are measured")
	}
}
