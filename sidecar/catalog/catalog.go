// Package catalog is the lake between the two rivers: permission events flow in and
// are durable once they are acknowledged; questions read them as the data document
// that policies see.
//
// It keeps one thing, on disk in a bbolt file, with the hot records of it in an LRU in
// front, and [Document] is the view of both that OPA evaluates against. There is no
// second copy.
//
// Invariants:
//
//   - What [Catalog.Apply] acknowledged was synced to disk before, and every question
//     pinned afterwards sees it.
//   - A question sees one revision, the one it pinned, whatever is written meanwhile;
//     no question waits for a writer and no writer for a question.
//   - The document is a function of the set of events (package permission), and what
//     the LRU holds or evicts never changes it.
//   - A record that can't be read is an error, never an absent permission.
//
// It refuses a second process on its directory, a file of another environment, of a
// newer format or of a foreign origin, and overwrites none of them.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// FileName is the name of the catalog's file inside its directory.
const FileName = "catalog.db"

// Errors that callers tell apart.
var (
	// ErrLocked: another process has the directory.
	ErrLocked = errors.New("another process uses this data directory")
	// ErrEnvironment: the file belongs to another Scalekit environment.
	ErrEnvironment = errors.New("the catalog belongs to another environment")
	// ErrFile: the file can't be used as it is. Nothing was written to it.
	ErrFile = errors.New("the catalog's file can't be used")
	// ErrBusy: the queue of commits stayed full. Nothing changed; try again.
	ErrBusy = errors.New("the commit queue stayed full")
	// ErrClosed: the catalog was closed before it took the request. Nothing changed.
	ErrClosed = errors.New("the catalog is closed")
)

// Options configure [Open].
type Options struct {
	Dir           string // made with mode 0700 when absent
	EnvironmentID string // "env_…"; written into a file that has none, must match one that has; may be empty
	LRUSize       int    // hot records in memory, at least 1
	MaxDocument   Limit  // the largest whole-document read
	ReadOnly      bool   // open an existing file for reading only; Apply and Restore fail
	Rebuild       bool   // move a damaged file aside, and start empty; see [Catalog.MovedAside]

	// Eager lets commits follow each other without a pause, whatever the questions beside
	// them pay for it.
	Eager bool
	// Committed is told of each group that the writer was done with, in its goroutine: it
	// must return at once. It may be nil.
	Committed func(Commit)

	hooks hooks
}

// Commit is what became of a group of requests that shared a transaction.
type Commit struct {
	Requests int           // events, and parts of a restore
	Took     time.Duration // from the first request that was taken to the sync
	Err      error         // nothing of the group was written, as far as is known
}

// hooks let the tests of this package into moments that nobody reaches from outside.
type hooks struct {
	commit    func(*bbolt.Tx) error // in place of (*bbolt.Tx).Commit
	afterRead func()                // between reading a record from the file and filling the LRU
	open      func(flag int) error  // before the file is opened, which it may keep from happening
	mapSize   int                   // in place of that of the function mapSize
	collect   func()                // before a whole document is read from the file
	step      func(string) error    // before each step of a compaction, which it may break off
	// aroundPage is called between pinning a revision and reading a part of the listing from
	// the file, and between reading it and taking it back to that revision.
	aroundPage func()
	stretch    int // names in a part of a walk, in place of namesPerStretch
}

// Limit bounds the records of a document that is read as a whole.
type Limit struct {
	Records int
	Bytes   int64 // of ids, names, descriptions and event ids
}

// Catalog is an open catalog. Its methods may be called concurrently.
type Catalog struct {
	path        string
	unlock      func() error
	identity    identity // its environment is written by Open, else by the writer before anything else
	movedAside  string
	maxDocument Limit
	hot         *hot
	committed   func(Commit)
	eager       bool
	hooks       hooks

	// file is what is read and written. Only the writer swaps it, for one that says the same.
	file atomic.Pointer[file]

	// current is the newest revision that questions may pin. Only the writer stores it.
	current atomic.Pointer[snapshot]
	trust   atomic.Pointer[trust] // beside the revision; never nil
	writer  *writer
	changes changes // of current and trust

	closeOnce sync.Once
	closeErr  error
}

// Open opens the catalog in o.Dir, or makes a new one there. It reads the whole file once,
// which ctx may end. Where the file can't be written to, the catalog is opened all the same
// and answers questions, and each write tries again; see [Catalog.WriteError].
func Open(ctx context.Context, o Options) (*Catalog, error) {
	if !o.ReadOnly {
		if err := makeDirectory(o.Dir); err != nil {
			return nil, fmt.Errorf("making the data directory: %w", err)
		}
	}
	unlock, err := lockDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	c, err := openLocked(ctx, o)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	c.unlock = unlock
	return c, nil
}

func openLocked(ctx context.Context, o Options) (*Catalog, error) {
	path := filepath.Join(o.Dir, FileName)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // which is what a compaction or a rebuild has to replace
	}
	c, err := openAt(ctx, o, path)
	if !o.Rebuild || !isBroken(err) {
		return c, err
	}
	aside, moveErr := moveAside(path)
	if moveErr != nil {
		return nil, errors.Join(err, moveErr)
	}
	if c, err = openAt(ctx, o, path); err != nil {
		return nil, errors.Join(err, os.Rename(aside, path)) // over the empty one at most
	}
	c.movedAside = aside
	return c, nil
}

