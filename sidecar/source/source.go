// Package source brings policies in, and follows their changes: directories, bundle files and
// bundle URLs, joined into one bundle.
//
// Invariants:
//
//   - What is in use was read whole, from one generation of each source, and goes together as
//     a whole. What can't be read, joined or put to use changes nothing, and is told.
//   - A download that was refused is never kept on disk, and what is kept is verified again
//     before it is used.
//   - A source never goes back to an older revision unless it is allowed to.
//   - Credentials go to the origin that they were given for, and nowhere else: not along a
//     redirect, not into a log, an error or a file.
//
// It refuses http beyond loopback, and answers that are too large or too slow.
package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/bundle"
)

// Config is what a [Follower] is made of. Places, Use, PollEvery, Interval, Logger and Meter
// are required.
type Config struct {
	Places []Place
	// Use puts the policy of all places to use. After an error the one before stays.
	Use func(context.Context, *bundle.Bundle) error

	Verification  func() *bundle.Verification // asked at each read; it may change; nil: none
	AllowRollback bool                        // take a revision older than the one in use
	Keep          string                      // directory for the last good downloads, made when it is needed; empty: none are kept

	PollEvery time.Duration // between two looks at directories and files
	Interval  time.Duration // between two requests for a bundle URL, give or take a tenth
	Token     func() string // bearer token for the bundle URLs of --policy; nil: none
	UserAgent string        // optional

	Now func() time.Time // optional
	// Wait waits so long, or until wake or ctx says otherwise; optional.
	Wait func(ctx context.Context, d time.Duration, wake <-chan struct{}) error

	Logger *slog.Logger
	Meter  metric.Meter
}

// errRollback refuses a revision that is older than the one in use.
var errRollback = errors.New("older than the revision in use")

// Follower keeps the policy of several sources in use. Its methods may be called concurrently
// once [Follower.Load] has returned.
type Follower struct {
	config  Config
	metrics metrics
	origins []*origin
	hangups chan struct{} // a reload is asked for

	// turn is held while a candidate is put to use, so that each meets what the one before
	// left. It is taken before mu.
	turn      sync.Mutex
	attempted []*candidate // the last ones that were tried together

	mu      sync.Mutex // guards what Status tells: what follows, and that of the origins
	failure error      // why the newest candidates aren't in use together
	used    bool       // some policy is in use
	success time.Time  // when one was put to use last
}

// origin is one place and what came from it. Exactly one of local and remote is set.
type origin struct {
	place  Place
	local  *local
	remote *remote

	// Guarded by Follower.mu, and changed with its turn alone.
	newest *candidate // in order by itself; nil: none came yet
	active *candidate // in use; or the last one of an earlier process
	// Guarded by Follower.mu.
	failure  error     // of the last attempt to get something newer
	answered time.Time // when the server answered last, with something good or with nothing new
}

// candidate is a bundle that may come into use.
type candidate struct {
	bundle *bundle.Bundle
	digest string // of the bytes that it was read from
	// Changed with the turn alone.
	kept   *kept // what is to be kept on disk; nil: nothing, or it is already
	unkept bool  // it was tried in vain
}

// New checks the configuration. It reads nothing yet.
func New(c Config) (*Follower, error) {
	if len(c.Places) == 0 {
		return nil, errors.New("want a directory, a bundle file or a bundle URL (--policy), got none")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Wait == nil {
		c.Wait = wait
	}
	if c.Verification == nil {
		c.Verification = func() *bundle.Verification { return nil }
	}
	f := &Follower{config: c, hangups: make(chan struct{}, 1)}
	seen := map[string]bool{}
	for _, place := range c.Places {
		if seen[place.identity()] {
			return nil, fmt.Errorf("%s: want each source once, got %s twice", place.setting, place.name)
		}
		seen[place.identity()] = true
		o := &origin{place: place}
		if place.remote != nil {
			o.remote = newRemote(place, c)
		} else {
			o.local = newLocal(place, c)
		}
		f.origins = append(f.origins, o)
	}
	var err error
	f.metrics, err = newMetrics(c.Meter, f)
	return f, err
}

func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-wake:
	}
	return nil
}

// Load reads directories, files and the downloads that were kept, and puts them to use if
// none is missing. It asks no server. It fails when a directory or file can't be used; with a
// bundle URL among the sources what doesn't go together is told by [Follower.Status] alone,
// since the next download may mend it.
func (f *Follower) Load(ctx context.Context) error {
	if err := removeDrafts(f.config.Keep); err != nil {
		f.config.Logger.Warn("drafts of policy bundles can't be removed", "error", err)
	}
	var errs []error
	downloads := false
	for _, o := range f.origins {
		if o.remote != nil {
			downloads = true
			f.recall(ctx, o)
			continue
		}
		c, err := o.local.load(ctx)
		if err != nil {
			errs = append(errs, o.place.wrap(err))
			continue
		}
		o.newest = o.local.sameAsLast(c, true)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	if err := f.use(ctx); err != nil && !downloads {
		return err
	}
	return nil
}

// recall takes the download that an earlier process kept, if it is still in order.
func (f *Follower) recall(ctx context.Context, o *origin) {
	c, err := o.remote.recall(ctx)
	switch {
	case err != nil:
		f.config.Logger.Warn("the kept policy bundle can't be used; it is awaited from its URL", "source", o.place.name, "error", err)
	case c == nil:
		f.config.Logger.Info("no policy bundle is kept; it is awaited from its URL", "source", o.place.name)
	default:
		o.newest, o.active = c, c
		f.config.Logger.Warn("the policy bundle of an earlier run is used until its URL answers", "source", o.place.name, "revision", c.bundle.Revision())
	}
}

// Run follows all sources until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, o := range f.origins {
		if o.remote != nil {
			running.Go(func() { f.followRemote(ctx, o) })
		}
	}
	f.followLocal(ctx)
	running.Wait()
}

