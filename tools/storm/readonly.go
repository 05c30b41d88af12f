package main

import (
	"context"
	"errors"
	"fmt"
)

// fault is what strace makes of the catalog's system calls.
type fault struct {
	inject string
	total  bool // no commit can succeed
}

// faults: the pages of a commit and then its meta page are written by pwrite64, each
// followed by fdatasync. So a second call that fails leaves a commit half done, in the file
// or even visible in it.
var faults = []fault{
	{"pwrite64:error=EROFS", true},
	{"pwrite64:error=EIO", true},
	{"fdatasync:error=EIO", true},
	{"pwrite64:error=EIO:when=2+2", false},
	{"fdatasync:error=EIO:when=2+2", false},
	{"pwrite64:error=ENOSPC:when=3+3", false},
}

// readonlyStorm makes the writes and the syncs of a running sidecar fail, and lets them
// succeed again.
func readonlyStorm(ctx context.Context, f *field) error {
	f.ledger, f.history = newLedger(), newHistory(f.fork(), 120, 0)
	f.data = f.inDir("data")
	if _, err := f.start(ctx, "--lru-size=16"); err != nil {
		return err
	}
	defer f.endCurrent()
	stop := f.crowd(ctx, 8, 2)
	defer stop()
	for round := 0; !f.over(ctx) || (round < len(faults) && ctx.Err() == nil && !f.hopeless()); round++ {
		if err := f.failingWrites(ctx, faults[round%len(faults)], round%4 == 3); err != nil {
			return err
		}
	}
	return f.lastComparison(ctx, stop)
}

// failingWrites is one round with one fault. Sometimes the sidecar is killed while it can't
// write, and leaves a commit of which it doesn't know what became.
func (f *field) failingWrites(ctx context.Context, fault fault, killed bool) error {
	s, err := f.present(ctx)
	if err != nil {
		return err
	}
	pause(ctx, f.upTo(breath))
	t, err := attach(ctx, s.command.Process.Pid, f.inDir("trace"), fault.inject)
	if err != nil {
		return err
	}
	f.count(fault.inject, 1)
	if fault.total {
		f.writesFail.Store(true)
		f.siege(ctx, s)
		f.writesFail.Store(false)
	} else {
		pause(ctx, f.upTo(siegeLength)+breath)
	}
	if killed {
		f.count("kills while writes fail", 1)
		f.end(s)
	}
	failed, err := t.detach()
	if err != nil {
		return err
	}
	f.count("calls made to fail", failed)
	if fault.total && failed == 0 {
		return errors.Join(ctx.Err(), fmt.Errorf("no call on the catalog's file failed by %s: the storm tests nothing", fault.inject))
	}
	if killed {
		if s, err = f.start(ctx, "--lru-size=16"); err != nil {
			return f.refusedStart(ctx, err)
		}
	}
	return f.heals(ctx, s)
}

// lastComparison ends a storm: everything is acknowledged and compared, in the running
// sidecar, and in what it leaves behind.
func (f *field) lastComparison(ctx context.Context, stop func()) error {
	if f.hopeless() {
		return nil
	}
	s, err := f.present(ctx)
	if err != nil {
		return err
	}
	if err := f.settled(ctx, hangsAfter, func() error { return f.compare(ctx, s) }); err != nil {
		return err
	}
	stop()
	f.endCurrent()
	f.verify(ctx)
	return f.compareDump(ctx)
}
