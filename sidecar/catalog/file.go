package catalog

import (
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
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// file is an open bbolt file. It may be swapped for another one while it is read, and is
// closed with its last reader then.
type file struct {
	db         *bbolt.DB
	info       fs.FileInfo // tells whether its path still leads to it
	unwritable error       // why it could be opened for reading only, where writing was wanted
	unplaced   bool        // see place; the writer's

	readers atomic.Int64
	retired atomic.Bool
	closed  atomic.Bool
}

// view runs do in a read transaction of the file of the moment. It neither waits for the
// writer nor for a swap.
func (c *Catalog) view(do func(*bbolt.Tx) error) error {
	f := c.acquire()
	defer f.release()
	return f.db.View(do)
}

// acquire returns the file of the moment, which stays open until it is released.
func (c *Catalog) acquire() *file {
	for {
		f := c.file.Load()
		f.readers.Add(1)
		if c.file.Load() == f {
			return f
		}
		f.release() // it was swapped in between, and may be closed
	}
}

func (f *file) release() {
	if f.readers.Add(-1) == 0 && f.retired.Load() {
		f.close()
	}
}

// retire closes f once nobody reads it. It must not be the catalog's file any more.
func (f *file) retire() {
	f.retired.Store(true)
	if f.readers.Load() == 0 {
		f.close()
	}
}

// close closes f once. What it says doesn't matter: another file has taken its place.
func (f *file) close() {
	if f.closed.CompareAndSwap(false, true) {
		_ = f.db.Close()
	}
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

// openFile opens the catalog's file. Where it can't be written to, because of its mode or
// that of its file system, it is opened for reading, with the reason noted.
func (c *Catalog) openFile(readOnly bool) (*file, error) {
	// bbolt would make a database of an empty file, whoever put it there.
	if info, err := os.Stat(c.path); err == nil && info.Size() == 0 {
		return nil, fmt.Errorf("%w: %s is empty; %s", ErrFile, c.path, whatToDo)
	}
	f, err := c.openBbolt(c.path, readOnly)
	if err == nil || readOnly || !refusesWrites(err) {
		return f, err
	}
	unwritable := err
	if f, err = c.openBbolt(c.path, true); err != nil {
		return nil, err
	}
	f.unwritable = fmt.Errorf("opening the catalog for writing: %w", unwritable)
	return f, nil
}

func refusesWrites(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

func (c *Catalog) openBbolt(path string, readOnly bool) (f *file, err error) {
	defer containDamage(&err)()
	var opened *os.File
	size := mapSize()
	if c.hooks.mapSize > 0 {
		size = c.hooks.mapSize
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         time.Millisecond, // the directory's lock has been taken, so this one is free
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: size,
		ReadOnly:        readOnly,
		NoStatistics:    true,
		OpenFile: func(path string, flag int, mode fs.FileMode) (*os.File, error) {
			if c.hooks.open != nil {
				if err := c.hooks.open(flag); err != nil {
					return nil, err
				}
			}
			opened, err = os.OpenFile(path, flag, mode)
			return opened, err
		},
	})
	if err != nil {
		return nil, unusable(path, err)
	}
	db.AllocSize = allocSize
	info, err := opened.Stat()
	if readOnly {
		// bbolt's lock would keep the file from being opened for writing beside this. The
		// directory's lock is what keeps other processes away.
		err = errors.Join(err, syscall.Flock(int(opened.Fd()), syscall.LOCK_UN))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("looking at the catalog: %w", err), db.Close())
	}
	return &file{db: db, info: info}, nil
}

// allocSize is the step, in bytes, in which the file grows. bbolt's own 16 MiB would make a
// small catalog's file 16 MiB long.
const allocSize = 1 << 20

// unusable says of the file at path why it can't be used. What the system refused (memory,
// descriptors, rights, a read) says nothing of the file: that is no ErrFile, the file must not
// be given up for it, and the next start may go better.
func unusable(path string, err error) error {
	var system syscall.Errno
	var notOurs notOursError
	switch {
	case errors.As(err, &system) || errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("opening the catalog %s: %w", path, err)
	case errors.Is(err, ErrFile):
		return err
	case errors.As(err, &notOurs):
		return fmt.Errorf("%w: %s: %w", ErrFile, path, err)
	}
	return fmt.Errorf("%w: %s isn't sound: %w; `postern catalog verify` tells more; %s", ErrFile, path, err, whatToDo)
}

// isBroken reports whether err is about a file that is damaged, and not about one that
// another program or another version may use.
func isBroken(err error) bool {
	var notOurs notOursError
	return errors.Is(err, ErrFile) && !errors.As(err, &notOurs)
}

// moveAside renames a file that can't be used, and returns its new path.
func moveAside(path string) (string, error) {
	aside := path + ".broken-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("moving the broken file aside: %w", err)
	}
	return aside, syncDirectory(filepath.Dir(path))
}

// whatToDo ends an error about a file that can't be used.
const whatToDo = "restore a dump into another --data-dir, or start with --rebuild, which moves the file aside and begins empty"

// containDamage makes an error of what a damaged file does to its reader: bbolt panics
// where its invariants don't hold, and where it follows a page number or a length behind
// the end of the file, the processor faults. It is for the current goroutine, and is called
// as `defer containDamage(&err)()`.
func containDamage(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if reason := recover(); reason != nil {
			*err = fmt.Errorf("%w: reading it failed: %v; stop Postern and run `postern catalog verify`", ErrFile, reason)
		}
	}
}
