// Package feed serves one document that changes, whole, to those who follow it: by entity
// tags, and by requests that wait for a change, as OPA's bundle protocol has it
// (https://www.openpolicyagent.org/docs/management-bundles).
//
// Its promise: who asks is never answered with a version older than the newest of the moment
// it asked in; a version is built at most once, by one builder, however many ask, and not at
// all for those who have it; nothing of it is kept in memory beyond a small one; and
// whoever hangs up, or is too slow, gives its place back.
package feed

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	// longestWait bounds how long one request may wait for a change. OPA asks again at once.
	longestWait = 60 * time.Second
	// buildWithin bounds the wait for a build, and for the one before it to end.
	buildWithin = 10 * time.Minute
	// A version must be taken within sendWithin, and as much longer as it takes at sendAtLeast
	// bytes per second.
	sendWithin  = 30 * time.Second
	sendAtLeast = 256 << 10
	// answerWithin is what an answer without a body may take beyond the wait.
	answerWithin = 5 * time.Second
)

// Source is the document. Its methods are called concurrently.
type Source[V any] interface {
	// Pin returns the newest version.
	Pin() V
	// Tag returns the strong entity tag of a version, quoted: equal for equal bytes, and for
	// no others.
	Tag(V) string
	// Changed returns a channel that is closed when a version comes that Pin didn't return
	// before the call.
	Changed() <-chan struct{}
	// Write writes a version, the same bytes each time.
	Write(ctx context.Context, version V, w io.Writer) error
}

// Config configures [New].
type Config struct {
	Dir           string // where versions are kept that are too large for memory
	ContentType   string
	MostFollowers int // requests in hand at once, waiting or being answered; further ones are answered 503
	Logger        *slog.Logger
}

// Feed is an http.Handler for GET and HEAD.
type Feed[V any] struct {
	source  Source[V]
	config  Config
	builder builder[V]
	places  chan struct{}
	pace    pace
	log     *listener.FailureLog
	ended   chan struct{} // closed by Stop
	end     sync.Once
}

// New returns a feed of source. It must be stopped.
func New[V any](source Source[V], c Config) *Feed[V] {
	return &Feed[V]{
		source: source, config: c,
		builder: builder[V]{source: source, dir: c.Dir},
		places:  make(chan struct{}, c.MostFollowers),
		pace:    pace{sendWithin, sendAtLeast},
		log:     listener.NewFailureLog(c.Logger, time.Now),
		ended:   make(chan struct{}),
	}
}

// Stop ends all waiting at once and the build under way, and returns when the source isn't
// read any more. It is safe to call more than once.
func (f *Feed[V]) Stop() {
	f.end.Do(func() { close(f.ended) })
	f.builder.stop()
}

// ServeHTTP answers with the newest version, 304 to those who have it, 503, or 400 to a request
// with a body: while one is awaited, net/http doesn't see that the peer hung up.
func (f *Feed[V]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // else the answer waits for the body, too
		listener.WriteError(w, &listener.Error{Status: http.StatusBadRequest, Code: "body_unexpected", Message: "send the request without a body"})
		return
	}
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	default:
		listener.WriteError(w, &listener.Error{Status: http.StatusServiceUnavailable, Code: "too_many_followers", Message: "too many follow at once; ask again", RetryAfter: time.Second})
		return
	}
	held, wait := heldTags(r.Header), preferredWait(r.Header)
	allow(w, wait+answerWithin)
	tag, unchanged := f.await(r.Context(), held, wait)
	allow(w, answerWithin)
	header := w.Header()
	header.Set("Cache-Control", "no-cache") // which lets others keep it, if they ask before they use it
	switch {
	case r.Context().Err() != nil:
		return // the peer hung up
	case unchanged:
		header.Set("ETag", tag)
		w.WriteHeader(http.StatusNotModified)
	case r.Method == http.MethodHead:
		header.Set("ETag", tag)
		header.Set("Content-Type", f.config.ContentType)
		w.WriteHeader(http.StatusOK)
	default:
		f.send(w, r, held)
	}
}

// await waits until the newest version is none of held, and no longer than wait. It returns
// the newest tag, and whether it is held.
func (f *Feed[V]) await(ctx context.Context, held tags, wait time.Duration) (tag string, unchanged bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := f.source.Changed() // before looking, so that no change is missed
		tag = f.source.Tag(f.source.Pin())
		if !held.contain(tag) {
			return tag, false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return tag, true
		case <-f.ended:
			return tag, true
		}
	}
}

// send answers with a version that is built. Ranges are not answered, as RFC 9110 allows.
func (f *Feed[V]) send(w http.ResponseWriter, r *http.Request, held tags) {
	allow(w, buildWithin+answerWithin)
	ctx, cancel := context.WithTimeout(r.Context(), buildWithin)
	defer cancel()
	version, err := f.builder.get(ctx)
	if err != nil {
		f.refuse(w, r, err)
		return
	}
	defer version.release()
	header := w.Header()
	header.Set("ETag", version.tag)
	if held.contain(version.tag) { // it changed back meanwhile
		allow(w, answerWithin)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	content := version.content.Reader()
	allow(w, f.pace.of(content.Size()))
	header.Set("Content-Type", f.config.ContentType)
	header.Set("Content-Length", strconv.FormatInt(content.Size(), 10))
	if _, err := io.Copy(w, content); err != nil {
		panic(http.ErrAbortHandler) // so that the peer doesn't take it for whole
	}
}

// pace is how fast a peer has to be.
type pace struct {
	within  time.Duration
	atLeast int64 // bytes per second, beyond that
}

func (p pace) of(size int64) time.Duration {
	return p.within + time.Duration(size/p.atLeast)*time.Second
}

func (f *Feed[V]) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the peer hung up
	}
	allow(w, answerWithin)
	if !errors.Is(err, errStopped) {
		f.log.Warn("build", "what followers get can't be built", "error", err)
	}
	listener.WriteError(w, &listener.Error{Status: http.StatusServiceUnavailable, Code: "catalog_unavailable", Message: "the catalog can't be read, or there is no room for its bundle; the log says why", RetryAfter: time.Second})
}

// allow gives an answer time, from now on, in place of what the listener allows. A connection
// that can't be given time keeps the listener's, which is safe.
func allow(w http.ResponseWriter, within time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(within))
}
