package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// romountStorm starts the sidecar on a file system that is mounted read-only, with a
// catalog on it, and makes it writable under the running sidecar.
func romountStorm(ctx context.Context, f *field) (err error) {
	f.ledger, f.history = newLedger(), newHistory(f.fork(), 120, 0)
	f.data = f.inDir("disk")
	if err := os.Mkdir(f.data, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	unmount, err := mountMemory(ctx, f.data, diskSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	s, err := f.start(ctx)
	if err != nil {
		return err
	}
	defer f.endCurrent()
	stop := f.crowd(ctx, 8, 2)
	defer stop()
	for !f.over(ctx) {
		pause(ctx, f.upTo(siegeLength))
		if s, err = f.startReadonly(ctx, s); err != nil {
			return err
		}
		// The running sidecar isn't asked for a dump: it may have no control socket in a
		// directory that it could not write to.
		if err := f.settled(ctx, hangsAfter, func() error { return f.compareAnswers(ctx, s) }); err != nil {
			return err
		}
	}
	stop()
	f.endCurrent()
	f.verify(ctx)
	return f.compareDump(ctx)
}

// startReadonly is one round.
func (f *field) startReadonly(ctx context.Context, s *sidecar) (*sidecar, error) {
	f.install(nil)
	if err := s.stop(); err != nil {
		return nil, err
	}
	if err := remount(ctx, f.data, "ro"); err != nil {
		return nil, err
	}
	f.count("starts on a read-only file system", 1)
	s, err := f.start(ctx)
	if err != nil {
		return nil, errors.Join(err, remount(ctx, f.data, "rw"))
	}
	f.siege(ctx, s)
	if err := remount(ctx, f.data, "rw"); err != nil {
		return nil, err
	}
	return s, f.heals(ctx, s)
}
