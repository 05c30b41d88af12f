package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// lookups counts how Postern's catalog found the records that it was asked for. Both are
// zero while Postern doesn't publish it.
type lookups struct{ hits, misses float64 }

const metricLookups = "postern_catalog_lookups_total"

// lookups reads the counters from Postern's metrics.
func (s *sidecar) lookups(ctx context.Context) (lookups, error) {
	text, err := s.metrics(ctx)
	if err != nil {
		return lookups{}, err
	}
	return parseLookups(text)
}

// metrics returns what Postern publishes, in the Prometheus text format.
func (s *sidecar) metrics(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.adminAddr+"/metrics", nil)
	if err != nil {
		return "", fmt.Errorf("asking for the metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking for the metrics: %w", err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return "", fmt.Errorf("reading the metrics: %w", err)
	}
	return string(text), nil
}

func parseLookups(text string) (l lookups, err error) {
	if l.hits, err = sumSamples(text, metricLookups, `result="hit"`); err != nil {
		return l, err
	}
	l.misses, err = sumSamples(text, metricLookups, `result="miss"`)
	return l, err
}

// sumSamples adds up the samples of a metric that have a label, out of the Prometheus text
// format. Without one the sum is 0.
func sumSamples(text, metric, label string) (sum float64, err error) {
	for line := range strings.Lines(text) {
		labels, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		labels, named := strings.CutPrefix(labels, metric+"{")
		if !found || !named || !hasLabel(labels, label) {
			continue
		}
		value, _, _ = strings.Cut(value, " ") // a timestamp may follow
		sample, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the metric %s: %w", metric, err)
		}
		sum += sample
	}
	return sum, nil
}

func hasLabel(labels, want string) bool {
	for label := range strings.SplitSeq(labels, ",") {
		if label == want {
			return true
		}
	}
	return false
}

func (l lookups) since(before lookups) lookups {
	return lookups{l.hits - before.hits, l.misses - before.misses}
}

// ratio says how many lookups were answered from memory.
func (l lookups) ratio() string {
	if l.hits+l.misses == 0 {
		return "not published by this Postern"
	}
	return fmt.Sprintf("%.2f %% of %.0f lookups", 100*l.hits/(l.hits+l.misses), l.hits+l.misses)
}

// verifications counts the access tokens that Postern found good: those that it verified, and
// those that it remembered.
type verifications struct{ verified, remembered float64 }

const metricVerifications = "postern_token_verifications_total"

// verifications reads the counters from Postern's metrics.
func (s *sidecar) verifications(ctx context.Context) (verifications, error) {
	text, err := s.metrics(ctx)
	if err != nil {
		return verifications{}, err
	}
	return parseVerifications(text)
}

func parseVerifications(text string) (v verifications, err error) {
	if v.verified, err = sumSamples(text, metricVerifications, `outcome="verified"`); err != nil {
		return v, err
	}
	v.remembered, err = sumSamples(text, metricVerifications, `outcome="remembered"`)
	return v, err
}

func (v verifications) since(before verifications) verifications {
	return verifications{v.verified - before.verified, v.remembered - before.remembered}
}

// check returns an error unless all tokens were of that kind.
func (v verifications) check(kind tokenKind) error {
	right := map[tokenKind]bool{
		withoutToken:  v == verifications{},
		repeatedToken: v.verified == 0 && v.remembered > 0,
		newToken:      v.verified > 0 && v.remembered == 0,
	}[kind]
	if !right {
		return fmt.Errorf("questions with token %q: Postern verified %.0f tokens and remembered %.0f", kind, v.verified, v.remembered)
	}
	return nil
}
