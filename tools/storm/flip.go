package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	pageSize    = 4096
	metaPages   = 2  // the first ones; each says which tree of pages is the catalog's
	metaBytes   = 80 // of a meta page that mean something
	shortTrials = 30
	longTrials  = 300
)

// flipStorm damages copies of a good catalog's file and starts the sidecar on them.
func flipStorm(ctx context.Context, f *field) error {
	f.ledger, f.history = newLedger(), newHistory(f.fork(), 60, 0)
	good, err := f.goodFile(ctx)
	if err != nil {
		return err
	}
	whole := f.ledger
	trials := longTrials
	if f.short {
		trials = shortTrials
	}
	for trial := 0; trial < trials && ctx.Err() == nil && !f.hopeless(); trial++ {
		f.ledger = whole.copied()
		f.data = f.inDir(fmt.Sprint("trial", trial))
		what, damaged := f.damage(good)
		if err := f.trial(ctx, what, damaged); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := os.RemoveAll(f.data); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	return ctx.Err()
}

// goodFile makes a catalog of some hundred events, the last of them a deletion that nothing
// comes after, and returns its bytes.
func (f *field) goodFile(ctx context.Context) ([]byte, error) {
	f.data = f.inDir("good")
	s, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	for range 8 {
		random := f.fork()
		all.Go(func() {
			for range 60 {
				f.insist(ctx, f.history.next(), random)
			}
		})
	}
	all.Wait()
	for i, k := range []kind{created, deleted} {
		f.insist(ctx, lateEvent(fmt.Sprint("evt_last", i), k, "perm_last", "deleted:last"), f.random)
	}
	err = f.compare(ctx, s)
	f.install(nil)
	if err := errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(f.data, "catalog.db"))
}

// lateEvent happens after everything that history tells.
func lateEvent(id string, k kind, permission, name string) *entry {
	at := time.Date(2025, 1, 15, 10, 30, 0, int(k), time.UTC)
	return &entry{event: event{id: id, kind: k, at: at.UnixNano(), permission: permission, name: name}.seal()}
}

// copied returns an account of the same events.
func (l *ledger) copied() *ledger {
	other := newLedger()
	for _, e := range l.entries {
		again := &entry{event: e.event}
		other.sending(again)
		if e.acknowledged != 0 {
			other.acknowledge(again)
		}
	}
	return other
}

// damage truncates a file, empties one of its pages or flips one of its bits: anywhere,
// where something stands, or in a meta page.
func (f *field) damage(good []byte) (what string, damaged []byte) {
	at := f.random.IntN(len(good))
	switch f.random.IntN(8) {
	case 0:
		return fmt.Sprintf("truncated to %d of %d bytes", at, len(good)), bytes.Clone(good[:at])
	case 1:
		page := at / pageSize
		damaged = bytes.Clone(good)
		clear(damaged[page*pageSize:][:pageSize])
		return fmt.Sprintf("page %d emptied", page), damaged
	case 2:
		at = f.random.IntN(metaPages)*pageSize + f.random.IntN(metaBytes)
	case 3:
	default:
		for good[at] == 0 {
			at = f.random.IntN(len(good))
		}
	}
	bit := f.random.IntN(8)
	damaged = bytes.Clone(good)
	damaged[at] ^= 1 << bit
	return fmt.Sprintf("bit %d of byte %d (page %d) flipped", bit, at, at/pageSize), damaged
}

// trial starts the sidecar on a damaged file. It may refuse, or be right.
func (f *field) trial(ctx context.Context, what string, damaged []byte) error {
	if err := os.Mkdir(f.data, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	path := filepath.Join(f.data, "catalog.db")
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		return fmt.Errorf("writing the damaged file: %w", err)
	}
	f.count("trials", 1)
	s, err := launch(f.postern, f.data)
	if err != nil {
		return err
	}
	defer s.kill()
	broken := f.broken()
	err = s.await(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		f.count("started", 1)
		f.takesPart(ctx, s, what)
	case errors.Is(err, errHangs):
		f.violate("%v", err)
	default:
		f.count("refused", 1)
		f.violateIf(judgeDamage(s.status, s.said()))
		f.examine(ctx)
		now, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(now, damaged) {
			f.violate("the refused file was changed (%v)", err)
		}
	}
	f.judgeTrace(s)
	if f.broken() > broken {
		f.violate("the above was with a file %s", what)
	}
	return nil
}

// examine runs the verbs that read a refused file. Verify has to find fault with it, too.
// A dump may still succeed where the damage is elsewhere, and is right then.
func (f *field) examine(ctx context.Context) {
	asked := f.ledger.now()
	stdout, stderr, err := verb(ctx, f.postern, "catalog", "verify", "--data-dir", f.data)
	f.violateIf(judgeExamination("verify", stderr, err))
	if err == nil {
		f.violate("postern run refuses a file and postern catalog verify finds it sound:\n%s", stdout)
	}
	stdout, stderr, err = verb(ctx, f.postern, "catalog", "dump", "--data-dir", f.data)
	f.violateIf(judgeExamination("dump", stderr, err))
	if err == nil {
		f.count("dumped all the same", 1)
		f.judgeDump(asked, stdout)
	}
}

// judgeExamination tells whether a verb ended in order, whatever it found.
func judgeExamination(name, stderr string, err error) string {
	var exit *exec.ExitError
	if isTrace(stderr) || (err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 1)) {
		return fmt.Sprintf("postern catalog %s of a damaged file: %v\n%s", name, err, stderr)
	}
	return ""
}

// takesPart looks whether a sidecar on a damaged file is right, and stays so when it
// writes: what it takes for a free page must be one.
func (f *field) takesPart(ctx context.Context, s *sidecar, what string) {
	bounded, cancel := context.WithTimeout(ctx, hangsAfter)
	defer cancel()
	f.install(s)
	err := f.sweep(ctx, s)
	for i, k := range []kind{created, created, deleted} {
		f.insist(bounded, lateEvent(fmt.Sprint("evt_after", i), k, fmt.Sprint("perm_after", i/2), fmt.Sprint("after:damage", i/2)), f.random)
	}
	if errors.Is(bounded.Err(), context.DeadlineExceeded) {
		f.violate("a sidecar on a damaged file doesn't acknowledge:\n%s", s.said())
		return
	}
	if err == nil {
		err = f.sweep(ctx, s)
	}
	f.install(nil)
	at, syncErr := s.sync(ctx)
	if err = errors.Join(err, syncErr, s.stop()); err != nil && ctx.Err() == nil {
		f.violate("on a file %s: %v", what, err)
		return
	}
	events, _ := f.ledger.all()
	for _, wrong := range judgeSync(events, at) {
		f.violate("on a file %s %s", what, wrong)
	}
	f.verify(ctx)
}

// advice is what an error about a damaged file may tell to do.
var advice = []string{"restore it from a dump", "restore a dump", "move it away", "--rebuild", "postern catalog verify"}

// judgeDamage tells whether a refusal is one that helps.
func judgeDamage(status error, said string) string {
	var exit *exec.ExitError
	if !errors.As(status, &exit) || exit.ExitCode() < 1 {
		return fmt.Sprintf("a damaged file ended postern with %v:\n%s", status, said)
	}
	for _, words := range advice {
		if strings.Contains(said, words) {
			return ""
		}
	}
	return fmt.Sprintf("the refusal of a damaged file doesn't say what to do:\n%s", said)
}
