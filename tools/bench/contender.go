package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// leg is what one server did in one round.
type leg struct {
	perSecond    float64
	p50, p99     time.Duration
	serverCPU    time.Duration // per request
	generatorCPU time.Duration // per request
}

// contender is a server with what was measured of it.
type contender struct {
	name     string
	server   *server
	target   *target
	legs     []leg // one for each round
	resident int64
}

// titled is a contender as the tables and plots call it.
type titled struct {
	title string
	of    *contender
}

// warmUp gives each server a leg that doesn't count: connections, caches and heaps settle.
func (f *field) warmUp(ctx context.Context, contenders []*contender) error {
	for _, c := range contenders {
		if _, err := c.measure(ctx, f.options); err != nil {
			return err
		}
	}
	return nil
}

// round gives each server its leg, one after the other, and the other way round in each
// second round.
func (f *field) round(ctx context.Context, number int, contenders []*contender) error {
	fmt.Fprintf(f.progress, "round %d of %d:", number+1, f.options.rounds)
	order := slices.Clone(contenders)
	if number%2 == 1 {
		slices.Reverse(order)
	}
	for _, c := range order {
		l, err := c.measure(ctx, f.options)
		if err != nil {
			return err
		}
		c.legs = append(c.legs, l)
		fmt.Fprintf(f.progress, "  %s %.0f/s", c.name, l.perSecond)
	}
	fmt.Fprintln(f.progress)
	return nil
}

// measure runs one leg.
func (c *contender) measure(ctx context.Context, o options) (leg, error) {
	pid := c.server.command.Process.Pid
	serverBefore, err := cpuTime(pid)
	ownBefore, ownErr := ownCPUTime()
	if err := errors.Join(err, ownErr); err != nil {
		return leg{}, err
	}
	l, err := c.target.drive(ctx, o.connections, o.legLength())
	if err != nil {
		return leg{}, fmt.Errorf("measuring %s: %w", c.name, err)
	}
	serverAfter, err := cpuTime(pid)
	ownAfter, ownErr := ownCPUTime()
	if err := errors.Join(err, ownErr); err != nil {
		return leg{}, err
	}
	if l.latencies.total == 0 {
		return leg{}, fmt.Errorf("measuring %s: nothing was answered", c.name)
	}
	if c.resident, err = residentBytes(pid); err != nil {
		return leg{}, err
	}
	n := time.Duration(l.latencies.total)
	return leg{
		perSecond: l.perSecond(), p50: l.latencies.percentile(50), p99: l.latencies.percentile(99),
		serverCPU: (serverAfter - serverBefore) / n, generatorCPU: (ownAfter - ownBefore) / n,
	}, nil
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

// writeServers tells what each server did.
func writeServers(b *strings.Builder, rows []titled) {
	fmt.Fprintln(b)
	table(b, "server, medians of the rounds", "requests/s", "p50", "p99", "server CPU per request", "generator CPU per request", "resident memory")
	for _, row := range rows {
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
