package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const preloaded = 3000 // permissions

// killStorm kills the sidecar at random moments while events are delivered and questions
// asked, and starts it again on the same directory.
func killStorm(ctx context.Context, f *field) error {
	f.ledger, f.history = newLedger(), newHistory(f.fork(), 120, 0)
	if err := f.births(ctx); err != nil {
		return err
	}
	f.data = f.inDir("data")
	if err := f.preload(ctx); err != nil {
		return err
	}
	f.install(nil)
	stop := f.crowd(ctx, 12, 3)
	defer stop()
	for round := 1; !f.over(ctx); round++ {
		do := f.life
		switch {
		case round%7 == 0:
			do = f.checkpoint
		case f.random.IntN(3) == 0:
			do = f.shortLife
		}
		if err := do(ctx); err != nil {
			return err
		}
	}
	if f.hopeless() {
		return nil
	}
	return f.checkpoint(ctx)
}

// preload restores a dump with permissions that nothing happens to any more, so that
// starting and dumping take long enough to be killed at it.
func (f *field) preload(ctx context.Context) error {
	var events []event
	for i := range preloaded {
		e := event{
			id: fmt.Sprintf("evt_old%06d", i), kind: created, at: time.Date(2023, 1, 15, 10, 30, 0, i, time.UTC).UnixNano(),
			permission: fmt.Sprintf("perm_old%06d", i), name: fmt.Sprintf("old%06d:read", i), description: "from before the storm",
		}
		events = append(events, e.seal())
	}
	path := f.inDir("before.ndjson")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing a dump: %w", err)
	}
	if err := errors.Join(writeDump(file, events), file.Close()); err != nil {
		return err
	}
	if _, problems, err := verb(ctx, f.postern, "catalog", "restore", "--data-dir", f.data, path); err != nil {
		return fmt.Errorf("restoring: %w: %s", err, problems)
	}
	for _, e := range events {
		restored := &entry{event: e}
		f.ledger.sending(restored)
		f.ledger.acknowledge(restored)
	}
	return nil
}

// births kills sidecars while they make a new catalog.
func (f *field) births(ctx context.Context) error {
	births := 10
	if f.short {
		births = 3
	}
	for i := range births {
		f.data = f.inDir(fmt.Sprint("birth", i))
		if err := f.shortLife(ctx); err != nil {
			return err
		}
		s, err := f.start(ctx)
		if err != nil {
			return f.refusedStart(ctx, err)
		}
		f.end(s)
	}
	return nil
}

// refusedStart makes a violation of a sidecar that doesn't start on what a kill left.
func (f *field) refusedStart(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.violate("after a kill: %v", err)
	return errors.New("there is no sidecar to go on with")
}

// shortLife kills within the first milliseconds, before anybody is served.
func (f *field) shortLife(ctx context.Context) error {
	s, err := launch(f.postern, f.data)
	if err != nil {
		return err
	}
	pause(ctx, f.upTo(60*time.Millisecond))
	f.count("kills at the start", 1)
	f.end(s)
	return nil
}

// life starts the sidecar, looks at once whether all that was acknowledged is there, and
// kills it some time later, now and then while it dumps the catalog.
func (f *field) life(ctx context.Context) error {
	s, err := f.start(ctx)
	if err != nil {
		return f.refusedStart(ctx, err)
	}
	if f.random.IntN(2) == 0 {
		if err := f.sweep(ctx, s); err != nil {
			f.tolerate(ctx, s, "asking", err)
		}
	}
	pause(ctx, f.upTo(400*time.Millisecond))
	if f.random.IntN(2) == 0 {
		f.killWhileDumping(ctx, s)
		return nil
	}
	f.count("kills", 1)
	f.end(s)
	return nil
}

// killWhileDumping leaves the dump whole, or an error: never a part that looks like a whole.
func (f *field) killWhileDumping(ctx context.Context, s *sidecar) {
	type dumped struct {
		text string
		err  error
	}
	done := make(chan dumped, 1)
	asked := f.ledger.now()
	go func() {
		text, _, err := verb(ctx, f.postern, "catalog", "dump", "--data-dir", f.data)
		done <- dumped{text, err}
	}()
	pause(ctx, f.upTo(60*time.Millisecond))
	f.count("kills while dumping", 1)
	f.end(s)
	d := <-done
	if d.err != nil {
		f.count("dumps cut off", 1)
		return
	}
	f.count("dumps that came whole all the same", 1)
	f.judgeDump(asked, d.text)
}

// checkpoint lets everything be acknowledged and compares the running sidecar, kills it,
// and compares what it left.
func (f *field) checkpoint(ctx context.Context) error {
	s, err := f.start(ctx)
	if err != nil {
		return f.refusedStart(ctx, err)
	}
	pause(ctx, f.upTo(200*time.Millisecond))
	defer f.endCurrent()
	return f.settled(ctx, hangsAfter, func() error {
		err := f.compare(ctx, s)
		f.count("kills", 1)
		f.end(s)
		if err != nil {
			return err
		}
		f.verify(ctx)
		return f.compareDump(ctx)
	})
}
