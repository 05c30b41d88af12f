package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// fill makes a file with holes: permissions that came in no order of their names, and were
// changed afterwards.
func fill(t *testing.T, c *Catalog, permissions int) {
	t.Helper()
	var wg sync.WaitGroup
	for at := range 2 {
		for i := range permissions {
			wg.Go(func() {
				name := fmt.Sprintf("name:%d", i*7919%permissions)
				mustApply(t, c, described(permission.Updated, int64(1+at), name, fmt.Sprint("version ", at)))
			})
		}
		wg.Wait()
	}
}

// Readers and writers go on while the file is swapped, again and again, and what the last
// file says is what was written.
func TestCompactWhileEventsAndQuestionsCome(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 1)
	fill(t, c, 500)
	done := make(chan struct{})
	var wg sync.WaitGroup
	var newest atomic.Int64
	newest.Store(2)
	wg.Go(func() {
		for version := int64(3); ; version++ {
			select {
			case <-done:
				return
			default:
			}
			mustApply(t, c, described(permission.Updated, version, "name:1", fmt.Sprint(version)), described(permission.Created, version, fmt.Sprint("more:", version), ""))
			newest.Store(version)
		}
	})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := newest.Load()
				pinned := c.current.Load()
				if got := descriptionAt(t, c, pinned, "name:1"); least > 2 && (len(got) < len(fmt.Sprint(least)) || got < fmt.Sprint(least) && len(got) == len(fmt.Sprint(least))) {
					t.Errorf("after version %d was acknowledged a question saw %q", least, got)
				}
				if got := descriptionAt(t, c, pinned, "name:7"); got != "version 1" {
					t.Errorf("what never changed says %q", got)
				}
			}
		})
	}
	for range 5 {
		if _, err := c.Compact(context.Background(), nil); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
	compareWithFile(t, c, dir)
}

func TestCompactMakesTheFileSmallerAndKeepsEachState(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 10)
	fill(t, c, 3000)
	before := dumpLines(t, c)
	var last, total int64
	report, err := c.Compact(context.Background(), func(done, all int64) { last, total = done, all })
	if err != nil {
		t.Fatal(err)
	}
	if report.After >= report.Before*9/10 {
		t.Errorf("from %d to %d bytes", report.Before, report.After)
	}
	if want := int64(3 + 3*3000); total != 0 && (total != want || last > want) {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}
	if after := dumpLines(t, c); after != before {
		t.Error("the dump differs")
	}
	mustApply(t, c, described(permission.Deleted, 9, "name:1", ""))
	compareWithFile(t, c, dir)
}

// breaksAt are hooks that fail a step once, when armed.
func breaksAt(step string) (hooks, *atomic.Bool) {
	armed := new(atomic.Bool)
	return hooks{step: func(reached string) error {
		if reached == step && armed.CompareAndSwap(true, false) {
			return errInjected
		}
		return nil
	}}, armed
}

// Each step fails in turn, as if the process had ended there: the catalog goes on, the next
// compaction succeeds, and so does a start from what the step left behind.
func TestABrokenOffCompactionLosesNothing(t *testing.T) {
	for _, at := range []string{"copy", "sync", "catch up", "rename", "sync directory"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			breaks, armed := breaksAt(at)
			c := openHooked(t, dir, breaks, 10)
			fill(t, c, 300)
			armed.Store(true)
			if _, err := c.Compact(context.Background(), nil); at != "sync directory" && !errors.Is(err, errInjected) {
				t.Fatalf("got %v", err)
			}
			if armed.Load() {
				t.Fatal("the step was not reached")
			}
			copied := copyDirectory(t, dir)
			mustApply(t, c, described(permission.Created, 5, "afterwards", "x"))
			if _, err := c.Compact(context.Background(), nil); err != nil {
				t.Error(err)
			}
			if got := descriptionAt(t, c, c.current.Load(), "afterwards"); got != "x" {
				t.Errorf("got %q", got)
			}
			compareWithFile(t, c, dir)
			restarted := openHooked(t, copied, hooks{}, 10)
			if got := restarted.Sync().Count; got != 300 {
				t.Errorf("a start after the break found %d permissions", got)
			}
			if _, err := os.Stat(filepath.Join(copied, FileName+draftSuffix)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the draft is still there: %v", err)
			}
		})
	}
}

