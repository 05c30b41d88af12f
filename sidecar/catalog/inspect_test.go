package catalog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// sampleCatalog closes a catalog with names of one and of several bearers, live and deleted,
// and returns its directory.
func sampleCatalog(t testing.TB, permissions int) string {
	t.Helper()
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 10)
	states := manyStates(permissions)
	for _, e := range []permission.Event{
		described(permission.Created, 1, "a", "old"), described(permission.Created, 2, "b", ""), described(permission.Deleted, 3, "b", ""),
	} {
		states.states = append(states.states, e.State())
		again := e
		again.PermissionID, again.ID, again.OccurredAt = e.PermissionID+"_again", e.ID+"_again", e.OccurredAt+10
		states.states = append(states.states, again.State())
	}
	if _, err := c.Restore(context.Background(), states, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// change writes into the file at path behind the catalog's back.
func change(t testing.TB, path string, do func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(do), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func putFormat(format string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte(format)) }
}

func dropMeta(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketMeta) }

func bumpRevision(tx *bbolt.Tx) error {
	h, err := readHeader(tx.Bucket(bucketMeta))
	h.revision++
	return errors.Join(err, putHeader(tx.Bucket(bucketMeta), h))
}

// What each seal lets pass because it was written with a right one.
func TestInspectionFindsWhatDisagrees(t *testing.T) {
	newHeader := func(change func(*header)) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			h, err := readHeader(tx.Bucket(bucketMeta))
			change(&h)
			return errors.Join(err, putHeader(tx.Bucket(bucketMeta), h))
		}
	}
	name := func(name, id string) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketNames).Put([]byte(name), seal(bucketNames, []byte(name), []byte(id)))
		}
	}
	for want, do := range map[string]func(*bbolt.Tx) error{
		"the header counts":            newHeader(func(h *header) { h.count++ }),
		"the header's digest":          newHeader(func(h *header) { h.digest[0]++ }),
		"is newer than the newest":     newHeader(func(h *header) { h.newest.eventID = "evt" }),
		"who decides for a name":       name("a", "perm_a"),
		"who decides for a name isn't": func(tx *bbolt.Tx) error { return tx.Bucket(bucketNames).Delete([]byte("many:1")) },
		"isn't who should":             func(tx *bbolt.Tx) error { return tx.Bucket(bucketBearers).Delete(bearerKey("many:1", "perm_many:1")) },
		"doesn't lead to what": func(tx *bbolt.Tx) error {
			bearers := tx.Bucket(bucketBearers)
			return errors.Join(bearers.Delete(bearerKey("many:1", "perm_many:1")), bearers.Put(bearerKey("many:1", "perm_many:2"), nil), name("many:1", "perm_many:2")(tx))
		},
		"the index of names doesn't": func(tx *bbolt.Tx) error { return tx.Bucket(bucketStates).Delete([]byte("perm_many:1")) },
		"the index of names has":     func(tx *bbolt.Tx) error { return tx.Bucket(bucketBearers).Put([]byte("odd"), nil) },
		"reading the state": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketStates).Put([]byte("perm_many:1"), []byte("xxxxxxxx"))
		},
		"reading which permission": func(tx *bbolt.Tx) error { return tx.Bucket(bucketNames).Put([]byte("many:1"), []byte("xxxxxxxx")) },
		"reading its identity":     func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyIdentity, []byte("x")) },
		"it has 5 buckets":         func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("more")); return err },
		"its bucket \"names\"":     func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketNames) },
	} {
		t.Run(want, func(t *testing.T) {
			dir := sampleCatalog(t, 300)
			path := filepath.Join(dir, FileName)
			if err := inspectFile(context.Background(), path); err != nil {
				t.Fatalf("before: %v", err)
			}
			change(t, path, do)
			if err := inspectFile(context.Background(), path); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// One bit at a time through every page that means something, the meta pages and the list of
// free ones included: it is found, or it doesn't matter to what bbolt reads.
func TestInspectionFindsEachFlippedBitOfAPagesHead(t *testing.T) {
	dir := sampleCatalog(t, 300)
	path := filepath.Join(dir, FileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	put := func(b byte, at int) {
		if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	size := os.Getpagesize()
	free := freePagesOf(t, path)
	for at := range len(whole) / size {
		if free[uint64(at)] {
			continue
		}
		least := pageHeadSize
		if at < 2 {
			least = pageHeadSize + metaSize + 8
		}
		for bit := range least * 8 {
			if inHeadThatNobodyReads(at, bit) {
				continue
			}
			place := at*size + bit/8
			put(whole[place]^1<<(bit%8), place)
			if err := inspectFile(context.Background(), path); err == nil {
				t.Errorf("page %d: bit %d of its head was not noticed", at, bit)
			}
			put(whole[place], place)
		}
	}
}

// inHeadThatNobodyReads: bbolt doesn't look at the heads of meta pages.
func inHeadThatNobodyReads(at, bit int) bool { return at < 2 && bit < pageHeadSize*8 }

func freePagesOf(t *testing.T, path string) map[uint64]bool {
	t.Helper()
	p, err := openPages(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.close() }()
	if err := p.readMetas(); err != nil {
		t.Fatal(err)
	}
	list, err := p.read(p.freelist, nil)
	if err != nil {
		t.Fatal(err)
	}
	free := map[uint64]bool{}
	ids, err := list.freePages()
	if err != nil {
		t.Fatal(err)
	}
	for ; len(ids) > 0; ids = ids[8:] {
		free[machineOrder.Uint64(ids)] = true
	}
	for id := p.pages; id < uint64(p.size)/p.pageSize; id++ {
		free[id] = true
	}
	return free
}

// Whatever stands in the file, the inspection ends, and says no or yes without a fault.
func FuzzInspect(f *testing.F) {
	dir := sampleCatalog(f, 150)
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(4096*3+16), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
	f.Add(uint32(16), []byte{0}, uint32(5000))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		damaged := append([]byte(nil), whole...)
		copy(damaged[int(at)%len(damaged):], patch)
		damaged = damaged[:len(damaged)-int(cut)%len(damaged)]
		path := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		err := inspectFile(context.Background(), path)
		if err != nil && !errors.Is(err, ErrFile) {
			t.Fatal(err)
		}
		if err != nil && strings.Contains(err.Error(), "runtime error") {
			t.Fatalf("a number was followed before it was checked: %v", err)
		}
		if err == nil {
			c, err := Open(context.Background(), Options{Dir: filepath.Dir(path), LRUSize: 1})
			if err != nil {
				t.Fatalf("it was found sound and can't be opened: %v", err)
			}
			report, err := c.Verify(context.Background(), nil)
			if err := errors.Join(err, c.Close()); err != nil || len(report.Problems) > 0 {
				t.Fatalf("it was found sound, and isn't: %v %v", err, report.Problems)
			}
		}
	})
}

func TestInspectionEndsWithItsContext(t *testing.T) {
	dir := sampleCatalog(t, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := inspectFile(ctx, filepath.Join(dir, FileName)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrFile) {
		t.Errorf("got %v", err)
	}
}
