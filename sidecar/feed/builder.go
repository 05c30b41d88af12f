package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/postern-authz/postern/sidecar/spool"
)

// buildShare bounds what building takes while changes follow each other without end: this part
// of the time of one processor at most. The first build after a quiet time begins at once.
const buildShare = 4

// builder builds versions, one at a time, for those who ask.
type builder[V any] struct {
	source Source[V]
	dir    string

	mu      sync.Mutex // guards what follows
	count   int        // builds that were begun
	newest  *built     // nil before the first
	under   *building  // way; nil while nobody asks
	stopped bool
	idleAt  time.Time // when the last build ended, and
	took    time.Duration
}

// built is a version that is kept while it is the newest or somebody reads it.
type built struct {
	number  int // of the build
	tag     string
	content *spool.Spool

	mu      sync.Mutex // guards readers
	readers int        // the builder included, while it is the newest
}

// building is a build under way.
type building struct {
	number int
	pinned bool // whoever asks from now on may know a newer version
	askers int
	cancel context.CancelFunc
	done   chan struct{} // closed after err was set
	err    error
}

var (
	errAbandoned = errors.New("nobody waits for it any more")
	errStopped   = errors.New("it was stopped")
)

// get returns a version that was the newest at some moment since the call. It must be released.
func (b *builder[V]) get(ctx context.Context) (*built, error) {
	tag := b.source.Tag(b.source.Pin())
	b.mu.Lock()
	defer b.mu.Unlock()
	enough := b.count + 1
	if b.under != nil && !b.under.pinned {
		enough = b.under.number
	}
	for {
		if b.newest != nil && (b.newest.tag == tag || b.newest.number >= enough) {
			return b.newest.acquire(), nil
		}
		if b.stopped {
			return nil, errStopped
		}
		if b.under == nil {
			b.begin() //nolint:contextcheck // it ends with the last of those who ask, not with the first
		}
		if err := b.wait(ctx, b.under); err != nil {
			return nil, err
		}
	}
}

// wait waits for a build, which ends early when nobody else does. The lock is held at the
// call and at the return.
func (b *builder[V]) wait(ctx context.Context, under *building) error {
	under.askers++
	b.mu.Unlock()
	var err error
	select {
	case <-under.done:
		if err = under.err; errors.Is(err, errAbandoned) {
			err = nil // by others: this one came behind them, and begins another
		}
	case <-ctx.Done():
		err = fmt.Errorf("waiting for a build: %w", ctx.Err())
	}
	b.mu.Lock()
	if under.askers--; under.askers == 0 {
		under.cancel()
	}
	return err
}

// begin begins a build. The lock is held.
func (b *builder[V]) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	b.count++
	b.under = &building{number: b.count, cancel: cancel, done: make(chan struct{})}
	go func(under *building) {
		defer cancel()
		version, err := b.build(ctx, under)
		b.mu.Lock()
		defer b.mu.Unlock()
		switch {
		case err == nil:
			b.replace(version)
		case b.stopped:
			err = errStopped
		case ctx.Err() != nil:
			err = errAbandoned
		}
		b.under, under.err = nil, err
		close(under.done)
	}(b.under)
}

// build rests if the last build was long or little ago, and builds the newest version.
func (b *builder[V]) build(ctx context.Context, under *building) (version *built, err error) {
	defer func() {
		if reason := recover(); reason != nil { // a mistake of ours ends the build, not the process
			err = fmt.Errorf("building: panic: %v", reason)
		}
	}()
	if err := b.rest(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	under.pinned = true
	b.mu.Unlock()
	defer b.note(time.Now())
	pinned := b.source.Pin()
	version = &built{number: under.number, tag: b.source.Tag(pinned), content: spool.New(b.dir), readers: 1}
	if err = b.source.Write(ctx, pinned, version.content); err == nil {
		err = version.content.Finish()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("building: %w", err), version.content.Close())
	}
	return version, nil
}

// note remembers how long a build took, whatever became of it.
func (b *builder[V]) note(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idleAt = time.Now()
	b.took = b.idleAt.Sub(began)
}

func (b *builder[V]) rest(ctx context.Context) error {
	b.mu.Lock()
	rest := time.Until(b.idleAt.Add((buildShare - 1) * b.took))
	b.mu.Unlock()
	if rest <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replace makes version the newest. The lock is held.
func (b *builder[V]) replace(version *built) {
	if b.newest != nil {
		b.newest.release()
	}
	b.newest = version
}

// stop ends the build under way and those to come, and gives the newest version back.
func (b *builder[V]) stop() {
	b.mu.Lock()
	b.stopped = true
	under := b.under
	b.mu.Unlock()
	if under != nil {
		under.cancel()
		<-under.done
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replace(nil)
}

func (v *built) acquire() *built {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.readers++
	return v
}

// release gives the room back with the last reader.
func (v *built) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.readers--; v.readers == 0 {
		_ = v.content.Close() // the file has no name: its room is free whatever this says
	}
}
