package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// A file that can't be written to answers questions, and takes events once it can.
func TestAReadOnlyFileHealsWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 10)
	mustApply(t, c, described(permission.Created, 1, "a", "old"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var readOnly atomic.Bool
	readOnly.Store(true)
	c = openHooked(t, dir, hooks{open: func(flag int) error {
		if readOnly.Load() && flag&os.O_RDWR != 0 {
			return &os.PathError{Op: "open", Path: FileName, Err: syscall.EROFS}
		}
		return nil
	}}, 1)
	for range 2 {
		if _, err := c.Apply(context.Background(), described(permission.Updated, 2, "a", "new")); !errors.Is(err, syscall.EROFS) || !errors.Is(c.WriteError(), syscall.EROFS) {
			t.Errorf("got %v, told %v", err, c.WriteError())
		}
	}
	pinned := c.current.Load()
	if got := descriptionAt(t, c, pinned, "a"); got != "old" {
		t.Errorf("a question saw %q", got)
	}
	readOnly.Store(false)
	mustApply(t, c, described(permission.Updated, 2, "a", "new"))
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "new" || c.WriteError() != nil {
		t.Errorf("healed: %q, %v", got, c.WriteError())
	}
	if got := descriptionAt(t, c, pinned, "a"); got != "old" {
		t.Errorf("the pinned revision says %q", got)
	}
	compareWithFile(t, c, dir)
}

// unclaimedCatalog closes a catalog that belongs to no environment yet, and returns its
// directory.
func unclaimedCatalog(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	unclaimed, err := Open(context.Background(), Options{Dir: dir, LRUSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, unclaimed, described(permission.Created, 1, "a", ""))
	if err := unclaimed.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The environment is claimed by the first write where the start couldn't.
func TestTheEnvironmentIsClaimedWhenTheFileHeals(t *testing.T) {
	dir := unclaimedCatalog(t)
	failures := 1
	c := openHooked(t, dir, hooks{open: func(int) error {
		if failures--; failures >= 0 {
			return syscall.EROFS
		}
		return nil
	}}, 1)
	mustApply(t, c, described(permission.Created, 1, "b", ""))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), Options{Dir: dir, EnvironmentID: "env_other"}); !errors.Is(err, ErrEnvironment) {
		t.Errorf("got %v", err)
	}
}

// While the handle that could only read is being read, nothing is written: the one that writes
// doesn't know its readers, and would use the pages that they read again.
func TestAHealedFileWaitsForItsReaders(t *testing.T) {
	dir := sampleCatalog(t, 3000)
	var readOnly atomic.Bool
	readOnly.Store(true)
	c := openHooked(t, dir, hooks{open: func(flag int) error {
		if readOnly.Load() && flag&os.O_RDWR != 0 {
			return syscall.EROFS
		}
		return nil
	}}, 1)
	before := c.Sync()
	event := described(permission.Updated, 99, "a", "new")
	reading, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		states := 0
		err := c.view(func(tx *bbolt.Tx) error {
			return forEachState(context.Background(), tx.Bucket(bucketStates), func(permission.State) error {
				if states++; states == 10 {
					close(reading)
					<-done
				}
				return nil
			})
		})
		if err != nil || uint64(states) < before.Count {
			t.Errorf("a reader saw %d states: %v", states, err)
		}
	})
	<-reading
	readOnly.Store(false)
	for range 20 {
		if _, err := c.Apply(context.Background(), event); !errors.Is(err, errStillRead) {
			t.Fatalf("got %v", err)
		}
		if got := descriptionAt(t, c, c.current.Load(), "many:7"); got != "" || c.Sync() != before {
			t.Errorf("questions don't go on: %q", got)
		}
	}
	close(done)
	wg.Wait()
	mustApply(t, c, event)
	if got := openFiles(t, dir); got != 1 {
		t.Errorf("%d files are open", got)
	}
	compareWithFile(t, c, dir)
}

// Whoever mended the disk may have put another file there, or have damaged this one.
func TestAHealedFileIsReadAgain(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"damaged": func(t *testing.T, path string) {
			change(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketNames).Delete([]byte("a")) })
		},
		"another version": func(t *testing.T, path string) { change(t, path, func(tx *bbolt.Tx) error { return bumpRevision(tx) }) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := sampleCatalog(t, 10)
			readOnly := true
			c := openHooked(t, dir, hooks{open: func(flag int) error {
				if readOnly && flag&os.O_RDWR != 0 {
					return syscall.EROFS
				}
				return nil
			}}, 10)
			readOnly = false
			damage(t, filepath.Join(dir, FileName))
			if _, err := c.Apply(context.Background(), described(permission.Updated, 99, "b", "")); !errors.Is(err, ErrFile) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A compaction that was begun before the file healed keeps the claim of the environment.
func TestACompactionAcrossAHealKeepsTheClaim(t *testing.T) {
	dir := unclaimedCatalog(t)
	writes := 0
	var c *Catalog
	c = openHooked(t, dir, hooks{
		open: func(flag int) error {
			if writes++; flag&os.O_RDWR != 0 && writes == 1 {
				return syscall.EROFS
			}
			return nil
		},
		step: func(step string) error {
			if step == "sync" {
				mustApply(t, c, described(permission.Created, 2, "b", ""))
			}
			return nil
		},
	}, 1)
	if _, err := c.Compact(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), Options{Dir: dir, EnvironmentID: "env_other"}); !errors.Is(err, ErrEnvironment) {
		t.Errorf("got %v", err)
	}
}