// Until the directory is synced a power cut could bring the old file back: nothing is
// acknowledged that only the new one holds.
func TestNothingIsAcknowledgedBeforeTheNewFileIsInPlace(t *testing.T) {
	var broken atomic.Bool
	c := openHooked(t, t.TempDir(), hooks{step: func(step string) error {
		if step == "sync directory" && broken.Load() {
			return errInjected
		}
		return nil
	}}, 10)
	fill(t, c, 10)
	broken.Store(true)
	if _, err := c.Compact(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(context.Background(), described(permission.Created, 5, "new", "")); !errors.Is(err, errInjected) {
		t.Errorf("got %v", err)
	}
	broken.Store(false)
	mustApply(t, c, described(permission.Created, 5, "new", ""))
}

func TestOneCompactionAtATime(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	c := openHooked(t, t.TempDir(), hooks{step: func(step string) error {
		if step == "copy" {
			close(entered)
			<-release
		}
		return nil
	}}, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Compact(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	<-entered
	if _, err := c.Compact(context.Background(), nil); !errors.Is(err, ErrCompacting) {
		t.Errorf("got %v", err)
	}
	close(release)
	wg.Wait()
}

func TestACompactionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{step: func(string) error { cancel(); return nil }}, 10)
	if _, err := c.Restore(context.Background(), manyStates(stepsPerProgress), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func manyStates(n int) *Restorable {
	d := &Restorable{}
	for i := range n {
		d.states = append(d.states, described(permission.Created, 1, fmt.Sprint("many:", i), "").State())
	}
	return d
}

func copyDirectory(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func dumpLines(t *testing.T, c *Catalog) string {
	t.Helper()
	var b strings.Builder
	if err := c.Dump(context.Background(), &b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A file that was put in place syncs like any other, and the old ones are closed.
func TestAfterCompactionsOneFileIsOpenAndItSyncs(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 10)
	fill(t, c, 50)
	if err := os.WriteFile(filepath.Join(dir, FileName+draftSuffix), []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Compact(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if db := c.file.Load().db; db.NoSync || db.AllocSize != allocSize {
		t.Errorf("it goes on with NoSync %v and steps of %d bytes", db.NoSync, db.AllocSize)
	}
	if got := openFiles(t, dir); got != 1 {
		t.Errorf("%d files are open", got)
	}
}

// openFiles counts the descriptors that lead into dir, but for that of the directory.
func openFiles(t *testing.T, dir string) (count int) {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no proc file system here")
	}
	for _, d := range descriptors {
		if target, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil && strings.HasPrefix(target, dir+"/") {
			count++
		}
	}
	return count
}

// What would be put in place is read as the next start would read it.
func TestADamagedDraftIsNotPutInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	c := openHooked(t, dir, hooks{step: func(step string) error {
		if step != "sync" {
			return nil
		}
		draft, err := os.ReadFile(path + draftSuffix)
		if err != nil {
			return err
		}
		draft[bytes.Index(draft, []byte("version 1"))]++ // in a record
		return os.WriteFile(path+draftSuffix, draft, 0o600)
	}}, 10)
	fill(t, c, 50)
	if _, err := c.Compact(context.Background(), nil); !errors.Is(err, ErrFile) {
		t.Errorf("got %v", err)
	}
	mustApply(t, c, described(permission.Created, 9, "afterwards", ""))
	compareWithFile(t, c, dir)
}

// Events between the copy and its last step: a name that nobody bears any more, and a commit
// in doubt, are in the new file as they are in the catalog.
func TestWhatHappensDuringTheCopyIsCaughtUpWith(t *testing.T) {
	var doubt atomic.Bool
	dir := t.TempDir()
	var c *Catalog
	c = openHooked(t, dir, hooks{
		commit: func(tx *bbolt.Tx) error {
			if doubt.CompareAndSwap(true, false) {
				return errors.Join(tx.Commit(), errInjected)
			}
			return tx.Commit()
		},
		step: func(step string) error {
			if step != "sync" {
				return nil
			}
			renamed := described(permission.Updated, 5, "name:1", "renamed")
			renamed.Name = "another"
			mustApply(t, c, renamed)
			doubt.Store(true)
			if _, err := c.Apply(context.Background(), described(permission.Updated, 6, "name:2", "in doubt")); !errors.Is(err, errInjected) {
				t.Errorf("got %v", err)
			}
			return nil
		},
	}, 10)
	fill(t, c, 50)
	if _, err := c.Compact(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"name:1": "", "another": "renamed", "name:2": "in doubt"} {
		if got := descriptionAt(t, c, c.current.Load(), name); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
	compareWithFile(t, c, dir)
}

// A file that was removed meanwhile has no place for the new one.
func TestNoCompactionOfARemovedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	c := openHooked(t, dir, hooks{step: func(step string) error {
		if step == "sync" {
			return os.Rename(path, path+".away")
		}
		return nil
	}}, 10)
	fill(t, c, 5)
	if _, err := c.Compact(context.Background(), nil); !errors.Is(err, ErrFile) {
		t.Errorf("got %v", err)
	}
}

// Whoever linked the file to another place finds it there afterwards.
func TestALinkedFileStaysWhereItIs(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	c := openHooked(t, elsewhere, hooks{}, 1)
	fill(t, c, 5)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(elsewhere, FileName), filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	c = openHooked(t, dir, hooks{}, 1)
	if _, err := c.Compact(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	mustApply(t, c, described(permission.Created, 9, "afterwards", ""))
	compareWithFile(t, c, elsewhere)
}
