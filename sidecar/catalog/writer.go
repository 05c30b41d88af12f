package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	queueLength      = 256             // requests waiting for a commit
	largestGroup     = 256             // requests in one commit
	queuePatience    = 3 * time.Second // how long a request waits for room in the queue
	rememberedEvents = 10_000          // event ids kept in memory, to count duplicates only

	// While few requests come, commits take an eighth of the time at most: syncs cost the
	// questions beside them processors and patience. A request that comes alone never waits,
	// and neither does a crowd. docs/decisions/0009 has the figures.
	commitShare  = 8
	longestPause = 10 * time.Millisecond
	crowd        = 32
)

// errReadOnly answers a write to a catalog that was opened for reading.
var errReadOnly = errors.New("the catalog was opened for reading only")

// request is one piece of work for the writer.
type request struct {
	// apply reads and computes before it writes: what it returns an error about must not
	// be half written, since the group is committed all the same.
	apply func(*transaction) (permission.Outcome, error)
	done  chan result // takes one result without blocking the writer
}

type result struct {
	outcome permission.Outcome
	err     error
}

// writer is the one goroutine that changes the catalog. It takes whatever is queued
// into one commit: while a commit is being synced, and in the pause behind it, the next group
// gathers, so senders share syncs without one that comes alone ever waiting for company.
type writer struct {
	catalog *Catalog
	queue   chan request
	closing chan struct{}
	stopped chan struct{}
	events  *simplelru.LRU[string, eventKey] // only the writer's goroutine touches it

	// doubtful is the step of a commit that has not succeeded, and may be on disk all the
	// same: bbolt writes the page that makes a commit visible before it syncs it, so its error
	// may come from a commit that readers see already. The step stays linked, and nothing else
	// is written, until settle has found out.
	doubtful *step

	crowded chan struct{} // holds a token once a crowd waits
	ended   time.Time     // of the last commit
	took    time.Duration // the last commit
	errands chan func()   // what must happen between two commits
	touched touchedKeys   // by the commits since a compaction began; nil without one

	leaving *file // the handle that could only read, until its last reader has gone

	failure atomic.Pointer[error] // of the last group, or of opening the file for writing
}

func startWriter(c *Catalog) *writer {
	w := &writer{
		catalog: c,
		queue:   make(chan request, queueLength),
		errands: make(chan func()),
		crowded: make(chan struct{}, 1),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		events:  newLRU[eventKey](rememberedEvents),
	}
	if unwritable := c.file.Load().unwritable; unwritable != nil {
		w.failure.Store(&unwritable)
	}
	go w.run()
	return w
}

func (w *writer) stop() {
	close(w.closing)
	<-w.stopped
}

func (w *writer) run() {
	defer close(w.stopped)
	for {
		select {
		case <-w.closing:
			return // submit answers what is still queued
		case errand := <-w.errands:
			errand()
		case first := <-w.queue:
			w.pause()
			w.commit(w.gather(first))
		}
	}
}

// pause waits until enough time has passed since the last commit, or a crowd waits, too.
func (w *writer) pause() {
	rest := w.rest(time.Now())
	if rest <= 0 {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.crowded:
	case <-w.closing:
	}
}

// rest returns how long the writer should pause; nothing or less: not at all.
func (w *writer) rest(now time.Time) time.Duration {
	if w.catalog.eager {
		return 0
	}
	return min((commitShare-1)*w.took, longestPause) - now.Sub(w.ended)
}

// inTurn runs do between two commits. Its error is that of do, that of the context if that
// ends before, or ErrClosed.
func (w *writer) inTurn(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	select {
	case w.errands <- func() { done <- do() }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stopped:
		return ErrClosed
	}
}

// gather takes what is queued by now.
func (w *writer) gather(first request) []request {
	group := []request{first}
	for len(group) < largestGroup {
		select {
		case next := <-w.queue:
			group = append(group, next)
		default:
			return group
		}
	}
	return group
}

