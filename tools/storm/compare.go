package main

import (
	"context"
	"errors"
	"fmt"
)

// sweep asks about every name.
func (f *field) sweep(ctx context.Context, s *sidecar) error {
	for _, name := range f.ledger.names() {
		if _, err := f.askOne(ctx, s, name, true); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until everything that was sent is acknowledged, and keeps it so until do
// has returned.
func (f *field) settled(do func() error) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	return do()
}

// compare holds a settled sidecar against the oracle: digest, count and newest event, every
// decision, every state in the dump.
func (f *field) compare(ctx context.Context, s *sidecar) error {
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
	return errors.Join(f.sweep(ctx, s), f.compareDump(ctx))
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
