package scalekit

import (
	"context"
	"errors"
	"time"
)

// Run reconciles until ctx ends: at once, then in intervals, sooner after a failure and to
// confirm what one listing alone can't say, and whenever it is asked for.
func (r *Reconciler) Run(ctx context.Context) {
	go r.followRoles(ctx)
	staleness := time.NewTimer(0)
	defer staleness.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-staleness.C:
			r.config.Catalog.SetState(r.board.state(r.config.Now(), r.config.StaleAfter))
			continue
		case <-next.C:
		case <-r.asked:
		case <-r.ran: // whoever had it run
			err, again := r.lastRun()
			wait := r.wait(err, again)
			r.board.schedule(r.config.Now().Add(wait))
			next.Reset(wait)
			if err == nil {
				staleness.Reset(r.config.StaleAfter)
			}
			continue
		}
		_, _ = r.Reconcile(ctx) // what came of it is told by the next token
	}
}

// Ask has Run reconcile now. It returns at once.
func (r *Reconciler) Ask() { ask(r.asked) }

// RolesChanged has the roles listed once such events are quiet. It returns at once.
func (r *Reconciler) RolesChanged() { ask(r.roles) }

func ask(tokens chan<- struct{}) {
	select {
	case tokens <- struct{}{}:
	default: // one is asked for already
	}
}

// wait returns how long it is until the next reconciliation, behind one that ended with err
// and would like another one soon; zero: doesn't care.
func (r *Reconciler) wait(err error, again time.Duration) time.Duration {
	var refused *APIError
	switch {
	case err == nil || errors.Is(err, ErrHeldBack):
		r.backoff.Reset()
	case errors.As(err, &refused):
		return r.backoff.Next(refused.RetryAfter)
	default:
		return r.backoff.Next(0)
	}
	interval := time.Duration(float64(r.config.Interval) * (0.9 + 0.2*r.config.Random()))
	if err == nil && again > 0 {
		return min(interval, again)
	}
	return interval
}

func (r *Reconciler) lastRun() (err error, again time.Duration) { //nolint:revive,staticcheck // it isn't this function's error
	r.passes.Lock()
	defer r.passes.Unlock()
	return r.last, r.again
}

// followRoles lists the roles behind role events, until ctx ends.
func (r *Reconciler) followRoles(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.roles:
		}
		r.settleRoles(ctx)
		if err := r.reconcileRoles(ctx); err != nil && ctx.Err() == nil {
			r.config.Logger.Warn("listing roles after a role event failed; the next reconciliation tries again", "kind", failureKind(err), "error", err)
			r.Ask()
		}
	}
}

// settleRoles waits until no role event has come for a while.
func (r *Reconciler) settleRoles(ctx context.Context) {
	latest := time.NewTimer(rolesLatest)
	defer latest.Stop()
	for {
		quiet := time.NewTimer(rolesQuiet)
		select {
		case <-r.roles:
			quiet.Stop()
			continue
		case <-quiet.C:
		case <-latest.C:
		case <-ctx.Done():
		}
		quiet.Stop()
		return
	}
}

func (r *Reconciler) reconcileRoles(ctx context.Context) error {
	r.passes.Lock()
	defer r.passes.Unlock()
	return r.applyRoles(ctx)
}