// Beyond the address space that is mapped at once, bbolt maps the file anew while questions
// and whole-document reads go on: nothing fails, and nothing hangs.
func TestTheFileOutgrowsItsMap(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{mapSize: 64 << 10}, 1)
	mustApply(t, c, described(permission.Created, 1, "first", "kept"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				pinned := c.current.Load()
				if got := descriptionAt(t, c, pinned, "first"); got != "kept" {
					t.Errorf("a question saw %q", got)
				}
				if i > 0 {
					continue
				}
				if whole, err := c.whole(context.Background(), pinned, livePermissions); err != nil || uint64(whole.Len()) != pinned.sync.Count {
					t.Errorf("the whole document: %v", err)
				}
			}
		})
	}
	long := strings.Repeat("long ", 1000)
	for i := range 400 {
		mustApply(t, c, described(permission.Created, 1, fmt.Sprint("name:", i), long))
	}
	close(done)
	wg.Wait()
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Size() < 16*64<<10 {
		t.Errorf("the file did not outgrow its map: %v", err)
	}
	compareWithFile(t, c, dir)
}

// A commit that hangs in its sync keeps no question waiting, and a reader who takes his time
// keeps no event waiting.
func TestReadersAndWritersDontWaitForEachOther(t *testing.T) {
	var hanging atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	c := openHooked(t, t.TempDir(), hooks{commit: func(tx *bbolt.Tx) error {
		if hanging.CompareAndSwap(true, false) {
			close(entered)
			<-release
		}
		return tx.Commit()
	}}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", "one"), described(permission.Created, 1, "b", "one"))

	hanging.Store(true)
	var writer sync.WaitGroup
	writer.Go(func() { mustApply(t, c, described(permission.Updated, 2, "a", "two")) })
	<-entered
	for range 3 { // each of them pushes the other one out of the LRU, so that all are read from the file
		for _, name := range []string{"a", "b"} {
			if got := descriptionAt(t, c, c.current.Load(), name); got != "one" {
				t.Errorf("%s: got %q", name, got)
			}
		}
	}
	if whole, err := c.whole(context.Background(), c.current.Load(), livePermissions); err != nil || whole.Len() != 2 {
		t.Errorf("got %v, %v", whole, err)
	}
	close(release)
	writer.Wait()

	err := c.view(func(*bbolt.Tx) error {
		mustApply(t, c, described(permission.Updated, 3, "a", "three"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A restore breaks off at one of its commits, which was written or not. What is there then is
// a part of it, and the next try completes it.
func TestARestoreThatBreaksOffIsCompletedByTheNext(t *testing.T) {
	for _, persist := range []bool{false, true} {
		for at := range 3 {
			t.Run(fmt.Sprintf("commit %d, persisted=%v", at, persist), func(t *testing.T) {
				commits := -1
				dir := t.TempDir()
				c := openHooked(t, dir, hooks{commit: func(tx *bbolt.Tx) error {
					if commits++; commits != at {
						return tx.Commit()
					}
					if !persist {
						return errInjected
					}
					return errors.Join(tx.Commit(), errInjected)
				}}, 10)
				whole := manyStates(statesPerCommit + 10)
				whole.complete = true
				if _, err := c.Restore(context.Background(), whole, nil); !errors.Is(err, errInjected) {
					t.Fatalf("got %v", err)
				}
				if c.Sync().Complete {
					t.Error("a part of a dump made the catalog complete")
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				c = openHooked(t, dir, hooks{}, 10) // which inspects what the break left behind
				if _, err := c.Restore(context.Background(), whole, nil); err != nil {
					t.Fatal(err)
				}
				if at := c.Sync(); at.Count != statesPerCommit+10 || !at.Complete {
					t.Errorf("got %+v", at)
				}
				compareWithFile(t, c, dir)
			})
		}
	}
}

// A new catalog is made under another name: whatever a crash left of that is replaced.
func TestWhatACrashLeftOfANewCatalogIsReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName+".new"), []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openHooked(t, dir, hooks{}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", ""))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
