package scalekit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	// firstBackoff is the longest wait behind the first failure.
	firstBackoff = 2 * time.Second
	// rolesQuiet is how long role events have to be quiet before the roles are listed.
	rolesQuiet = 2 * time.Second
	// rolesLatest is how long a stream of role events can put that off.
	rolesLatest = 30 * time.Second
	// fewRemovals may always be applied, however few permissions there are.
	fewRemovals = 10
)

// Source is where the truth is listed: a [Client].
type Source interface {
	Permissions(ctx context.Context) (*Listing, error)
	Roles(ctx context.Context) ([]permission.Role, error)
}

// Catalog is what is compared with the truth, and repaired.
type Catalog interface {
	// States calls each for every state, in the order of ids, all of one revision; decides
	// tells whether the state decides for its name.
	States(ctx context.Context, each func(s permission.State, decides bool) error) error
	// Repair merges states, replaces the roles unless they are nil, and marks the catalog
	// complete if asked to, all in one commit. It returns how many states changed.
	Repair(ctx context.Context, states []permission.State, roles []permission.Role, complete bool) (changed int, err error)
	// Standing returns the number of live permissions, and whether the catalog is complete.
	Standing() (live uint64, complete bool)
	// SetState says how far the catalog can be trusted to be whole.
	SetState(State)
}

// State says how far the catalog can be trusted to be whole.
type State string

// The states of a catalog that is reconciled. One that isn't is "unverified".
const (
	// StateBootstrapping: no listing was ever applied to the catalog.
	StateBootstrapping State = "bootstrapping"
	// StateFresh: it agreed with a listing, or was repaired by one, less than StaleAfter ago.
	StateFresh State = "fresh"
	// StateStale: it did so too long ago, or not yet since this process began.
	StateStale State = "stale"
)

// Config is what a [Reconciler] needs.
type Config struct {
	Source     Source
	Catalog    Catalog
	Interval   time.Duration // between two reconciliations, give or take a tenth
	StaleAfter time.Duration // since the last one that succeeded
	MaxDrift   float64       // the largest part of the live permissions that may go at once, such as 0.2
	Now        func() time.Time
	Random     func() float64 // from 0 to 1, for the jitter
	Logger     *slog.Logger
	Meter      metric.Meter
}

// ErrHeldBack says that a listing would remove so much that it isn't believed. Nothing was changed.
// [Reconciler.Accept] applies it.
var ErrHeldBack = errors.New("the listing would remove too much and was not applied")

// Reconciler holds the catalog against listings of Scalekit's API, and repairs it. Its methods may
// be called concurrently.
type Reconciler struct {
	config  Config
	metrics metrics

	passes   sync.Mutex         // held while one is under way, and guards the next four
	memory   memory             // of the last listing
	accepted *permission.Digest // of a listing that may remove as much as it likes
	last     error              // of the last reconciliation
	again    time.Duration      // how soon it would like another one; zero: doesn't care

	board   *board
	asked   chan struct{} // holds a token when a reconciliation is asked for
	ran     chan struct{} // holds a token when one has run
	roles   chan struct{} // holds a token when a role changed
	backoff Backoff       // only Run touches it
}

// NewReconciler returns one that begins to work with Run. The error is that of the meter.
func NewReconciler(c Config) (*Reconciler, error) {
	r := &Reconciler{
		config:  c,
		asked:   make(chan struct{}, 1),
		ran:     make(chan struct{}, 1),
		roles:   make(chan struct{}, 1),
		backoff: Backoff{Base: firstBackoff, Max: c.Interval, Random: c.Random},
	}
	_, complete := c.Catalog.Standing()
	r.board = newBoard(complete)
	c.Catalog.SetState(r.board.state(c.Now(), c.StaleAfter))
	var err error
	if r.metrics, err = newMetrics(c.Meter, r); err != nil {
		return nil, fmt.Errorf("making the reconciler's metrics: %w", err)
	}
	return r, nil
}

// Listed is closed once a listing was applied to the catalog, by this process or before it.
func (r *Reconciler) Listed() <-chan struct{} { return r.board.listed }

// Reconcile compares and repairs once, now, and returns what came of it. Its error is an
// [*APIError], [ErrHeldBack], or that of the catalog.
func (r *Reconciler) Reconcile(ctx context.Context) (Status, error) {
	r.passes.Lock()
	defer r.passes.Unlock()
	defer ask(r.ran)
	began := r.config.Now()
	outcome, err := r.pass(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return r.Status(), err // whoever asked, or the process, has gone
	}
	r.last, r.again = err, outcome.again
	now := r.config.Now()
	r.board.record(outcome, now, err)
	r.metrics.count(ctx, now.Sub(began), err)
	r.report(outcome, err)
	r.config.Catalog.SetState(r.board.state(now, r.config.StaleAfter))
	return r.Status(), err
}

