package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/webhook"
)

// Order comes from occurred_at alone: sidecars whose clocks are four minutes off, either
// way, make the same catalog of the same webhooks, in whatever order they come.
func TestNoLocalClockChangesTheOrder(t *testing.T) {
	sent := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var bodies []string
	for i, kind := range []string{"created", "updated", "updated", "deleted", "created", "updated"} {
		bodies = append(bodies, fmt.Sprintf(`{"spec_version":"1","id":"evt_%d","type":"permission.%s","environment_id":%q,"occurred_at":%q,"data":{"id":"perm_%d","name":"data:manage","description":"%d"}}`,
			i, kind, demoEnvironment, sent.Add(time.Duration(i-5)*time.Minute).Format(time.RFC3339Nano), i/4, i))
	}
	var first string
	for _, off := range []time.Duration{0, 4 * time.Minute, -4 * time.Minute} {
		for _, order := range [][]int{{0, 1, 2, 3, 4, 5}, {5, 3, 4, 1, 0, 2}} {
			got := catalogOf(t, bodies, order, sent, sent.Add(off))
			if first == "" {
				first = got
			}
			if got != first || !strings.Contains(got, `"description":"5"`) {
				t.Errorf("a clock %s off, order %v:\n got %s\nwant %s", off, order, got, first)
			}
		}
	}
}

// catalogOf returns the states of a catalog that received bodies by a clock that stands at now.
func catalogOf(t *testing.T, bodies []string, order []int, sent, now time.Time) string {
	t.Helper()
	c, err := catalog.Open(t.Context(), catalog.Options{Dir: t.TempDir(), EnvironmentID: demoEnvironment, LRUSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	keys := must(webhook.ParseKeys(testSecret))
	receiver, err := webhook.NewReceiver(webhook.Config{
		Keys: func() webhook.Keys { return keys }, EnvironmentID: demoEnvironment, Sink: c,
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler), Meter: noop.NewMeterProvider().Meter(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range order {
		request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(bodies[i]))
		request.Header = keys.Sign(fmt.Sprint("msg_", i), sent, []byte(bodies[i]))
		w := httptest.NewRecorder()
		if receiver.ServeHTTP(w, request); w.Code != http.StatusCreated {
			t.Fatalf("clock at %s: got %d %s", now, w.Code, w.Body)
		}
	}
	var dump bytes.Buffer
	if err := c.Dump(t.Context(), &dump, nil); err != nil {
		t.Fatal(err)
	}
	_, states, _ := strings.Cut(dump.String(), "\n")
	return states
}
