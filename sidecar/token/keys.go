package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshEvery   = 15 * time.Minute // give or take a tenth
	fileEvery      = time.Second      // a file is cheap to look at
	firstRetry     = time.Second
	longestRetry   = 5 * time.Minute
	unknownKeyRest = 10 * time.Second // between two fetches because of unknown keys
	unknownKeyWait = 2 * time.Second  // how long a question waits for one
	fetchWithin    = 5 * time.Second
)

// MostWaiting is how many questions wait for unknown keys at once; further ones are told that
// they can't be had. Whoever bounds its questions lets in more, so that those whose key is known
// find a way past those that wait, which anybody can send.
const MostWaiting = 8

// keys are the issuer's keys, from fetch to fetch.
type keys struct {
	source source
	now    func() time.Time
	logger *slog.Logger
	cache  cacheFile
	set    atomic.Pointer[keySet] // nil while none are known

	kept    *keySet       // on disk, nil for none; of the one fetch that is under way
	waiting chan struct{} // one element for each question that waits for an unknown key

	mu        sync.Mutex // guards what follows
	fetchedAt time.Time
	failure   error
	underway  *attempt // of a fetch; nil: none
	askedAt   time.Time
	fetches   map[string]int64 // by result
}

// attempt is a fetch that several wait for.
type attempt struct {
	done chan struct{} // closed in the end
	err  error
}

func newKeys(s source, now func() time.Time, logger *slog.Logger, cache cacheFile) (*keys, error) {
	k := &keys{source: s, now: now, logger: logger, cache: cache, waiting: make(chan struct{}, MostWaiting), fetches: map[string]int64{}}
	if s.local() {
		set, err := readKeySetFile(s.file)
		if err != nil {
			return nil, fmt.Errorf("the file of the keys, %s: %w", s.file, err)
		}
		k.set.Store(set)
		return k, nil
	}
	set, err := cache.load()
	if err != nil {
		logger.Warn("the issuer's keys that were kept on disk can't be used", "error", err)
	}
	k.set.Store(set)
	k.kept = set
	return k, nil
}

func (k *keys) current() *keySet { return k.set.Load() }

func (k *keys) status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{FetchedAt: k.fetchedAt, Failure: k.failure}
	if set := k.current(); set != nil {
		s.Keys = len(set.keys)
	}
	return s
}

// run fetches at once and then in intervals, sooner after a failure.
func (k *keys) run(ctx context.Context) {
	every := refreshEvery
	if k.source.local() {
		every = fileEvery
	}
	retry := firstRetry
	for {
		wait := time.Duration(float64(every) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // jitter guards nothing
		if err := k.fetch(ctx); err != nil {
			wait = min(every, time.Duration(rand.Int64N(int64(retry))+1)) //nolint:gosec // jitter guards nothing
			retry = min(2*retry, longestRetry)
		} else {
			retry = firstRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// find returns the key that a header means. Where it isn't known the issuer may have made it
// just now, so that it is asked, but not more often than every ten seconds: anybody can send a
// token that names a key that doesn't exist.
func (k *keys) find(ctx context.Context, h header) (publicKey, string) {
	if key, ok := k.current().find(h); ok {
		return key, ""
	}
	err := k.fetchForUnknown(ctx)
	if key, ok := k.current().find(h); ok {
		return key, ""
	}
	if err != nil || k.current() == nil {
		return publicKey{}, CodeKeysUnavailable
	}
	return publicKey{}, CodeInvalid
}

// fetchForUnknown waits for a fetch that isn't longer ago than the rest allows. Its error is
// that of the fetch, or of the wait.
func (k *keys) fetchForUnknown(ctx context.Context) error {
	k.mu.Lock()
	if k.underway == nil && !k.askedAt.IsZero() && k.now().Sub(k.askedAt) < unknownKeyRest {
		defer k.mu.Unlock()
		return k.failure
	}
	waited := k.start(ctx)
	k.mu.Unlock()
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return errors.New("too many wait for the issuer's keys")
	}
	timer := time.NewTimer(unknownKeyWait)
	defer timer.Stop()
	select {
	case <-waited.done:
		return waited.err
	case <-timer.C:
		return errors.New("the issuer takes too long to tell its keys")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch waits for a fetch that begins now, or is under way.
func (k *keys) fetch(ctx context.Context) error {
	k.mu.Lock()
	waited := k.start(ctx)
	k.mu.Unlock()
	select {
	case <-waited.done:
		return waited.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start begins a fetch unless one is under way. It goes on when whoever asked for it has gone:
// others may wait for it. k.mu is held.
func (k *keys) start(ctx context.Context) *attempt {
	if k.underway == nil {
		k.underway = &attempt{done: make(chan struct{})}
		k.askedAt = k.now()
		go k.attempt(context.WithoutCancel(ctx), k.underway)
	}
	return k.underway
}

func (k *keys) attempt(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	set, err := k.source.readSet(ctx)
	if err == nil {
		k.take(set)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && (k.failure == nil || k.failure.Error() != err.Error()) {
		k.logger.Warn("the issuer's keys could not be fetched; those that are known stay", "source", k.source.name(), "error", err)
	}
	result := "ok"
	if k.failure = err; err != nil {
		result = "failed"
	} else {
		k.fetchedAt = k.now()
	}
	k.fetches[result]++
	k.askedAt = k.now()
	k.underway, a.err = nil, err
	close(a.done)
}

// take makes a set the current one if it has other keys, and keeps it on disk unless it is there.
func (k *keys) take(set *keySet) {
	if !set.equal(k.current()) {
		k.set.Store(set)
		k.logger.Info("the issuer's keys changed", "source", k.source.name(), "keys", len(set.keys))
	}
	if k.source.local() || set.equal(k.kept) {
		return
	}
	if err := k.cache.store(set); err != nil {
		k.logger.Warn("the issuer's keys can't be kept on disk; a start without the issuer won't have them", "error", err)
		return
	}
	k.kept = set
}
