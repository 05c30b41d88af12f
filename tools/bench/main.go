// Command bench measures Postern over HTTP, beside the real `opa run --server` where there is
// something to compare, and writes docs/benchmarks.md. Run it from the root of the repository:
//
//	go -C tools/bench run . -suite door
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
	"slices"
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
	calmSeconds float64
	calmRounds  int
	events      float64
	out         string
	suites      []suite
	given       []string // the flags that were given, as they were, for who repeats it
}

// legLength is how long one server is under load at a time.
func (o options) legLength() time.Duration { return time.Duration(o.seconds * float64(time.Second)) }

// calmLength is how long a leg of the suite calm is.
func (o options) calmLength() time.Duration {
	return time.Duration(o.calmSeconds * float64(time.Second))
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
	if len(args) == 1 && args[0] == limitVerb {
		return sayMemoryLimit(stdout)
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
	return runSuites(ctx, o, stdout, stderr)
}

func readOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var names string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&names, "suite", "", "what to measure, comma-separated; all without it")
	flags.StringVar(&o.repository, "repository", "../..", "root of the repository, for the sidecar and the policies")
	flags.Float64Var(&o.seconds, "seconds", 5, "length of a leg, one server under load")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds; in each one every server gets a leg")
	flags.IntVar(&o.connections, "connections", 16, "connections, each with one question in flight")
	flags.IntVar(&o.permissions, "permissions", 10_000, "live permissions in the catalog")
	flags.Float64Var(&o.calmSeconds, "calm-seconds", 2, "length of a leg of the suite calm")
	flags.IntVar(&o.calmRounds, "calm-rounds", 10, "alternations of the suite calm")
	flags.Float64Var(&o.events, "events", 500, "events a second of the suite calm")
	flags.StringVar(&o.out, "out", "", "file whose sections between the markers are rewritten, such as ../../docs/benchmarks.md")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || min(o.seconds, o.calmSeconds, o.events) <= 0 || min(o.rounds, o.calmRounds, o.connections) < 1 || o.permissions < 2*heldCount {
		return o, fmt.Errorf("want positive numbers, at least %d permissions and no arguments behind the flags", 2*heldCount)
	}
	flags.Visit(func(f *flag.Flag) {
		if !slices.Contains([]string{"suite", "out", "repository"}, f.Name) {
			o.given = append(o.given, "-"+f.Name, f.Value.String())
		}
	})
	var err error
	o.suites, err = chooseSuites(names)
	return o, err
}