// commit applies a group and acknowledges it, or refuses it as a whole.
func (w *writer) commit(group []request) {
	began := time.Now()
	results, err := w.transact(group)
	w.failure.Store(&err)
	w.ended = time.Now()
	w.took = w.ended.Sub(began)
	w.catalog.committed(Commit{Requests: len(group), Took: w.took, Err: err})
	for i, r := range group {
		if err != nil {
			r.done <- result{err: fmt.Errorf("writing the catalog: %w", err)}
			continue
		}
		r.done <- results[i]
	}
}

// transact applies a group in one database transaction: compute, persist, publish. The
// caller acknowledges. An error means that nothing of the group may be acknowledged; a
// result's own error concerns that request alone.
func (w *writer) transact(group []request) (results []result, err error) {
	if err := w.catalog.checkWritable(context.Background()); err != nil {
		return nil, err
	}
	if w.doubtful != nil {
		if err := w.settle(); err != nil {
			return nil, err
		}
	}
	var t *transaction
	err = w.update(func(tx *bbolt.Tx) (err error) {
		if t, err = newTransaction(tx, w.events, w.touched); err != nil {
			return err
		}
		if results, err = t.applyAll(group); err != nil || !t.changed() {
			return err
		}
		if err := t.finish(); err != nil {
			return err
		}
		return w.publish(tx, t)
	})
	if err != nil {
		return nil, err
	}
	t.remember(w.events)
	return results, nil
}

// checkWritable returns an error unless the open file can be written to and is still the
// one that the next start will find: what is written to a file that was removed is lost with
// the process.
func (c *Catalog) checkWritable(ctx context.Context) error {
	f := c.file.Load()
	found, err := os.Stat(c.path)
	if err != nil || !os.SameFile(found, f.info) {
		return fmt.Errorf("%w: %s was removed or replaced while in use; restart Postern", ErrFile, c.path)
	}
	if f.unwritable != nil {
		if err := c.reopen(ctx, f); err != nil {
			return err
		}
	}
	if err := c.leaveReadOnly(); err != nil {
		return err
	}
	return c.place(c.file.Load())
}

// reopen opens for writing the file that could only be read so far. It is inspected again:
// whoever mended its disk may have changed it.
func (c *Catalog) reopen(ctx context.Context, old *file) (err error) {
	defer containDamage(&err)()
	f, err := c.openFile(false)
	if err != nil {
		return err
	}
	if err = f.unwritable; err == nil {
		err = inspectFile(ctx, c.path)
	}
	if err == nil {
		err = c.sameRevision(f)
	}
	if err != nil {
		return errors.Join(err, f.db.Close())
	}
	c.file.Store(f)
	old.retire()
	c.writer.leaving = old
	return nil
}

// sameRevision returns an error unless f holds what questions are answered from.
func (c *Catalog) sameRevision(f *file) error {
	return f.db.View(func(tx *bbolt.Tx) error {
		found, head, err := readMeta(tx)
		if at := c.current.Load().sync; err == nil && (found.epoch != at.Epoch || head.revision != at.Revision) {
			err = fmt.Errorf("%w: %s was changed while it could not be written to; restart Postern", ErrFile, c.path)
		}
		return err
	})
}

// errStillRead answers a write to a file that somebody reads by way of the handle that could
// only read.
var errStillRead = errors.New("the catalog can be written to again, and waits for its readers")

// leaveReadOnly waits, from try to try, for the readers of the handle that could only read: the one
// that writes doesn't know their transactions, and would write over the pages that they read.
func (c *Catalog) leaveReadOnly() error {
	if c.writer.leaving == nil {
		return nil
	}
	if !c.writer.leaving.closed.Load() {
		return errStillRead
	}
	if err := c.claimEnvironment(c.file.Load()); err != nil {
		return err
	}
	c.writer.leaving = nil
	return nil
}

// update runs do inside a write transaction, which do commits if it likes. What do
// leaves uncommitted, or panics about, is rolled back.
func (w *writer) update(do func(*bbolt.Tx) error) (err error) {
	defer containDamage(&err)()
	tx, err := w.catalog.file.Load().db.Begin(true)
	if err != nil {
		return err
	}
	defer func() {
		_ = tx.Rollback() // does nothing after a commit
	}()
	return do(tx)
}

