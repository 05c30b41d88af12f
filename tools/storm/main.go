// Command storm mistreats the real postern binary and looks whether its promises hold. Run
// it from the root of the repository:
//
//	go -C tools/storm run . -for 2m
//	go -C tools/storm run . -short -strict
//	go -C tools/storm run . -only kill,flip -seed 7
//
// Each storm builds on the same ground: real HTTP on loopback, signed webhooks, a real disk,
// random histories of permissions delivered concurrently, out of order and repeatedly by
// senders who insist until they are acknowledged, and askers who judge every answer. What
// must be answered is worked out by a plain fold over the set of events (fold.go), which
// shares no code with Postern: an answer is right if it follows from everything that was
// acknowledged when it was asked, and any part of what had been sent by the time it came.
//
// A broken invariant is told at once, and the exit status is 1. The same seed makes the same
// histories and the same choices of the storm; the moments still depend on the machine.
//
//	kill      SIGKILL at random moments: while a catalog is made, within the first milliseconds of
//	          a start, amid deliveries, amid `postern catalog dump`
//	disk      a small file system is filled and emptied, and the sidecar killed and started on it
//	          while it is full
//	readonly  pwrite64 and fdatasync on the catalog's file fail, by strace's fault injection; the
//	          trace has to show that they did
//	romount   a start on a file system that is mounted read-only, and made writable later
//	flip      truncated, emptied and bit-flipped copies of a good file, a number of trials that
//	          doesn't depend on -for
//	truth     10,000 changes at a simulated Scalekit, whatever -for says: one in twenty webhooks is
//	          lost, repeated, reordered or forged, names are deleted and created again, the API
//	          fails and hides permissions, and both sides are killed. Here the listings have a
//	          say, too, so it has a judge of its own (register.go)
//
// The storms mount small file systems, for which they need root, and attach strace. What
// can't run here is skipped with a message, or is an error with -strict.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// storm is a row of the table.
type storm struct {
	name  string
	does  string
	share int                         // of the time, beside the others; 0 for a storm of so many trials
	needs func(context.Context) error // why it can't run here, or nil
	run   func(context.Context, *field) error
}

func storms() []storm {
	return []storm{
		{name: "kill", does: "kill -9 at random moments loses nothing acknowledged", share: 4, run: killStorm},
		{name: "disk", does: "a full disk refuses webhooks, decisions go on, and room heals it", share: 3, needs: mountable, run: diskStorm},
		{name: "readonly", does: "writes and syncs that fail refuse webhooks, decisions go on, and it heals", share: 3, needs: traceable, run: readonlyStorm},
		{name: "romount", does: "a start on a read-only file system decides, and heals once it is writable", share: 2, needs: mountable, run: romountStorm},
		{name: "flip", does: "a damaged file is refused untouched, or every decision is right", run: flipStorm},
		{name: "truth", does: "sidecar and Scalekit agree after a storm, and no acknowledged deletion is allowed", run: truthStorm},
	}
}

// options are the flags.
type options struct {
	repository string
	postern    string
	only       string
	seed       uint64
	length     time.Duration
	short      bool
	strict     bool
}

