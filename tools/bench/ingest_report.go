package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// section tells what was measured, ratios first.
func (in *ingest) section() section {
	var b strings.Builder
	o := in.field.options
	fmt.Fprintf(&b, "%d rounds of %s for each receiver, %d keep-alive senders, each with one signed event in flight. By turns an event creates a permission and updates one of %d; "+
		"each changes the catalog. A sync of one page takes %s here (median of %d); a commit has two.\n\n",
		o.rounds, in.legTime(), ingestSenders, ingestKnown, duration(in.ownSync), syncsToTime)
	in.writeRatios(&b)
	in.writeRates(&b)
	return section{markdown: b.String()}
}

func (in *ingest) writeRatios(b *strings.Builder) {
	b.WriteString("| ratio of acknowledged events/s within a round | target | median | min | max |\n|---|--:|--:|--:|--:|\n")
	writeRatio(b, "**Postern / one commit per event**", "≥ 2", in.postern, in.single)
	if in.slowPostern != nil {
		writeRatio(b, fmt.Sprintf("**the same, each sync %s longer**", slowSync), "≥ 10", in.slowPostern, in.slowSingle)
	} else {
		fmt.Fprintf(b, "| the same, each sync %s longer | ≥ 10 | not measured: strace is not installed | | |\n", slowSync)
	}
	writeRatio(b, "Postern / its receiver and catalog in the program of the single commits", "", in.postern, in.shared)
}

func writeRatio(b *strings.Builder, name, target string, of, against *receiver) {
	ratios := make([]float64, len(of.legs))
	for i := range ratios {
		ratios[i] = of.legs[i].perSecond / against.legs[i].perSecond
	}
	fmt.Fprintf(b, "| %s | %s | %.2f | %.2f | %.2f |\n", name, target, median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func (in *ingest) writeRates(b *strings.Builder) {
	b.WriteString("\n| receiver, medians of the rounds | target | acknowledged events/s | events in a commit | p50 | p99 |\n|---|--:|--:|--:|--:|--:|\n")
	slow := fmt.Sprintf(", each sync %s longer", slowSync)
	for _, row := range []struct {
		name, target string
		of           *receiver
	}{
		{"Postern", "≥ 5000", in.postern},
		{"one commit per event", "", in.single},
		{"shared commits in the same program", "", in.shared},
		{"Postern" + slow, "", in.slowPostern},
		{"one commit per event" + slow, "", in.slowSingle},
	} {
		if row.of == nil {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %.0f | %.1f | %s | %s |\n", row.name, row.target,
			ingestMedian(row.of.legs, func(l ingestLeg) float64 { return l.perSecond }),
			ingestMedian(row.of.legs, func(l ingestLeg) float64 { return l.perCommit }),
			duration(time.Duration(ingestMedian(row.of.legs, func(l ingestLeg) float64 { return float64(l.p50) }))),
			duration(time.Duration(ingestMedian(row.of.legs, func(l ingestLeg) float64 { return float64(l.p99) }))))
	}
	if in.slowPostern != nil {
		fmt.Fprintf(b, "\nThe longer sync is strace's, which holds up each fdatasync by %s: a lone event is acknowledged after %s then. "+
			"Single commits are those of Postern's own receiver and catalog behind a mutex, in a process of their own.\n", slowSync, duration(in.addedSync))
	}
}

func ingestMedian(legs []ingestLeg, of func(ingestLeg) float64) float64 {
	values := make([]float64, len(legs))
	for i, l := range legs {
		values[i] = of(l)
	}
	return median(values)
}

// duration renders a time for a table.
func duration(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f µs", d.Seconds()*1e6)
}
