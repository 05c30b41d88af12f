package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// wellFormed reports what keeps an SVG from being one.
func wellFormed(svg string) error {
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// checkSection wants each text in the Markdown, and each plot that it links to.
func checkSection(t *testing.T, told section, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(told.markdown, want) {
			t.Errorf("want %q in:\n%s", want, told.markdown)
		}
	}
	for name, svg := range told.plots {
		if !strings.Contains(told.markdown, "(plots/"+name+")") {
			t.Errorf("want a link to %s", name)
		}
		if err := wellFormed(svg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func rated(perSecond ...float64) *receiver {
	r := &receiver{}
	for _, rate := range perSecond {
		r.legs = append(r.legs, ingestLeg{perSecond: rate, perCommit: 30, p50: time.Millisecond, p99: 2 * time.Millisecond})
	}
	return r
}

func TestIngestTellsRatiosWithinRounds(t *testing.T) {
	in := &ingest{
		field: &field{options: options{rounds: 3, seconds: 5}}, postern: rated(6000, 9000, 4000), single: rated(1000, 3000, 2000), shared: rated(6000, 6000, 6000),
	}
	checkSection(t, in.report(), "| **Postern / one commit per event** | ≥ 2 | 3.00 | 2.00 | 6.00 |", "strace is not installed", "| Postern | ≥ 5000 | 6000 | 30.0 | 1.00 ms | 2.00 ms |")
	in.slowPostern, in.slowSingle = rated(2000, 2000, 2000), rated(100, 200, 50)
	checkSection(t, in.report(), "| **the same, each sync 5ms longer** | ≥ 10 | 20.00 | 10.00 | 40.00 |")
}

func TestMillionTellsMemoryAndBounds(t *testing.T) {
	second := time.Second
	m := &million{
		field: &field{options: options{rounds: 2, seconds: 5, connections: 16}}, starts: []float64{0.5, 0.7}, restarts: []float64{0.6},
		keyed:   []keyedRound{{hit: 60 * time.Microsecond, miss: 80 * time.Microsecond}},
		atRest:  []restingMemory{{name: "Postern", target: "< 60 MB", fresh: 20e6, asked: 10, quiet: []time.Duration{0, 10 * second}, after: []int64{50e6, 40e6}}},
		bounded: boundedFigures{free: []float64{1000, 2000}, inside: []float64{950, 1800}, events: 900, freeEvents: 1000, elapsed: 5 * second, limitFound: boundedMemory},
	}
	var b strings.Builder
	m.writeTargets(&b)
	m.writeMemory(&b)
	m.writeBounded(&b)
	checkSection(t, section{markdown: b.String()},
		"| **from the start to /readyz, s** | < 1 | 0.60 | 0.50 | 0.70 |",
		"| **a question that misses the LRU, above one that hits, µs** | ≤ 25 | 20.00 | 20.00 | 20.00 |",
		"| **questions/s inside 192 MiB / unbounded** | ≥ 0.90 | 0.93 | 0.90 | 0.95 |",
		"| Postern | < 60 MB | 20.0 | 10 | 50.0 | 40.0 |",
		"| inside a cgroup of 192 MiB | 1375 | 180 |", "finds 192 MiB there")
	if err := wellFormed(m.plot().svg()); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		figures boundedFigures
		want    string
	}{
		{boundedFigures{missing: "permission denied"}, "**Not measured:**"},
		{boundedFigures{pressure: pressure{kills: 1}}, "killed 1 processes"},
	} {
		m.bounded = c.figures
		var b strings.Builder
		m.writeTargets(&b)
		m.writeBounded(&b)
		checkSection(t, section{markdown: b.String()}, c.want)
	}
}

func TestLRUTellsEachTraceAndFront(t *testing.T) {
	q := &comparison{traces: newLookupTraces(largeCatalog{live: 10}, 4)}
	for _, name := range []string{"LRU", "2Q", "2Q, our lock around its own"} {
		kind := &frontKind{name: name, runs: map[string][]readThrough{}}
		for _, trace := range q.traces {
			kind.runs[trace.name] = []readThrough{{hitRatio: 0.5, perLookup: 2000, cpu: 1900, allocations: 10}}
		}
		q.fronts = append(q.fronts, kind)
	}
	told := q.report()
	checkSection(t, told, "| Zipf | 50.00 % | 50.00 % | 50.00 % |", "| Zipf, two readers | 2000 | 2000 | 2000 |")
	if len(told.plots) != 1 {
		t.Errorf("want one plot, got %d", len(told.plots))
	}
}