func main() {
	// Whatever ends the run, nothing may stay mounted and no sidecar running.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	// Once somebody is told of it, a broken pipe is an error where it was written, and not an
	// end: connections break whenever a sidecar is killed.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := run(ctx, os.Args[1:], heard{os.Stdout, stop}, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

// heard calls gone when nobody reads what is told any more.
type heard struct {
	io.Writer
	gone func()
}

func (h heard) Write(p []byte) (int, error) {
	n, err := h.Writer.Write(p)
	if err != nil {
		h.gone()
	}
	return n, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := readOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	selected, err := choose(storms(), o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "storm-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.postern == "" {
		o.postern = filepath.Join(dir, "postern")
		if err := build(ctx, o); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "seed %d\n", o.seed)
	return rage(ctx, o, selected, dir, stdout)
}

func readOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.repository, "repository", "../..", "root of the repository, for building postern")
	flags.StringVar(&o.postern, "postern", "", "a binary to mistreat instead of building one")
	flags.StringVar(&o.only, "only", "", "storms to run, comma-separated: "+strings.Join(names(storms()), ", "))
	flags.Uint64Var(&o.seed, "seed", rand.Uint64(), "seed of all randomness; random by default") //nolint:gosec // it is printed
	flags.DurationVar(&o.length, "for", 2*time.Minute, "how long the storms take together, flip, truth and the last comparisons aside")
	flags.BoolVar(&o.short, "short", false, "three quarters of a minute in all: short storms, few trials and few changes")
	flags.BoolVar(&o.strict, "strict", false, "a storm that can't run here is an error")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.length <= 0 {
		return o, errors.New("want a positive -for and no arguments behind the flags")
	}
	if o.short {
		o.length = 16 * time.Second
	}
	return o, nil
}

func names(table []storm) (names []string) {
	for _, s := range table {
		names = append(names, s.name)
	}
	return names
}

// choose returns the storms that only names, or those that run by default.
func choose(table []storm, only string) (chosen []storm, err error) {
	wanted := map[string]bool{}
	for _, name := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' }) {
		wanted[name] = true
	}
	for _, s := range table {
		if wanted[s.name] || only == "" {
			chosen = append(chosen, s)
		}
		delete(wanted, s.name)
	}
	for name := range wanted {
		return nil, fmt.Errorf("unknown storm %q; there are %s", name, strings.Join(names(table), ", "))
	}
	return chosen, nil
}

func build(ctx context.Context, o options) error {
	command := exec.CommandContext(ctx, "go", "build", "-o", o.postern, "./sidecar")
	command.Dir = o.repository
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building postern: %w\n%s", err, output)
	}
	return nil
}

// rage runs one storm after the other and sums up.
func rage(ctx context.Context, o options, selected []storm, dir string, stdout io.Writer) error {
	var failed []error
	for _, s := range selected {
		if ctx.Err() != nil {
			break
		}
		if err := s.possible(ctx); err != nil {
			if o.strict {
				failed = append(failed, fmt.Errorf("%s can't run: %w", s.name, err))
			}
			fmt.Fprintf(stdout, "%s: NOT RUN, nothing was tested: %v\n", s.name, err)
			continue
		}
		if err := s.rage(ctx, o, timeFor(s, selected, o.length), filepath.Join(dir, s.name), stdout); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(failed...)
}

// timeFor divides the time among the selected storms.
func timeFor(s storm, selected []storm, length time.Duration) time.Duration {
	shares := 0
	for _, other := range selected {
		shares += other.share
	}
	if shares == 0 {
		return 0
	}
	return length * time.Duration(s.share) / time.Duration(shares)
}

// possible tells why the storm can't run here, or nil.
func (s storm) possible(ctx context.Context) error {
	if s.needs == nil {
		return nil
	}
	return s.needs(ctx)
}

// rage runs the storm and prints its account.
func (s storm) rage(ctx context.Context, o options, length time.Duration, dir string, stdout io.Writer) error {
	fmt.Fprintf(stdout, "%s: %s\n", s.name, s.does)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	f := &field{
		account: newAccount(s.name, stdout), postern: o.postern, dir: dir, short: o.short,
		random: rand.New(rand.NewPCG(o.seed, 0)), //nolint:gosec // repeatable on purpose
		until:  time.Now().Add(length),
	}
	stop := f.report()
	err := s.run(ctx, f)
	stop()
	verdict := "held"
	if err != nil {
		verdict = "FAILED"
	}
	if n := f.broken(); n > 0 {
		verdict = "BROKEN"
		err = errors.Join(err, fmt.Errorf("%d invariants broken:\n- %s", n, strings.Join(f.violations, "\n- ")))
	}
	fmt.Fprintf(stdout, "%s: %s after %d s: %s\n", s.name, verdict, int(time.Since(f.began).Seconds()), f.told())
	return err
}
