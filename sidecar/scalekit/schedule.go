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
	if err != nil && !errors.Is(err, ErrHeldBack) {
		return r.backoff.Next(retryAfter(err))
	}
	r.backoff.Reset()
	interval := time.Duration(float64(r.config.Interval) * (0.9 + 0.2*r.config.Random()))
	if err == nil && again > 0 {
		return min(interval, again)
	}
	return interval
}

// retryAfter returns how long Scalekit asked to wait; zero when it didn't.
func retryAfter(err error) time.Duration {
	if refused := new(APIError); errors.As(err, &refused) {
		return refused.RetryAfter
	}
	return 0
}

func (r *Reconciler) lastRun() (err error, again time.Duration) { //nolint:revive,staticcheck // it isn't this function's error
	r.passes.Lock()
	defer r.passes.Unlock()
	return r.last, r.again
}

// followRoles lists the roles behind role events, until ctx ends. After a failure it waits as
// long as it was asked to.
func (r *Reconciler) followRoles(ctx context.Context) {
	backoff := Backoff{Base: firstBackoff, Max: r.config.Interval, Random: r.config.Random}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.roles:
		}
		r.settleRoles(ctx)
		err := r.reconcileRoles(ctx)
		if err == nil || ctx.Err() != nil {
			backoff.Reset()
			continue
		}
		wait := backoff.Next(retryAfter(err))
		r.config.Logger.Warn("listing roles after a role event failed", "kind", failureKind(err), "error", err, "again_in", wait)
		if sleep(ctx, wait) == nil {
			r.RolesChanged()
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
