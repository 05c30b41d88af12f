package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const mostSwept = 150 // names of one sweep

// sweep asks about every name, or about many of them where there are too many.
func (f *field) sweep(ctx context.Context, s *sidecar) error {
	names := f.ledger.names()
	f.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:min(mostSwept, len(names))] {
		if _, err := f.askOne(ctx, s, name, true); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until everything that was sent is acknowledged, and keeps it so until do
// has returned. It is an error when that doesn't come about in time.
func (f *field) settled(ctx context.Context, most time.Duration, do func() error) error {
	granted, gaveUp := make(chan struct{}), make(chan struct{})
	go func() {
		f.sending.Lock()
		select {
		case granted <- struct{}{}:
		case <-gaveUp:
			f.sending.Unlock()
		}
	}()
	patience := time.NewTimer(most)
	defer patience.Stop()
	select {
	case <-granted:
		defer f.sending.Unlock()
		return do()
	case <-patience.C:
		close(gaveUp)
		return fmt.Errorf("webhooks were sent for %s and not acknowledged", most)
	case <-ctx.Done():
		close(gaveUp)
		return ctx.Err()
	}
}

// compare holds a settled sidecar against the oracle: its answers, and every state in its
// dump.
func (f *field) compare(ctx context.Context, s *sidecar) error {
	return errors.Join(f.compareAnswers(ctx, s), f.compareDump(ctx))
}

// compareAnswers looks at digest, count and newest event, and at decisions.
func (f *field) compareAnswers(ctx context.Context, s *sidecar) error {
	events, open := f.ledger.all()
	if open > 0 {
		return fmt.Errorf("%d events were not acknowledged at a checkpoint", open)
	}
	at, err := s.sync(ctx)
	if err != nil {
		return err
	}
	for _, wrong := range judgeSync(events, at) {
		f.violate("at a checkpoint %s", wrong)
	}
	f.count("checkpoints", 1)
	return f.sweep(ctx, s)
}

// compareDump holds a settled dump, of the running or the stopped sidecar, against the
// oracle, id by id.
func (f *field) compareDump(ctx context.Context) error {
	asked := f.ledger.now()
	stdout, stderr, err := verb(ctx, f.postern, "catalog", "dump", "--data-dir", f.data)
	if err != nil {
		return fmt.Errorf("dumping: %w: %s", err, stderr)
	}
	f.judgeDump(asked, stdout)
	return nil
}

func (f *field) judgeDump(asked moment, text string) {
	d, err := parseDump([]byte(text))
	if err != nil {
		f.violate("%v", err)
		return
	}
	for _, id := range f.ledger.ids(asked) {
		if _, dumped := d.lines[id]; !dumped {
			must, may := f.ledger.ofID(id, asked)
			f.judged("dumped states", judgeDumped(id, must, may, nil))
		}
	}
	for id, line := range d.lines {
		must, may := f.ledger.ofID(id, asked)
		f.judged("dumped states", judgeDumped(id, must, may, &line))
	}
}

// verify runs `postern catalog verify`, which has to find nothing.
func (f *field) verify(ctx context.Context) {
	stdout, stderr, err := verb(ctx, f.postern, "catalog", "verify", "--data-dir", f.data)
	f.count("verified", 1)
	if err != nil {
		f.violate("postern catalog verify: %v\n%s%s", err, stdout, stderr)
	}
}