// Accept lets a listing of that digest be applied once, however much it removes, and
// reconciles. The digest is the one that [Status] tells of the listing that was held back.
func (r *Reconciler) Accept(ctx context.Context, digest permission.Digest) (Status, error) {
	r.passes.Lock()
	r.accepted = &digest
	r.passes.Unlock()
	status, err := r.Reconcile(ctx)
	if errors.Is(err, ErrHeldBack) {
		err = fmt.Errorf("%w: Scalekit's list has changed; its digest is now %s", err, status.Drift.ListingDigest)
	}
	return status, err
}

// outcome is what one reconciliation found and did.
type outcome struct {
	listed  int
	digest  permission.Digest // of the listing
	drift   Drift
	waiting int
	again   time.Duration
	changed int
	applied bool
}

// pass lists, compares and repairs. Who may not list roles gets a complete catalog all the
// same, with the roles it had, and an error.
func (r *Reconciler) pass(ctx context.Context) (o outcome, err error) {
	listing, err := r.config.Source.Permissions(ctx)
	if err != nil {
		return o, err
	}
	p, err := r.compare(ctx, listing)
	if err != nil {
		return o, fmt.Errorf("reading the catalog: %w", err)
	}
	o = outcome{listed: len(listing.States), digest: p.next.digest, drift: p.drift, waiting: p.waiting, again: p.again}
	r.memory = p.next
	if !r.believable(listing, p) {
		return o, ErrHeldBack
	}
	roles, rolesErr := r.roleList(ctx)
	if o.changed, err = r.config.Catalog.Repair(ctx, p.states, roles, true); err != nil {
		return o, fmt.Errorf("repairing the catalog: %w", err)
	}
	o.applied = true
	return o, rolesErr
}

func (r *Reconciler) compare(ctx context.Context, listing *Listing) (plan, error) {
	c := newComparer(listing, r.memory)
	if err := r.config.Catalog.States(ctx, c.meet); err != nil {
		return plan{}, err
	}
	return c.end(), nil
}

// believable reports whether a listing removes no more than may go at once, or was accepted.
func (r *Reconciler) believable(l *Listing, p plan) bool {
	live, _ := r.config.Catalog.Standing()
	most := max(fewRemovals, int(r.config.MaxDrift*float64(live)))
	if (len(l.States) > 0 || live == 0) && p.drift.Surplus.Count <= most && p.removes <= most {
		return true
	}
	if r.accepted == nil || *r.accepted != p.next.digest {
		return false
	}
	if p.waiting == 0 {
		r.accepted = nil // for the next one to be held back again
	}
	return true
}

// roleList returns no nil without an error: that would leave the roles as they are.
func (r *Reconciler) roleList(ctx context.Context) ([]permission.Role, error) {
	roles, err := r.config.Source.Roles(ctx)
	if err == nil && roles == nil {
		roles = []permission.Role{}
	}
	return roles, err
}

func (r *Reconciler) applyRoles(ctx context.Context) error {
	roles, err := r.roleList(ctx)
	if err != nil {
		return err
	}
	if _, err := r.config.Catalog.Repair(ctx, nil, roles, false); err != nil {
		return fmt.Errorf("storing the roles: %w", err)
	}
	return nil
}

// report logs what changed since the last reconciliation, and what failed.
func (r *Reconciler) report(o outcome, err error) {
	logger := r.config.Logger
	d := o.drift
	if !d.Empty() {
		logger.Warn("the catalog differed from Scalekit's list", "missing", d.Missing.Count, "surplus", d.Surplus.Count, "different", d.Different.Count,
			"names", firstNames(d), "applied", o.applied, "changed", o.changed, "waiting_for_another_listing", o.waiting, "listing_digest", o.digest.String())
	}
	switch {
	case errors.Is(err, ErrHeldBack):
		logger.Error("Scalekit's list would remove so much that it was not applied; if it is right, run `postern catalog accept` with its digest",
			"listed", o.listed, "listing_digest", o.digest.String())
	case err != nil:
		logger.Warn("reconciling with Scalekit failed, the catalog stays as it is", "kind", failureKind(err), "error", err)
	default:
		logger.Debug("reconciled with Scalekit", "listed", o.listed, "changed", o.changed)
	}
}

// loggedNames bounds the names in a log line.
const loggedNames = 10

func firstNames(d Drift) (names []string) {
	for _, n := range [...]Names{d.Missing, d.Surplus, d.Different} {
		names = append(names, n.Names...)
	}
	return names[:min(len(names), loggedNames)]
}
