// Command bench measures Postern's decision API beside the real `opa run --server`: the
// same policy, the same data, the same questions over the same kind of connections, in
// turns. Run it from the root of the repository:
//
//	go -C tools/bench run .
//
// What counts are the ratios within a round, since a shared machine is a different one
// every minute. Nothing is asserted but that each answer is right.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// constantVerb makes this binary serve a constant instead of measuring.
const constantVerb = "serve-constant"

// options are the flags.
type options struct {
	repository  string
	seconds     float64
	rounds      int
	connections int
	permissions int
	out         string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 4 && args[0] == receiveVerb {
		return receive(ctx, args[1], args[2], args[3], stderr)
	}
	if len(args) == 1 && args[0] == constantVerb {
		return serveConstant(ctx, stderr)
	}
	o, err := readOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	text := r.markdown()
	if _, err := io.WriteString(stdout, text); err != nil {
		return err
	}
	if o.out == "" {
		return nil
	}
	return rewrite(o.out, text)
}

func readOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.repository, "repository", "../..", "root of the repository, for the sidecar and the policies")
	flags.Float64Var(&o.seconds, "seconds", 5, "length of a leg, one server under load")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds; in each one every server gets a leg")
	flags.IntVar(&o.connections, "connections", 16, "connections, each with one question in flight")
	flags.IntVar(&o.permissions, "permissions", 10_000, "live permissions in the catalog")
	flags.StringVar(&o.out, "out", "", "file whose section between the markers is rewritten, such as ../../docs/benchmarks.md")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.seconds <= 0 || o.rounds < 1 || o.connections < 1 || o.permissions < 2*heldCount {
		return o, fmt.Errorf("want positive numbers, at least %d permissions and no arguments behind the flags", 2*heldCount)
	}
	return o, nil
}

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

// measure prepares everything, runs the rounds, and cleans up.
func measure(ctx context.Context, o options, progress io.Writer) (r *report, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &field{options: o, dir: dir, progress: progress}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	// One leg that doesn't count: connections, caches and heaps settle.
	for _, c := range f.contenders() {
		if _, err := c.measure(ctx, o); err != nil {
			return nil, err
		}
	}
	for round := range o.rounds {
		if err := f.round(ctx, round); err != nil {
			return nil, err
		}
	}
	return f.report()
}

// round gives each server its leg, one after the other.
func (f *field) round(ctx context.Context, number int) error {
	fmt.Fprintf(f.progress, "round %d of %d:", number+1, f.options.rounds)
	for _, c := range f.contenders() {
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
	l, err := c.target.drive(ctx, o.connections, time.Duration(o.seconds*float64(time.Second)))
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
