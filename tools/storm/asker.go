package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const truthAskers = 3

// askers ask until the returned function is called.
func (t *truth) askers(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range truthAskers {
		random := t.fork()
		all.Go(func() { t.keepJudging(ctx, random) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// keepJudging asks about deletions as soon as they are acknowledged, else about a name that was
// deleted lately or any other.
func (t *truth) keepJudging(ctx context.Context, random *rand.Rand) {
	var last uint64 // revision
	for ctx.Err() == nil {
		var name string
		select {
		case name = <-t.deleted:
		default:
			pause(ctx, some(random, 2*time.Millisecond))
			name = t.anyName(random)
		}
		s, err := t.present(ctx)
		if err != nil {
			return
		}
		revision, err := t.judgeOne(ctx, s, name, random.IntN(20) > 0)
		if err != nil {
			t.tolerate(ctx, s, "asking", err)
			continue
		}
		if revision < last {
			t.violate("the revision went from %d back to %d", last, revision)
		}
		last = revision
	}
}

func (t *truth) anyName(random *rand.Rand) string {
	if recent := t.lately(); len(recent) > 0 && random.IntN(2) == 0 {
		return recent[random.IntN(len(recent))]
	}
	return fmt.Sprintf("name%03d:read", pickOne(random))
}

// judgeOne asks about a name and judges the answer by what was acknowledged when it was asked
// and created by the time it came.
func (t *truth) judgeOne(ctx context.Context, s *sidecar, name string, holds bool) (revision uint64, err error) {
	held := []string{"something:else"}
	if holds {
		held = append(held, name)
	}
	asked, before := t.now(), t.of(name)
	a, err := s.ask(ctx, name, held)
	if err != nil {
		return 0, err
	}
	t.count("asked", 1)
	if !holds {
		if a.Decision {
			t.violate("allowed %s to one who doesn't hold it: %s", name, a)
		}
		return a.Context.Revision, nil
	}
	if len(before) > 0 && goneBy(before, asked) == len(before) {
		t.count("asked about a deletion that was acknowledged", 1)
	}
	t.violateIf(judgeAfterDeletions(name, t.of(name), asked, a))
	t.violateIf(judgeRevision(name, t.ledger.firstTold(name, a), a))
	return a.Context.Revision, nil
}

// compareNames asks about every name once both sides agree.
func (t *truth) compareNames(ctx context.Context) {
	s, err := t.present(ctx)
	if err != nil {
		return
	}
	for _, name := range t.names() {
		a, err := s.ask(ctx, name, []string{name})
		if err != nil {
			t.tolerate(ctx, s, "asking after the storm", err)
			return
		}
		t.count("compared", 1)
		t.violateIf(judgeTruth(name, t.bearer(name), a))
	}
}
