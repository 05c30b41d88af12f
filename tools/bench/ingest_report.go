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
	b.WriteString("\n![Acknowledged events a second](plots/ingest.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{"ingest.svg": in.plot().svg()}}
}

// titledReceiver is a receiver as the table and the plot call it.
type titledReceiver struct {
	title, target, color string
	*receiver
}

func (in *ingest) titled() (running []titledReceiver) {
	slow := fmt.Sprintf(", each sync %s longer", slowSync)
	for _, t := range []titledReceiver{
		{"Postern", "≥ 5000", blue, in.postern},
		{"one commit per event", "", orange, in.single},
		{"shared commits, same program", "", gray, in.shared},
		{"Postern" + slow, "", sky, in.slowPostern},
		{"one commit per event" + slow, "", sand, in.slowSingle},
	} {
		if t.receiver != nil {
			running = append(running, t)
		}
	}
	return running
}

func (in *ingest) plot() barPlot {
	p := barPlot{title: "Acknowledged events a second, medians, least and most of the rounds", axis: "acknowledged events/s", format: "%.0f", mark: 5000}
	for _, t := range in.titled() {
		values := make([]float64, len(t.legs))
		for i, l := range t.legs {
			values[i] = l.perSecond
		}
		p.bars = append(p.bars, bar{label: t.title, color: t.color, spread: spreadOf(values)})
	}
	return p
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
	for _, t := range in.titled() {
		t.writeRates(b, t.title, t.target)
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