// publish makes the transaction durable first and visible second. The step is linked
// before the commit, as [snapshot] says.
func (w *writer) publish(tx *bbolt.Tx, t *transaction) error {
	c := w.catalog
	current := c.current.Load()
	st := &step{before: t.before, wasEmpty: t.wasEmpty, to: newSnapshot(c.identity.epoch, t.header, t.rolesAfter(current.roles))}
	current.next.Store(st)
	w.doubtful = st
	if err := c.hooks.commit(tx); err != nil {
		return err
	}
	w.reach(st)
	return nil
}

// reach makes the revision that the step leads to the current one.
func (w *writer) reach(st *step) {
	w.catalog.hot.advance(st)
	w.catalog.current.Store(st.to)
	w.catalog.changes.announce()
	w.doubtful = nil
}

// settle finds out what became of the commit that failed. If it isn't visible, it never
// was; if it is, another commit is needed before its revision may count as durable.
func (w *writer) settle() error {
	return w.update(func(tx *bbolt.Tx) error {
		found, err := readHeader(tx.Bucket(bucketMeta))
		if err != nil {
			return err
		}
		current := w.catalog.current.Load()
		if found.revision == current.sync.Revision {
			w.catalog.hot.advance(w.doubtful)
			current.next.Store(nil)
			w.doubtful = nil
			return nil
		}
		if err := putHeader(tx.Bucket(bucketMeta), found); err != nil {
			return err
		}
		if err := w.catalog.hooks.commit(tx); err != nil {
			return err
		}
		w.reach(w.doubtful)
		return nil
	})
}

// Apply makes an event durable and visible, and says what it changed. Once it returns
// without an error, every question asked afterwards sees the event and a crash can't
// undo it. It returns [ErrBusy] when the queue stayed full for three seconds, ErrClosed
// after Close, the context's error when that ends first (the event may then be applied
// all the same), and otherwise what kept the file from being written.
func (c *Catalog) Apply(ctx context.Context, event permission.Event) (permission.Outcome, error) {
	state := event.State()
	if err := state.Check(); err != nil {
		return "", fmt.Errorf("checking the event: %w", err)
	}
	return c.submit(ctx, func(t *transaction) (permission.Outcome, error) {
		return t.applyEvent(state)
	})
}

// WriteError returns what kept the last commit from being written, or the file from being
// opened for writing, or nil.
func (c *Catalog) WriteError() error {
	if c.writer == nil {
		return nil
	}
	if failure := c.writer.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

func (c *Catalog) submit(ctx context.Context, apply func(*transaction) (permission.Outcome, error)) (permission.Outcome, error) {
	if c.writer == nil {
		return "", errReadOnly
	}
	r := request{apply: apply, done: make(chan result, 1)}
	if err := c.writer.enqueue(ctx, r); err != nil {
		return "", err
	}
	select {
	case outcome := <-r.done:
		return outcome.outcome, outcome.err
	case <-ctx.Done():
		return "", ctx.Err()
	case <-c.writer.stopped:
		select {
		case outcome := <-r.done:
			return outcome.outcome, outcome.err
		default:
			return "", ErrClosed
		}
	}
}

func (w *writer) enqueue(ctx context.Context, r request) error {
	select {
	case <-w.closing:
		return ErrClosed
	case w.queue <- r:
		w.noteCrowd()
		return nil
	default:
	}
	patience := time.NewTimer(queuePatience)
	defer patience.Stop()
	select {
	case <-w.closing:
		return ErrClosed
	case w.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return ErrBusy
	}
}

// noteCrowd tells a writer that pauses that many wait. A token that nobody took makes a later
// pause end early, which does no harm.
func (w *writer) noteCrowd() {
	if len(w.queue) < crowd {
		return
	}
	select {
	case w.crowded <- struct{}{}:
	default:
	}
}
