package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// crowd starts senders and askers. They go on until the returned function is called,
// whether the sidecar is up or not.
func (f *field) crowd(ctx context.Context, senders, askers int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range senders {
		random := f.fork()
		all.Go(func() { f.send(ctx, random) })
	}
	for range askers {
		random := f.fork()
		all.Go(func() { f.keepAsking(ctx, random) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// send delivers what happens, one event after the other, until ctx ends.
func (f *field) send(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		f.sending.RLock()
		f.insist(ctx, f.history.next(), random)
		f.sending.RUnlock()
		pause(ctx, time.Duration(random.Int64N(int64(4*time.Millisecond))))
	}
}

// insist delivers an event until it is acknowledged.
func (f *field) insist(ctx context.Context, e *entry, random *rand.Rand) {
	id := "msg_" + strconv.FormatUint(random.Uint64(), 36)
	f.ledger.sending(e)
	for ctx.Err() == nil {
		s, err := f.present(ctx)
		if err != nil {
			return
		}
		if f.attempt(ctx, s, e, id, random) {
			return
		}
		pause(ctx, time.Duration(random.Int64N(int64(40*time.Millisecond))))
	}
}

// attempt delivers an event once and reports whether it was acknowledged.
func (f *field) attempt(ctx context.Context, s *sidecar, e *entry, id string, random *rand.Rand) bool {
	body, err := e.body(random)
	if err != nil {
		f.violate("%v", err)
		return true
	}
	key, err := decodeSecret(secret)
	if err != nil {
		f.violate("%v", err)
		return true
	}
	began := f.writesFail.Load()
	r, err := s.deliver(ctx, sign(key, id, time.Now(), body), body)
	switch {
	case err != nil:
		f.tolerate(ctx, s, "delivering", err)
		return false
	case r.status == http.StatusCreated:
		f.ledger.acknowledge(e)
		f.count("acknowledged", 1)
		f.violateIf(judgeAcknowledgment(e.event, r.body, began && f.writesFail.Load()))
		return true
	case r.status == http.StatusServiceUnavailable:
		f.violateIf(judgeRefusal(r))
		f.count("refused 503", 1)
	default:
		f.violate("delivering %s: %d %s", e.id, r.status, r.body)
	}
	return false
}

// judgeAcknowledgment tells whether an event may be acknowledged. While nothing can be
// written, only what changes nothing may.
func judgeAcknowledgment(e event, body []byte, writesFail bool) string {
	if writesFail && bytes.Contains(body, []byte(`"applied"`)) {
		return fmt.Sprintf("%s was acknowledged as applied while no commit could succeed", e.id)
	}
	return ""
}

// judgeRefusal tells whether a 503 says when to come back.
func judgeRefusal(r *response) string {
	if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || seconds < 1 {
		return fmt.Sprintf("503 without a Retry-After: %s", r.body)
	}
	return ""
}

// tolerate passes over a request that failed because the sidecar was killed, or because
// the storm is over; else it is a violation.
func (f *field) tolerate(ctx context.Context, s *sidecar, what string, err error) {
	switch {
	case ctx.Err() != nil:
	case s.doomed.Load():
		f.count("cut off by a kill", 1)
	default:
		f.violate("%s: %v\n%s", what, err, s.said())
	}
}

// keepAsking asks one question after the other until ctx ends.
func (f *field) keepAsking(ctx context.Context, random *rand.Rand) {
	var last uint64 // revision
	for ctx.Err() == nil {
		s, err := f.present(ctx)
		if err != nil {
			return
		}
		a, err := f.askOne(ctx, s, f.history.name(), random.IntN(20) > 0)
		if err != nil {
			f.tolerate(ctx, s, "asking", err)
			continue
		}
		if a.Context.Revision < last {
			f.violate("the revision went from %d back to %d", last, a.Context.Revision)
		}
		last = a.Context.Revision
		pause(ctx, time.Duration(random.Int64N(int64(2*time.Millisecond))))
	}
}

// askOne asks one question and judges the answer against what may be known by now.
func (f *field) askOne(ctx context.Context, s *sidecar, name string, holds bool) (answer, error) {
	held := []string{"something:else"}
	if holds {
		held = append(held, name)
	}
	asked := f.ledger.now()
	a, err := s.ask(ctx, name, held)
	if err != nil {
		return a, err
	}
	if !holds {
		f.count("asked", 1)
		if a.Decision {
			f.violate("allowed %s to one who doesn't hold it: %s", name, a)
		}
		return a, nil
	}
	must, may := f.ledger.about(name, asked)
	f.judged("asked", judgeAnswer(name, must, may, a))
	f.violateIf(judgeRevision(name, f.ledger.firstTold(name, a), a))
	f.violateIf(judgeProvenance(asked, f.ledger.sentSoFar(), a))
	return a, nil
}
