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
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
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

	hooks hooks
}

// hooks let the tests of this package into moments that nobody reaches from outside.
type hooks struct {
	commit    func(*bbolt.Tx) error // in place of (*bbolt.Tx).Commit
	afterRead func()                // between reading a record from the file and filling the LRU
	// aroundPage is called between pinning a revision and reading a part of the listing from
	// the file, and between reading it and taking it back to that revision.
	aroundPage func()
}

// Limit bounds the records of a document that is read as a whole.
type Limit struct {
	Records int
	Bytes   int64 // of ids, names, descriptions and event ids
}

// Catalog is an open catalog. Its methods may be called concurrently.
type Catalog struct {
	db          *bbolt.DB
	unlock      func() error
	identity    identity
	maxDocument Limit
	file        fs.FileInfo // of the open file
	hot         hot
	hooks       hooks

	// current is the newest revision that questions may pin. Only the writer stores it.
	current atomic.Pointer[snapshot]
	writer  *writer

	closeOnce sync.Once
	closeErr  error
}

// Open opens the catalog in o.Dir, or makes a new one there. It reads the whole file once,
// which ctx may end.
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
	c, err := openLocked(ctx, o, unlock)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return c, nil
}

// makeDirectory makes dir and what is missing above it, each of them synced into its
// parent: a power cut must not take a directory away with what is synced inside.
func makeDirectory(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent != dir {
		if err := makeDirectory(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) { // somebody was faster
		return err
	}
	return syncDirectory(parent)
}

func openLocked(ctx context.Context, o Options, unlock func() error) (*Catalog, error) {
	path := filepath.Join(o.Dir, FileName)
	if !o.ReadOnly {
		if err := createIfAbsent(path); err != nil {
			return nil, fmt.Errorf("making a new catalog: %w", err)
		}
	}
	db, err := openFile(path, o.ReadOnly)
	if err != nil {
		return nil, err
	}
	c, err := load(db, o)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	c.unlock = unlock
	if o.ReadOnly {
		return c, nil
	}
	if err := c.refuseUnsound(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := c.claimEnvironment(o.EnvironmentID); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	c.writer = startWriter(c)
	return c, nil
}

// refuseUnsound reads the whole file before the first write to it. A flipped bit in a key
// would make a deleted permission look like one never seen, and one in the list of free
// pages would have good records overwritten.
func (c *Catalog) refuseUnsound(ctx context.Context) error {
	report, err := c.Verify(ctx)
	if err == nil && len(report.Problems) > 0 {
		err = fmt.Errorf("%w: %s isn't sound: %s; `postern catalog verify` tells all; restore it from a dump into another --data-dir, or move it away to start empty",
			ErrFile, c.db.Path(), report.Problems[0])
	}
	return err
}

// lockDirectory takes the directory for this process. A lock on the directory rather
// than on the file covers the moment in which the file is made, too.
func lockDirectory(dir string) (func() error, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w: %s; stop that process or set --data-dir to another directory", ErrLocked, dir), d.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking the data directory %s: %w", dir, err), d.Close())
	}
	return d.Close, nil
}

// createIfAbsent makes an empty catalog under another name, syncs it and renames it
// into place, so that a crash leaves either no file or a whole one.
func createIfAbsent(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(draft, 0o600, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(initialize), db.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func initialize(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketStates, bucketBearers, bucketNames} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	var epoch [16]byte
	_, _ = rand.Read(epoch[:]) // never fails, by its documentation
	meta := tx.Bucket(bucketMeta)
	return errors.Join(
		meta.Put(keyFormat, []byte(formatVersion)),
		putIdentity(meta, identity{epoch: hex.EncodeToString(epoch[:])}),
		putHeader(meta, header{}),
	)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mapSize is how much address space the file is mapped into at once. While bbolt maps
// a file anew it blocks its writer and new readers, so it had better never need to:
// address space costs nothing. A catalog beyond it works, with that pause at each doubling.
func mapSize() int {
	if strconv.IntSize == 32 {
		return 256 << 20
	}
	return math.MaxInt32 << 3 // 16 GiB
}

func openFile(path string, readOnly bool) (db *bbolt.DB, err error) {
	defer containDamage(&err)()
	// bbolt would make a database of an empty file, whoever put it there.
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return nil, fmt.Errorf("%w: %s is empty; restore it from a dump, or move it away to start empty", ErrFile, path)
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         time.Millisecond, // the directory's lock has been taken, so this one is free
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapSize(),
		ReadOnly:        readOnly,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; restore it from a dump, or move it away to start empty", ErrFile, path, err)
	}
	db.AllocSize = 1 << 20 // bbolt's 16 MiB steps would make a small catalog's file 16 MiB long
	return db, nil
}

// load checks what the file says of itself and pins its revision as the current one.
func load(db *bbolt.DB, o Options) (c *Catalog, err error) {
	defer containDamage(&err)()
	recent, err := simplelru.NewLRU[string, *entry](max(1, o.LRUSize), nil)
	if err != nil {
		return nil, err
	}
	if o.hooks.commit == nil {
		o.hooks.commit = (*bbolt.Tx).Commit
	}
	c = &Catalog{db: db, maxDocument: o.MaxDocument, hot: hot{records: recent}, hooks: o.hooks}
	var head header
	err = db.View(func(tx *bbolt.Tx) error {
		c.identity, head, err = readMeta(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, db.Path(), err)
	}
	if c.file, err = os.Stat(db.Path()); err != nil {
		return nil, fmt.Errorf("looking at the catalog: %w", err)
	}
	if have := c.identity.environment; have != "" && o.EnvironmentID != "" && have != o.EnvironmentID {
		return nil, fmt.Errorf("%w: %s was filled from %s, but --environment-id is %s; use another --data-dir for it",
			ErrEnvironment, db.Path(), have, o.EnvironmentID)
	}
	c.current.Store(newSnapshot(c.identity.epoch, head))
	return c, nil
}

// claimEnvironment writes the environment into a file that has none.
func (c *Catalog) claimEnvironment(environmentID string) error {
	if environmentID == "" || c.identity.environment != "" {
		return nil
	}
	c.identity.environment = environmentID
	return c.db.Update(func(tx *bbolt.Tx) error {
		return putIdentity(tx.Bucket(bucketMeta), c.identity)
	})
}

// containDamage makes an error of what a damaged file does to its reader: bbolt panics
// where its invariants don't hold, and where it follows a page number or a length behind
// the end of the file, the processor faults. It is for the current goroutine, and is called
// as `defer containDamage(&err)()`.
func containDamage(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if reason := recover(); reason != nil {
			*err = fmt.Errorf("%w: reading it failed: %v; run `postern catalog verify`, restore it from a dump, or move it away to start empty", ErrFile, reason)
		}
	}
}

// Sync returns what the newest revision says of itself.
func (c *Catalog) Sync() Sync { return c.current.Load().sync }

// EnvironmentID returns the Scalekit environment that the file belongs to, or "".
func (c *Catalog) EnvironmentID() string { return c.identity.environment }

// Close finishes the commit under way, refuses the requests still queued and closes
// the file. It is safe to call more than once.
func (c *Catalog) Close() error {
	c.closeOnce.Do(func() {
		if c.writer != nil {
			c.writer.stop()
		}
		c.closeErr = errors.Join(c.db.Close(), c.unlock())
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
}

// State says how far the catalog can be trusted to be whole. Webhooks alone can't
// prove that none was lost.
func (Sync) State() string { return "unverified" }