// Reload reads everything anew, changed or not, and soon.
func (f *Follower) Reload() {
	select {
	case f.hangups <- struct{}{}:
	default: // it is asked for already
	}
}

// reloadAll is what Reload asks for.
func (f *Follower) reloadAll(ctx context.Context) {
	f.turn.Lock()
	f.attempted = nil
	f.turn.Unlock()
	f.refreshRemotes()
	for _, o := range f.origins {
		if o.local != nil {
			f.read(ctx, o, true)
		}
	}
}

func (f *Follower) refreshRemotes() {
	for _, o := range f.origins {
		if o.remote != nil {
			o.remote.refresh()
		}
	}
}

// offer makes c the newest of its origin, and puts the newest of all to use.
func (f *Follower) offer(ctx context.Context, o *origin, c *candidate) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	if active := o.active; active != nil && !f.config.AllowRollback && bundle.Older(c.bundle.Revision(), active.bundle.Revision()) {
		return o.place.wrap(fmt.Errorf("%s: revision %q is %w, %q; --allow-rollback takes it", o.place.name, c.bundle.Revision(), errRollback, active.bundle.Revision()))
	}
	f.mu.Lock()
	o.newest = c
	f.mu.Unlock()
	return f.use(ctx)
}

// use puts the newest candidates to use, together. It wants the turn. Those that were tried
// last have been judged already; while one is missing, there is nothing to try.
func (f *Follower) use(ctx context.Context) error {
	newest := make([]*candidate, len(f.origins))
	bundles := make([]*bundle.Bundle, len(f.origins))
	for i, o := range f.origins {
		if newest[i] = o.newest; newest[i] == nil {
			return nil
		}
		bundles[i] = newest[i].bundle
	}
	if slices.Equal(newest, f.attempted) {
		f.keepAll()
		return asTogether(f.failure)
	}
	joined, err := bundle.Join(bundles)
	if err == nil {
		err = f.config.Use(ctx, joined)
	}
	if err != nil && ctx.Err() != nil {
		return err // the end of the process is no verdict
	}
	f.attempted = newest
	f.settle(ctx, joined, err)
	f.keepAll()
	return asTogether(err)
}

// togetherError is what is wrong with the newest candidates together, which no single origin
// is to blame for. It was told already.
type togetherError struct{ cause error }

// Error says what is wrong.
func (e *togetherError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *togetherError) Unwrap() error { return e.cause }

func isTogether(err error) bool {
	var together *togetherError
	return errors.As(err, &together)
}

func asTogether(err error) error {
	if err == nil {
		return nil
	}
	return &togetherError{err}
}

// settle notes and tells what became of the newest candidates.
func (f *Follower) settle(ctx context.Context, joined *bundle.Bundle, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
	if err != nil {
		f.metrics.count(ctx, outcomeInvalid)
		f.config.Logger.Error(f.refusal(), "policy", f.names(), "error", err)
		return
	}
	f.used, f.success = true, f.config.Now()
	f.metrics.count(ctx, outcomeOK)
	f.config.Logger.Info("policy loaded", "policy", f.names(), "policy_revision", joined.Revision())
	for _, o := range f.origins {
		o.active = o.newest
	}
}

// keepAll writes the downloads in use to disk that aren't there yet. It wants the turn.
func (f *Follower) keepAll() {
	for _, o := range f.origins {
		if o.active != nil && o.active.kept != nil {
			f.keep(o)
		}
	}
}

// keep writes the download in use to disk, and forgets its bytes. What a full disk didn't take is
// tried again with the next answer of the server, and told once.
func (f *Follower) keep(o *origin) {
	c := o.active
	if err := o.remote.store.save(c.kept); err != nil {
		if !c.unkept {
			f.config.Logger.Warn("the policy bundle is in use, but could not be kept for a start without its server; it is tried again", "source", o.place.name, "error", err)
		}
		c.unkept = true
		return
	}
	c.kept = nil
}

func (f *Follower) names() (names []string) {
	for _, o := range f.origins {
		names = append(names, o.place.name)
	}
	return names
}

// report notes how the last attempt at an origin went. A failure is logged when it begins or
// changes.
func (f *Follower) report(ctx context.Context, o *origin, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isTogether(err) {
		err = nil
	}
	before := o.failure
	o.failure = err
	if err == nil || before != nil && before.Error() == err.Error() {
		return
	}
	f.metrics.count(ctx, outcomeOf(err))
	f.config.Logger.Error(f.refusal(), "source", o.place.name, "error", err)
}

func (f *Follower) refusal() string {
	if f.used {
		return "policy not usable, the previous one stays"
	}
	return "policy not usable, and there is none yet"
}
