package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/util"

	"github.com/postern-authz/postern/bundle"
)

const (
	firstBackoff = 500 * time.Millisecond
	// longestHold is how long a server may hold a request, where nobody says otherwise.
	longestHold = time.Minute
	// leastPause lies between the beginnings of two requests, whatever a server that holds
	// requests, or doesn't after all, answers.
	leastPause = 250 * time.Millisecond
	// leastHold is what a server that can hold requests holds one at least.
	leastHold = time.Second
)

// remote is a bundle URL. But for refresh it is used by one goroutine.
type remote struct {
	place        Place
	at           *address
	client       *http.Client
	prepare      func(*http.Request) error
	userAgent    string
	verification func() *bundle.Verification
	polling      polling
	answerWithin time.Duration
	largest      int64
	store        store
	wake         chan struct{} // refresh was called

	anew      atomic.Bool                 // the next request wants everything, changed or not
	interrupt atomic.Pointer[func(error)] // of the request in hand

	tried string     // digest of the last bytes that came
	last  *candidate // that they made
	err   error      // or why they made none

	etag     string // of the bytes with the digest etagOf
	etagOf   string
	longPoll bool
	failures int // in a row
}

func newRemote(place Place, c Config) *remote {
	at := place.remote
	r := &remote{
		place: place, at: at, client: at.client, prepare: at.prepare, userAgent: c.UserAgent, verification: at.verification,
		polling: at.polling, answerWithin: at.answerWithin, largest: at.largest,
		store: newStore(c.Keep, place), wake: make(chan struct{}, 1),
	}
	if r.client == nil {
		r.client = newClient()
	}
	if r.prepare == nil {
		r.prepare = withToken(c.Token)
	}
	if r.verification == nil {
		r.verification = c.Verification
	}
	if r.answerWithin == 0 {
		r.answerWithin = answerWithin
	}
	if r.polling == (polling{}) {
		r.polling = polling{least: c.Interval - c.Interval/10, most: c.Interval + c.Interval/10, wait: longestHold}
	}
	if r.largest == 0 {
		r.largest = largestBundle
	}
	return r
}

func withToken(token func() string) func(*http.Request) error {
	return func(r *http.Request) error {
		if token != nil {
			r.Header.Set("Authorization", "Bearer "+token())
		}
		return nil
	}
}

// refresh asks for everything, changed or not, and now.
func (r *remote) refresh() {
	r.anew.Store(true)
	if interrupt := r.interrupt.Load(); interrupt != nil {
		(*interrupt)(errRefresh)
	}
	select {
	case r.wake <- struct{}{}:
	default: // it is awake already
	}
}

// errRefresh interrupts a request that the server may hold for long.
var errRefresh = errors.New("everything is asked for anew")

// next is the next request. The server is told what is known only where that is in use:
// what was refused is asked for again, in case it wasn't whole.
func (r *remote) next(active *candidate) request {
	q := request{}
	if r.anew.Swap(false) {
		r.tried, r.last, r.err = "", nil, nil
		return q
	}
	if active != nil && active.digest == r.etagOf {
		q.etag = r.etag
	}
	if r.longPoll && q.etag != "" && r.failures == 0 {
		q.hold = r.polling.wait
	}
	return q
}

// fetchInterruptibly asks for the bundle. A request that may be held for long ends when refresh
// is called.
func (r *remote) fetchInterruptibly(ctx context.Context, active *candidate) (answer, error) {
	select {
	case <-r.wake: // by a refresh whose work this request does
	default:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	interrupt := func(err error) { cancel(err) }
	r.interrupt.Store(&interrupt)
	defer r.interrupt.Store(nil)
	q := r.next(active)
	if q.hold == 0 { // it ends soon, and ends even if refresh is called all the time
		r.interrupt.Store(nil)
	}
	return r.fetch(ctx, q)
}

// parse makes a candidate of a body, the same one of the same body.
func (r *remote) parse(ctx context.Context, a answer) (*candidate, error) {
	digest := digestOf(a.body)
	if digest == r.tried {
		return r.last, r.err
	}
	b, err := r.load(ctx, a.body)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.tried, r.last, r.err = digest, nil, err
	if err == nil {
		r.last = &candidate{bundle: b, digest: digest, kept: &kept{ETag: a.etag, LongPoll: a.longPoll, content: a.body}}
	}
	return r.last, r.err
}

func (r *remote) load(ctx context.Context, content []byte) (*bundle.Bundle, error) {
	return bundle.LoadArchive(ctx, bytes.NewReader(content), bundle.LoadOptions{Name: r.place.prefix(), Verification: r.verification(), MaxBytes: r.largest})
}

// recall reads what an earlier process kept; nil: nothing.
func (r *remote) recall(ctx context.Context) (*candidate, error) {
	k, err := r.store.load()
	if k == nil || err != nil {
		return nil, err
	}
	b, err := r.load(ctx, k.content)
	if err != nil {
		return nil, err
	}
	c := &candidate{bundle: b, digest: digestOf(k.content)}
	r.etag, r.etagOf, r.longPoll = k.ETag, c.digest, k.LongPoll
	return c, nil
}

// pause is how long to wait until the next request. A server that says that it holds requests
// and doesn't is asked as often as others.
func (r *remote) pause(unchanged bool, err error, took time.Duration) time.Duration {
	if err != nil {
		d := util.DefaultBackoff(float64(firstBackoff), float64(r.polling.most), r.failures)
		r.failures++
		return min(max(d, leastPause), r.polling.most) // its jitter goes beyond
	}
	r.failures = 0
	if r.longPoll && r.polling.wait > 0 && (!unchanged || took >= leastHold) {
		return max(leastPause-took, 0)
	}
	d := r.polling.least + time.Duration(rand.Float64()*float64(r.polling.most-r.polling.least)) //nolint:gosec // jitter is no secret
	return max(d, leastPause)
}

// followRemote asks for a bundle until ctx ends.
func (f *Follower) followRemote(ctx context.Context, o *origin) {
	for {
		began := time.Now()
		unchanged, err := f.ask(ctx, o)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRefresh) {
			o.remote.anew.Store(true)
			continue
		}
		f.report(ctx, o, err)
		if f.config.Wait(ctx, o.remote.pause(unchanged, err, time.Since(began)), o.remote.wake) != nil {
			return
		}
	}
}

// ask asks once, and puts what came to use. It reports whether the server has nothing new.
func (f *Follower) ask(ctx context.Context, o *origin) (unchanged bool, err error) {
	r := o.remote
	f.mu.Lock()
	active := o.active
	f.mu.Unlock()
	a, err := r.fetchInterruptibly(ctx, active)
	if err != nil {
		return false, o.place.wrap(fmt.Errorf("%s: %w", o.place.name, &unavailableError{err}))
	}
	c := active
	if !a.unchanged {
		r.longPoll = a.longPoll
		if c, err = r.parse(ctx, a); err != nil {
			return false, o.place.wrap(err)
		}
	}
	if err := f.offer(ctx, o, c); err != nil && (!a.unchanged || !isTogether(err)) {
		return false, err // what isn't new isn't to blame for what doesn't go with it
	}
	if !a.unchanged {
		r.etag, r.etagOf = a.etag, c.digest
	}
	f.mu.Lock()
	o.answered = f.config.Now()
	f.mu.Unlock()
	return a.unchanged, nil
}
