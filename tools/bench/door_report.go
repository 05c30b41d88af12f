package main

import (
	"context"
	"fmt"
	"strings"
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
	writeServers(&b, d.titled())
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
