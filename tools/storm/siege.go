package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	breath        = 100 * time.Millisecond
	refusesWithin = 15 * time.Second // after writes began to fail; free pages of the file may last a while
	healsWithin   = 10 * time.Second // after the cause is gone
	siegeLength   = 600 * time.Millisecond
)

// siege is the time in which the sidecar can't write: webhooks are refused with 503,
// readiness stays and tells of it, and decisions go on, which the askers judge.
func (f *field) siege(ctx context.Context, s *sidecar) {
	refused, asked := f.counted("refused 503"), f.counted("asked")
	if !within(ctx, refusesWithin, func() bool { return f.counted("refused 503") >= refused+5 }) {
		if ctx.Err() == nil {
			f.violate("writes fail, and no webhook was refused within %s", refusesWithin)
		}
		return
	}
	f.tellsOfWrites(ctx, s)
	if err := f.sweep(ctx, s); err != nil {
		f.tolerate(ctx, s, "asking while writes fail", err)
	}
	f.dumpUnderSiege(ctx)
	pause(ctx, f.upTo(siegeLength))
	if f.counted("asked") == asked && ctx.Err() == nil {
		f.violate("no decision was made while writes failed")
	}
}

// dumpUnderSiege may fail, since the running sidecar spools dumps in its directory. What
// it prints with success has to be whole and right.
func (f *field) dumpUnderSiege(ctx context.Context) {
	asked := f.ledger.now()
	if text, _, err := verb(ctx, f.postern, "catalog", "dump", "--data-dir", f.data); err == nil {
		f.judgeDump(asked, text)
	}
}

// tellsOfWrites looks at /readyz?verbose. A commit may succeed in between, while the disk
// isn't quite full: so it tries for a while.
func (f *field) tellsOfWrites(ctx context.Context, s *sidecar) {
	var text string
	told := within(ctx, refusesWithin, func() bool {
		r, err := s.readiness(ctx)
		if err != nil {
			f.tolerate(ctx, s, "asking for readiness", err)
			return true
		}
		if r.status != http.StatusOK {
			f.violate("/readyz says %d while writes fail: %s", r.status, r.body)
			return true
		}
		text = string(r.body)
		return tellsOfFailure(text)
	})
	if !told && ctx.Err() == nil {
		f.violate("/readyz?verbose tells nothing of failing writes:\n%s", text)
	}
	f.count("readiness told of it", 1)
}

// tellsOfFailure reads the line of /readyz?verbose that is about writes.
func tellsOfFailure(readiness string) bool {
	for line := range strings.Lines(readiness) {
		if strings.Contains(line, "]writes:") {
			return strings.Contains(line, "FAILING")
		}
	}
	return false
}

// heals waits until the same process acknowledges everything again. What follows would
// have nothing to go on with if it doesn't.
func (f *field) heals(ctx context.Context, s *sidecar) error {
	began := time.Now()
	if err := f.settled(ctx, healsWithin, func() error { return nil }); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return fmt.Errorf("after writes could succeed again: %w\n%s", err, s.said())
	}
	f.count("healed", 1)
	f.count("milliseconds to heal", int(time.Since(began).Milliseconds()))
	r, err := s.readiness(ctx)
	if err != nil {
		return err
	}
	if tellsOfFailure(string(r.body)) {
		f.violate("/readyz?verbose still tells of failing writes:\n%s", r.body)
	}
	return nil
}
