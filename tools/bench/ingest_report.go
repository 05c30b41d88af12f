package main

import (
	"fmt"
	"strings"
	"time"
)

// report tells what was measured, ratios first.
func (in *ingest) report() section {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds of %s for each receiver, %d keep-alive senders, each with one signed event in flight, receivers and senders on the same cores. "+
		"By turns an event creates a permission and updates one of %d; each changes the catalog. A sync of one page takes %s here (median of %d), and a commit needs two.\n\n",
		in.options.rounds, in.legTime(), ingestSenders, ingestKnown, timeText(in.ownSync), syncsToTime)
	in.writeRatios(&b)
	in.writeRates(&b)
	return section{markdown: b.String()}
}

func (in *ingest) writeRatios(b *strings.Builder) {
	table(b, "acknowledged events/s, ratio within a round", "target", "median", "min", "max")
	writeRatio(b, "**Postern / one commit per event**", "≥ 2", in.postern, in.single)
	if in.slowPostern != nil {
		writeRatio(b, fmt.Sprintf("**the same, each sync %s longer**", slowSync), "≥ 10", in.slowPostern, in.slowSingle)
	} else {
		fmt.Fprintf(b, "| the same, each sync %s longer | ≥ 10 | not measured: strace is not installed | | |\n", slowSync)
	}
	writeRatio(b, "Postern / shared commits in the program of the single ones", "", in.postern, in.shared)
}

func writeRatio(b *strings.Builder, name, target string, of, against *receiver) {
	ratios := make([]float64, len(of.legs))
	for i := range ratios {
		ratios[i] = of.legs[i].perSecond / against.legs[i].perSecond
	}
	fmt.Fprintf(b, "| %s | %s | %s\n", name, target, spreadOf(ratios).row())
}

func (in *ingest) writeRates(b *strings.Builder) {
	b.WriteString("\n")
	table(b, "receiver, medians of the rounds", "target", "acknowledged events/s", "events in a commit", "p50", "p99")
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
		if row.of != nil {
			row.of.writeRates(b, row.name, row.target)
		}
	}
	b.WriteString("\nSingle commits, and the shared ones beside them, are those of Postern's own receiver and catalog in a program of their own, with and without a mutex around each event.")
	if in.slowPostern != nil {
		fmt.Fprintf(b, " The longer sync is strace's, which holds up each fdatasync by %s: a lone event is acknowledged after %s then.", slowSync, timeText(in.addedSync))
	}
	b.WriteString("\n")
}

func (r *receiver) writeRates(b *strings.Builder, name, target string) {
	fmt.Fprintf(b, "| %s | %s | %.0f | %.1f | %s | %s |\n", name, target,
		ingestMedian(r.legs, func(l ingestLeg) float64 { return l.perSecond }),
		ingestMedian(r.legs, func(l ingestLeg) float64 { return l.perCommit }),
		timeText(time.Duration(ingestMedian(r.legs, func(l ingestLeg) float64 { return float64(l.p50) }))),
		timeText(time.Duration(ingestMedian(r.legs, func(l ingestLeg) float64 { return float64(l.p99) }))))
}

func ingestMedian(legs []ingestLeg, of func(ingestLeg) float64) float64 {
	values := make([]float64, len(legs))
	for i, l := range legs {
		values[i] = of(l)
	}
	return median(values)
}
