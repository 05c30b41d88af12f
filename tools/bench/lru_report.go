package main

import (
	"fmt"
	"strings"
)

// report tells hit ratios first: they are the same on each machine.
func (q *comparison) report() section {
	var b strings.Builder
	fmt.Fprintf(&b, "Caches of hashicorp/golang-lru/v2 for %d records in front of a catalog of %d, in one process without HTTP; medians of %d rounds. "+
		"A miss is read from the file by the catalog's own read path (bbolt, decoding, OPA's value), which has a cache of a single record here. "+
		"The names of %d lookups follow Zipf's law with exponent %g; hits are counted in their second half.\n\n",
		lruCapacity, lruPermissions, q.rounds, lruQuestions, zipfS)
	columns := []string{"hit ratio"}
	for _, kind := range q.fronts {
		columns = append(columns, kind.name)
	}
	q.write(&b, columns, "%.2f %%", func(r readThrough) float64 { return 100 * r.hitRatio })
	columns[0] = "ns per lookup, misses included"
	q.write(&b, columns, "%.0f", func(r readThrough) float64 { return r.perLookup })
	columns[0] = "ns of CPU time per lookup, collector included"
	q.write(&b, columns, "%.0f", func(r readThrough) float64 { return r.cpu })
	columns[0] = "allocations per lookup, misses included"
	q.write(&b, columns, "%.2f", func(r readThrough) float64 { return r.allocations })
	b.WriteString("A scan's own lookups are part of the times and not of the hit ratios. Neither cache is told of unknown names. " +
		"What follows from this: [decisions/0007](decisions/0007-lru-or-2q.md).\n")
	b.WriteString("\n![Hit ratios](plots/lru.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{"lru.svg": q.plot().svg()}}
}

// plot leaves out the third way to call 2Q, which hits as often as the second.
func (q *comparison) plot() barPlot {
	p := barPlot{title: "Hit ratio of LRU and 2Q", axis: "hits, %", format: "%.1f"}
	colors := []string{blue, orange}
	for _, t := range q.traces {
		for i, kind := range q.fronts[:len(colors)] {
			var values []float64
			for _, r := range kind.runs[t.name] {
				values = append(values, 100*r.hitRatio)
			}
			p.bars = append(p.bars, bar{label: kind.name + ": " + t.name, color: colors[i], spread: spreadOf(values)})
		}
	}
	return p
}

func (q *comparison) write(b *strings.Builder, columns []string, format string, of func(readThrough) float64) {
	table(b, columns...)
	for _, t := range q.traces {
		fmt.Fprintf(b, "| %s", t.name)
		for _, kind := range q.fronts {
			values := make([]float64, len(kind.runs[t.name]))
			for i, r := range kind.runs[t.name] {
				values[i] = of(r)
			}
			fmt.Fprintf(b, " | "+format, median(values))
		}
		b.WriteString(" |\n")
	}
	b.WriteString("\n")
}
