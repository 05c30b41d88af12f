package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

const (
	diskSize  = 24 << 20
	leaveMost = 64 << 10 // bytes that the ballast leaves free: a commit fails anywhere between its pages
)

// diskStorm fills the file system under the catalog again and again, and makes room again.
func diskStorm(ctx context.Context, f *field) (err error) {
	f.ledger, f.history = newLedger(), newHistory(f.fork(), 600, 1500)
	f.data = f.inDir("disk")
	if err := os.Mkdir(f.data, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	unmount, err := mountMemory(ctx, f.data, diskSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	// With few records in the LRU, questions have to read the file.
	if _, err := f.start(ctx, "--lru-size=16"); err != nil {
		return err
	}
	defer f.endCurrent()
	stop := f.crowd(ctx, 8, 2)
	defer stop()
	for round := 1; !f.over(ctx); round++ {
		if err := f.fullDisk(ctx, round%3 == 0); err != nil {
			return err
		}
	}
	return f.lastComparison(ctx, stop)
}

// fullDisk is one round. Sometimes the sidecar is killed while the disk is full, and has to
// start on it: its file needs no more room for that.
func (f *field) fullDisk(ctx context.Context, killed bool) error {
	s, err := f.present(ctx)
	if err != nil {
		return err
	}
	pause(ctx, f.upTo(breath))
	path, err := ballast(f.data, f.random.IntN(leaveMost))
	if err != nil {
		return err
	}
	f.count("full disks", 1)
	f.siege(ctx, s)
	if killed && !f.hopeless() {
		f.count("kills on a full disk", 1)
		f.end(s)
		if s, err = f.start(ctx, "--lru-size=16"); err != nil {
			return f.refusedStart(ctx, err)
		}
		f.siege(ctx, s)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("making room again: %w", err)
	}
	return f.heals(ctx, s)
}
