package scalekit

import (
	"errors"
	"sync"
	"time"
)

// Status is how the reconciliation stands, as of now.
type Status struct {
	State       State
	Listed      bool      // a listing was applied, by this process or one before it
	LastSuccess time.Time // zero before the first one of this process
	LastAttempt time.Time
	NextAttempt time.Time
	Failure     *Failure    // of the last attempt, nil when it succeeded
	Drift       *FoundDrift // the last one that wasn't empty
}

// Failure is why an attempt changed nothing, or not all.
type Failure struct {
	Kind    ErrorKind
	Message string // without secrets
	At      time.Time
	InARow  int
}

// FoundDrift is a drift and what became of it.
type FoundDrift struct {
	Drift
	Since         time.Time // of the first of the reconciliations in a row that found one
	At            time.Time // of the last of them
	Applied       bool      // nothing of it waits any more
	HeldBack      bool      // it would have removed too much
	Waiting       int       // permissions that another listing has to confirm
	ListingDigest string    // of what Scalekit listed
}

// KindHeldBack and KindCatalog are the kinds of failure that aren't the API's.
const (
	KindHeldBack ErrorKind = "held_back"
	KindCatalog  ErrorKind = "catalog"
)

// failureKind returns the kind of a failure, for metrics and GET /v1/sync.
func failureKind(err error) ErrorKind {
	var refused *APIError
	switch {
	case errors.Is(err, ErrHeldBack):
		return KindHeldBack
	case errors.As(err, &refused):
		return refused.Kind
	}
	return KindCatalog
}

// board is where the reconciliation's standing is told.
type board struct {
	mu        sync.Mutex // guards all
	status    Status
	drifting  bool // the last reconciliation found a drift
	driftFrom time.Time
	listed    chan struct{} // closed when status.Listed is set
}

func newBoard(complete bool) *board {
	b := &board{listed: make(chan struct{})}
	if complete {
		b.setListed()
	}
	return b
}

func (b *board) setListed() {
	if !b.status.Listed {
		b.status.Listed = true
		close(b.listed)
	}
}

func (b *board) schedule(next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.NextAttempt = next
}

// record takes down what came of a reconciliation.
func (b *board) record(o outcome, now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.status
	s.LastAttempt = now
	if o.applied {
		b.setListed()
	}
	if err != nil {
		inARow := 1
		if s.Failure != nil {
			inARow += s.Failure.InARow
		}
		s.Failure = &Failure{failureKind(err), err.Error(), now, inARow}
	} else {
		s.Failure, s.LastSuccess = nil, now
	}
	if !o.applied && !errors.Is(err, ErrHeldBack) {
		return // nothing was compared
	}
	b.recordDrift(o, now, errors.Is(err, ErrHeldBack))
}

func (b *board) recordDrift(o outcome, now time.Time, heldBack bool) {
	if o.drift.Empty() && !heldBack { // what is held back is accepted by its digest, even where nothing of it counts yet
		b.drifting = false
		return
	}
	if !b.drifting {
		b.driftFrom = now
	}
	b.drifting = true
	b.status.Drift = &FoundDrift{
		Drift: o.drift, Since: b.driftFrom, At: now,
		Applied: o.applied && o.waiting == 0, HeldBack: heldBack, Waiting: o.waiting, ListingDigest: o.digest.String(),
	}
}

// state judges by the time since the last success.
func (b *board) state(now time.Time, staleAfter time.Duration) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s := &b.status; {
	case !s.Listed:
		s.State = StateBootstrapping
	case s.LastSuccess.IsZero() || now.Sub(s.LastSuccess) >= staleAfter:
		s.State = StateStale
	default:
		s.State = StateFresh
	}
	return b.status.State
}

// Status returns it.
func (r *Reconciler) Status() Status {
	r.board.mu.Lock()
	defer r.board.mu.Unlock()
	return r.board.status
}
