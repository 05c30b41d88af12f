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
	s, err := f.start(ctx, "--lru-size=16")
	if err != nil {
		return err
	}
	defer func() { f.end(s) }()
	stop := f.crowd(ctx, 8, 2)
	defer stop()
	for round := 1; !f.over(ctx); round++ {
		if s, err = f.fullDisk(ctx, s, round%3 == 0); err != nil {
			return err
		}
	}
	if f.hopeless() {
		return nil
	}
	if err := f.settled(func() error { return f.compare(ctx, s) }); err != nil {
		return err
	}
	stop()
	f.end(s)
	f.verify(ctx)
	return f.compareDump(ctx)
}

// fullDisk is one round. Sometimes the sidecar is killed while the disk is full, and has to
// start on it: its file needs no more room for that.
func (f *field) fullDisk(ctx context.Context, s *sidecar, killed bool) (*sidecar, error) {
	pause(ctx, f.upTo(hundredMilliseconds))
	path, err := ballast(f.data, f.random.IntN(leaveMost))
	if err != nil {
		return s, err
	}
	f.count("full disks", 1)
	f.siege(ctx, s)
	if killed && !f.hopeless() {
		f.count("kills on a full disk", 1)
		f.end(s)
		if s, err = f.start(ctx, "--lru-size=16"); err != nil {
			return s, errors.Join(f.refusedStart(ctx, err), os.Remove(path))
		}
		f.siege(ctx, s)
	}
	if err := os.Remove(path); err != nil {
		return s, fmt.Errorf("making room again: %w", err)
	}
	f.heals(ctx, s)
	return s, nil
}
