package main

import (
	"context"
	"math/rand/v2"
	"path/filepath"
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

// standing returns the current sidecar, or nil.
func (f *field) standing() *sidecar {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// endCurrent kills the current sidecar, if there is one.
func (f *field) endCurrent() {
	if s := f.standing(); s != nil {
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

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *field) inDir(name string) string { return filepath.Join(f.dir, name) }
