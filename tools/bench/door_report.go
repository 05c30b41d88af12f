package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// report renders what was measured, once the rounds are over.
func (d *door) report(ctx context.Context, found lookups) (section, error) {
	versions, err := d.versions()
	if err != nil {
		return section{}, err
	}
	lruSize, err := d.shippedDefault(ctx, "lru-size")
	if err != nil {
		return section{}, err
	}
	var b strings.Builder
	o := d.options
	fmt.Fprintf(&b, "%s\n\nLoad: %d rounds of %g s for each server, %d connections, %d live permissions of which the trace asks for %d.\n",
		versions, o.rounds, o.seconds, o.connections, o.permissions, liveNames(d.trace))
	fmt.Fprintf(&b, "Postern's LRU holds %s records; its hit ratio, as shipped: %s.\n", lruSize, found.ratio())
	fmt.Fprintf(&b, "Allocated as shipped, by a trace of the collector: Postern %s; OPA %s.\n\n", d.allocated.text(), d.opaAllocated.text())
	d.writeRatios(&b)
	d.writeServers(&b)
	b.WriteString("\n![Questions a second](plots/door.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{"door.svg": d.plot().svg()}}, nil
}

func (d *door) plot() barPlot {
	p := barPlot{title: "Questions a second that each server answers", axis: "requests/s: median of the rounds, and from min to max", format: "%.0f"}
	for i, row := range d.titled() {
		color := []string{blue, sky, orange, sand, sand, gray}[i]
		p.bars = append(p.bars, bar{strings.ReplaceAll(row.title, "`", ""), color, spreadOf(valuesOf(row.of.legs, perSecond))})
	}
	return p
}

func perSecond(l leg) float64 { return l.perSecond }
func p99(l leg) float64       { return float64(l.p99) }
func cpu(l leg) float64       { return float64(l.serverCPU) }

// ratio compares two servers round by round.
func ratio(of, against *contender, value func(leg) float64) spread {
	ratios := make([]float64, len(of.legs))
	for i := range ratios {
		ratios[i] = value(of.legs[i]) / value(against.legs[i])
	}
	return spreadOf(ratios)
}

func (d *door) writeRatios(b *strings.Builder) {
	table(b, "ratio within a round", "median", "min", "max")
	for _, row := range []struct {
		name        string
		of, against *contender
		value       func(leg) float64
	}{
		{"**requests/s, Postern / OPA, as shipped, both at `GOGC=100`**", d.postern, d.opa, perSecond},
		{"**requests/s, Postern / OPA, both at `GOGC=400`**", d.postern400, d.opa400, perSecond},
		{"p99, as shipped", d.postern, d.opa, p99},
		{"p99, both at `GOGC=400`", d.postern400, d.opa400, p99},
		{"server CPU per request, as shipped", d.postern, d.opa, cpu},
		{"server CPU per request, both at `GOGC=400`", d.postern400, d.opa400, cpu},
		{"requests/s, Postern / OPA with its shipped log level", d.postern, d.opaNoisy, perSecond},
		{"p99, Postern / OPA with its shipped log level", d.postern, d.opaNoisy, p99},
		{"requests/s, Postern / constant answer", d.postern, d.ceiling, perSecond},
	} {
		fmt.Fprintf(b, "| %s | %s\n", row.name, ratio(row.of, row.against, row.value).row())
	}
}

// titled is a contender as the tables and plots call it.
type titled struct {
	title string
	of    *contender
}

func (d *door) titled() []titled {
	return []titled{
		{"Postern", d.postern},
		{"Postern, `GOGC=400`", d.postern400},
		{"OPA, `--log-level error`", d.opa},
		{"OPA, `--log-level error`, `GOGC=400`", d.opa400},
		{"OPA, shipped log level", d.opaNoisy},
		{"net/http, constant answer", d.ceiling},
	}
}

func (d *door) writeServers(b *strings.Builder) {
	fmt.Fprintln(b)
	table(b, "server, medians of the rounds", "requests/s", "p50", "p99", "server CPU per request", "generator CPU per request", "resident memory")
	for _, row := range d.titled() {
		fmt.Fprintf(b, "| %s | %.0f | %s | %s | %s | %s | %d MiB |\n", row.title,
			medianOf(row.of.legs, perSecond),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.p50 }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.p99 }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.serverCPU }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.generatorCPU }),
			row.of.resident>>20)
	}
}

func valuesOf(legs []leg, of func(leg) float64) []float64 {
	values := make([]float64, len(legs))
	for i, l := range legs {
		values[i] = of(l)
	}
	return values
}

func medianOf(legs []leg, of func(leg) float64) float64 { return median(valuesOf(legs, of)) }

func medianTime(legs []leg, of func(leg) time.Duration) string {
	return timeText(time.Duration(medianOf(legs, func(l leg) float64 { return float64(of(l)) })))
}