func openAt(ctx context.Context, o Options, path string) (*Catalog, error) {
	if _, err := os.Stat(path); err != nil && o.ReadOnly {
		return nil, fmt.Errorf("looking for the catalog: %w", err)
	}
	if !o.ReadOnly {
		if err := createIfAbsent(path); err != nil {
			return nil, fmt.Errorf("making a new catalog: %w", err)
		}
		if err := inspectFile(ctx, path); err != nil {
			return nil, err
		}
		_ = os.Remove(path + draftSuffix) // left by a crash; the next compaction says what is wrong with it
	}
	c := &Catalog{path: path, maxDocument: o.MaxDocument, hot: newHot(max(1, o.LRUSize)), committed: o.Committed, eager: o.Eager, hooks: o.hooks}
	c.trust.Store(&trust{state: StateUnverified})
	if c.committed == nil {
		c.committed = func(Commit) {}
	}
	if c.hooks.commit == nil {
		c.hooks.commit = (*bbolt.Tx).Commit
	}
	f, err := c.openFile(o.ReadOnly)
	if err != nil {
		return nil, err
	}
	if err := c.load(f, o.EnvironmentID); err != nil {
		return nil, errors.Join(err, f.db.Close())
	}
	if o.ReadOnly {
		return c, nil
	}
	if f.unwritable == nil {
		if err := c.claimEnvironment(f); err != nil {
			return nil, errors.Join(err, f.db.Close())
		}
	}
	c.writer = startWriter(c) //nolint:contextcheck // it outlives the start
	return c, nil
}

// load checks what the file says of itself and pins its revision as the current one.
func (c *Catalog) load(f *file, environmentID string) (err error) {
	defer containDamage(&err)()
	var head header
	var r *roles
	err = f.db.View(func(tx *bbolt.Tx) error {
		if c.identity, head, err = readMeta(tx); err == nil {
			r, err = readRoles(tx.Bucket(bucketMeta))
		}
		return err
	})
	if err != nil {
		return unusable(c.path, err)
	}
	if have := c.identity.environment; have != "" && environmentID != "" && have != environmentID {
		return fmt.Errorf("%w: %s was filled from %s, but --environment-id is %s; use another --data-dir for it",
			ErrEnvironment, c.path, have, environmentID)
	}
	if environmentID != "" {
		c.identity.environment = environmentID
	}
	c.file.Store(f)
	c.current.Store(newSnapshot(c.identity.epoch, head, r))
	return nil
}

// claimEnvironment writes the environment into a file that has none.
func (c *Catalog) claimEnvironment(f *file) (err error) {
	defer containDamage(&err)()
	var found identity
	err = f.db.View(func(tx *bbolt.Tx) (err error) {
		found, _, err = readMeta(tx)
		return err
	})
	if err != nil || found == c.identity {
		return err
	}
	return f.db.Update(func(tx *bbolt.Tx) error { return putIdentity(tx.Bucket(bucketMeta), c.identity) })
}

// MovedAside returns where the file went that [Options.Rebuild] replaced, or "".
func (c *Catalog) MovedAside() string { return c.movedAside }

// Sync returns what the newest revision says of itself.
func (c *Catalog) Sync() Sync { return c.sight().Sync() }

// EnvironmentID returns the Scalekit environment that the file belongs to, or "".
func (c *Catalog) EnvironmentID() string { return c.identity.environment }

// Figures are what an operator watches, as of now.
type Figures struct {
	Hits, Misses uint64 // records and absent names that were in memory, or had to be read from the file
	Queued       int    // requests that wait for a commit
	FileBytes    int64  // 0 when the file can't be looked at
}

// Figures returns them.
func (c *Catalog) Figures() (f Figures) {
	f.Hits, f.Misses = c.hot.counts()
	if c.writer != nil {
		f.Queued = len(c.writer.queue)
	}
	if info, err := os.Stat(c.path); err == nil {
		f.FileBytes = info.Size()
	}
	return f
}

// Close finishes the commit under way, refuses the requests still queued and closes
// the file. It is safe to call more than once.
func (c *Catalog) Close() error {
	c.closeOnce.Do(func() {
		if c.writer != nil {
			c.writer.stop()
		}
		c.closeErr = errors.Join(c.file.Load().db.Close(), c.unlock())
	})
	return c.closeErr
}

// Sync is what one revision of the catalog says of itself.
type Sync struct {
	Revision uint64             // grows by one with each commit that changes the catalog; local to the file
	Epoch    string             // names the file: 32 hexadecimal digits, made anew with it
	EventID  string             // the newest event by Scalekit's clock; empty before the first
	AsOf     permission.Instant // when that event occurred; zero before the first
	Complete bool               // a full listing or the dump of a complete catalog was applied
	Count    uint64             // live permissions
	Digest   permission.Digest  // sum of the contents of the live permissions

	State State
	// StateGeneration grows by one with each change of State, which is no revision: whoever
	// keeps an answer keeps it for one pair of revision and generation.
	StateGeneration uint64
}
