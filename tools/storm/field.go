package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// field is where one storm rages: a data directory, the sidecar on it, those who send and
// those who ask, and the account of it all.
type field struct {
	*account

	postern string // the binary
	dir     string // for this storm alone
	data    string // the data directory
	random  *rand.Rand
	until   time.Time
	short   bool
	ledger  *ledger
	history *history

	mu      sync.Mutex
	current *sidecar
	changed chan struct{} // closed when current changes

	// writesFail says that no commit can succeed at the moment.
	writesFail atomic.Bool

	// sending is held for reading while an event is on its way, from its first attempt to
	// its acknowledgment; who holds it for writing has everything acknowledged.
	sending sync.RWMutex
}

// over tells a storm to end.
func (f *field) over(ctx context.Context) bool {
	return ctx.Err() != nil || f.hopeless() || time.Now().After(f.until)
}

// fork returns another source of randomness, for another goroutine.
func (f *field) fork() *rand.Rand {
	return rand.New(rand.NewPCG(f.random.Uint64(), f.random.Uint64())) //nolint:gosec // repeatable on purpose
}

// upTo returns a random duration.
func (f *field) upTo(most time.Duration) time.Duration {
	return time.Duration(f.random.Int64N(int64(most)))
}

// install makes a sidecar the one that is spoken to; nil: there is none at the moment.
func (f *field) install(s *sidecar) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = s
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

// present returns the current sidecar, and waits for one if need be.
func (f *field) present(ctx context.Context) (*sidecar, error) {
	for {
		f.mu.Lock()
		s, changed := f.current, f.changed
		f.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// start launches a sidecar, waits until it listens and makes it the current one.
func (f *field) start(ctx context.Context, flags ...string) (*sidecar, error) {
	s, err := launch(f.postern, f.data, flags...)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		s.kill()
		f.judgeTrace(s)
		return nil, err
	}
	f.count("starts", 1)
	f.install(s)
	return s, nil
}

// end kills a sidecar and looks at what it leaves behind.
func (f *field) end(s *sidecar) {
	f.install(nil)
	died := s.gone() && !s.doomed.Load()
	s.kill()
	f.judgeTrace(s)
	if died {
		f.violate("postern ended by itself (%v):\n%s", s.status, s.said())
	}
}

// endCurrent kills the current sidecar, if there is one.
func (f *field) endCurrent() {
	f.mu.Lock()
	s := f.current
	f.mu.Unlock()
	if s != nil {
		f.end(s)
	}
}

func (f *field) judgeTrace(s *sidecar) {
	if line := s.traced(); line != "" {
		f.violate("postern's log has a trace: %s\n%s", line, s.said())
	}
}

func (s *sidecar) gone() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

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

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
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
	f.violateIf(judgeProvenance(asked, f.ledger.sentSoFar(), a))
	return a, nil
}

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

func (f *field) inDir(name string) string { return filepath.Join(f.dir, name) }
