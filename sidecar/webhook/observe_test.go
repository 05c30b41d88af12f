package webhook_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Secrets, signatures and bodies stay out of logs, answers and metrics, whatever fails.
func TestNothingSecretIsTold(t *testing.T) {
	f := newFixture(t)
	body := strings.Replace(event, `"data":{`, `"data":{"description":"the-body-itself",`, 1)
	forged := parse(t, other).Sign("msg_1", f.now, []byte(body))
	signatures := map[string]bool{forged.Get("webhook-signature"): true}
	var told strings.Builder
	for _, delivery := range []struct {
		body   string
		change func(*http.Request)
	}{
		{body, nil},
		{strings.Replace(body, "evt_1", "", 1), nil},
		{strings.Replace(body, "2026", "the-body-itself", 1), nil},
		{strings.Replace(body, `"name":"`, `"name":"the-body-itself\u0000`, 1), nil},
		{body + "the-body-itself", nil},
		{strings.Replace(body, "2026", "2030", 1), nil},
		{strings.Replace(body, environment, "the-body-itself", 1), nil},
		{body, func(r *http.Request) { r.Header = forged }},
		{body, func(r *http.Request) { r.Header.Set("webhook-timestamp", "1") }},
		{body, func(r *http.Request) { r.Header.Add("webhook-signature", "v1,***") }},
		{body, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }},
	} {
		_, _, answer, _ := f.deliverAndRead(t, delivery.body, func(r *http.Request) {
			signatures[r.Header.Get("webhook-signature")] = true
			if delivery.change != nil {
				delivery.change(r)
			}
		})
		told.WriteString(answer)
	}
	told.WriteString(f.log.String())
	told.WriteString(f.measured(t))
	words := []string{secret[6:], other[6:], "the-body-itself", "whsec_"}
	for signature := range signatures {
		words = append(words, strings.TrimPrefix(signature, "v1,"))
	}
	for _, word := range words {
		if strings.Contains(told.String(), word) {
			t.Errorf("%q was told: %s", word, told.String())
		}
	}
	if got := f.log.String(); !strings.Contains(got, "permission changed") || !strings.Contains(got, "signature_mismatch") {
		t.Errorf("got %s", got)
	}
}

// measured returns every measurement with its attributes.
func (f *fixture) measured(t testing.TB) string {
	t.Helper()
	var collected metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &collected); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(collected)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

// What the dashboard calls a delivery is logged when it has proved where it comes from, and
// foreign texts only in part.
func TestForeignTextsInTheLogAreShort(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 200)
	sign := func(id, body string) func(*http.Request) {
		return func(r *http.Request) { r.Header = parse(t, secret).Sign(id, f.now, []byte(body)) }
	}
	f.deliver(t, event, func(r *http.Request) { r.Header.Set("webhook-id", "msg_forged") })
	f.deliver(t, "{", sign("msg_malformed", "{"))
	foreign := `{"type":"` + long + `","environment_id":"env_other"}`
	f.deliver(t, foreign, sign(long, foreign))
	f.deliver(t, strings.NewReplacer("evt_1", long, "2026", "2030").Replace(event), nil)
	logged := f.log.String()
	if strings.Contains(logged, "msg_forged") || !strings.Contains(logged, `"webhook_id":"msg_malformed"`) {
		t.Errorf("got %s", logged)
	}
	if strings.Contains(logged, long[:65]) || !strings.Contains(logged, `"webhook_id":"`+long[:64]+"…") || !strings.Contains(logged, `"type":"`+long[:64]+"…") || !strings.Contains(logged, `"event_id":"`+long[:64]+"…") {
		t.Errorf("got %s", logged)
	}
}

func TestAFloodOfFailuresIsFewLines(t *testing.T) {
	f := newFixture(t)
	forge := func(r *http.Request) { r.Header.Set("webhook-id", "msg_forged") }
	for range 50 {
		f.deliver(t, event, forge)
	}
	if lines := strings.Count(f.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines for 50 failures of one kind", lines)
	}
	f.deliver(t, event, func(r *http.Request) { r.Header.Set("webhook-timestamp", "1") })
	if !strings.Contains(f.log.String(), "timestamp_outside_window") {
		t.Errorf("another kind of failure is drowned: %s", f.log)
	}
	f.now = f.now.Add(11 * time.Second)
	f.deliver(t, event, forge)
	if !strings.Contains(f.log.String(), `"suppressed":49`) {
		t.Errorf("it isn't told how many were left out: %s", f.log)
	}
}

func TestAnUndocumentedEventIsTakenWithAWarning(t *testing.T) {
	f := newFixture(t)
	documented := strings.Replace(event, `{"id"`, `{"spec_version":"1","id"`, 1)
	if f.deliver(t, documented, nil); strings.Contains(f.log.String(), "not as documented") {
		t.Errorf("got %s", f.log)
	}
	for _, id := range []string{"evt_7", "evt_8", "evt_9"} {
		if status, _, _ := f.deliver(t, strings.NewReplacer(`"spec_version":"1"`, `"spec_version":"9"`, "evt_1", id).Replace(documented), nil); status != 201 {
			t.Errorf("got %d", status)
		}
	}
	if lines := strings.Count(f.log.String(), "not as documented"); lines != 1 || f.sink.count() != 4 {
		t.Errorf("%d warnings and %d events", lines, f.sink.count())
	}
}

// types returns the counter's values by event type.
func (f *fixture) types(t testing.TB) map[string]int64 { return f.counts(t, "type") }

// A type is counted by name only if it is one of the three, and only once it is verified.
func TestTypesAreCountedOnceVerified(t *testing.T) {
	f := newFixture(t)
	f.deliver(t, event, nil)
	f.deliver(t, strings.Replace(event, "created", "deleted", 1), nil)
	f.deliver(t, strings.Replace(event, environment, "env_other", 1), nil)
	f.deliver(t, strings.Replace(event, "permission.created", "user.created", 1), nil)
	f.deliver(t, event, func(r *http.Request) { r.Header.Set("webhook-id", "msg_forged") })
	f.deliver(t, "{", nil)
	want := map[string]int64{"permission.created": 2, "permission.deleted": 1, "other": 1, "unverified": 2}
	if got := f.types(t); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// deliveries returns the counter's values by outcome.
func (f *fixture) deliveries(t testing.TB) map[string]int64 { return f.counts(t, "outcome") }

func (f *fixture) counts(t testing.TB, by attribute.Key) map[string]int64 {
	t.Helper()
	var collected metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &collected); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, _ := m.Data.(metricdata.Sum[int64]) // the clock's gauge counts nothing
			for _, point := range sum.DataPoints {
				label, _ := point.Attributes.Value(by)
				counts[label.AsString()] += point.Value
			}
		}
	}
	return counts
}
