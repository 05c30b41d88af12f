package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

// A record that can't be read must never look like a permission that isn't there.
func TestADamagedRecordIsAnErrorAndNotAbsence(t *testing.T) {
	for _, bucket := range []string{"states", "names"} {
		t.Run(bucket, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir, func(o *catalog.Options) { o.EnvironmentID = "" }) // a later start would claim it
			apply(t, c, event(permission.Created, 1, "1", "a"), event(permission.Created, 2, "2", "b"))
			closeNow(t, c)
			put(t, dir, bucket, map[string]string{"states": "perm_1", "names": "a"}[bucket], "damaged")
			before := must(os.ReadFile(filepath.Join(dir, catalog.FileName)))
			if _, err := catalog.Open(context.Background(), catalog.Options{Dir: dir, EnvironmentID: environment}); !errors.Is(err, catalog.ErrFile) || !strings.Contains(err.Error(), "isn't sound") {
				t.Errorf("opened for writing: %v", err)
			}
			if after := must(os.ReadFile(filepath.Join(dir, catalog.FileName))); string(after) != string(before) {
				t.Error("the file was written to")
			}
			c = open(t, dir, func(o *catalog.Options) { o.ReadOnly = true })
			d := c.Document(inmem.NewFromObject(map[string]any{}))
			txn := begin(t, d)
			defer d.Abort(context.Background(), txn)
			_, err := d.Read(context.Background(), txn, storage.Path{"scalekit", "permissions", "a"})
			var unavailable *catalog.UnavailableError
			if !errors.As(err, &unavailable) || storage.IsNotFound(err) {
				t.Errorf("got %v, want an UnavailableError", err)
			}
			if readIn(t, d, txn, "scalekit", "permissions", "b") == nil {
				t.Error("its neighbor can't be read")
			}
			report, err := c.Verify(context.Background(), nil)
			if err != nil || len(report.Problems) == 0 {
				t.Errorf("verify: %v, %v", report, err)
			}
			if err := c.Dump(context.Background(), io.Discard, nil); bucket == "states" && err == nil {
				t.Error("a dump was made of it")
			}
		})
	}
}

// Any flipped bit ends in an error or in a catalog that says the same; never in a crash,
// and never in a file that verifies and says something else.
func TestFlippedBits(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	for i := range 60 {
		apply(t, c, event(permission.Created, i, fmt.Sprint(i), fmt.Sprint("name:", i)))
		if i%4 == 0 {
			apply(t, c, event(permission.Deleted, 100+i, fmt.Sprint(i), fmt.Sprint("name:", i)))
		}
	}
	want := dump(t, c)
	closeNow(t, c)
	whole, err := os.ReadFile(filepath.Join(dir, catalog.FileName))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		damaged := append([]byte(nil), whole...)
		at := random.IntN(len(damaged))
		damaged[at] ^= 1 << random.IntN(8)
		broken := t.TempDir()
		write(t, broken, damaged)
		c, err := catalog.Open(context.Background(), catalog.Options{Dir: broken, LRUSize: 1})
		if err != nil {
			continue
		}
		if got := dump(t, c); got != want {
			t.Errorf("byte %d: opened, and says something else", at)
		}
		closeNow(t, c)
	}
}

// What is acknowledged must be found by the next start.
func TestAFileThatWasRemovedTakesNoEvents(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	apply(t, c, event(permission.Created, 1, "1", "a"))
	path := filepath.Join(dir, catalog.FileName)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(context.Background(), event(permission.Created, 2, "2", "b")); !errors.Is(err, catalog.ErrFile) || !errors.Is(c.WriteError(), catalog.ErrFile) {
		t.Errorf("got %v", err)
	}
	if read(t, c, "scalekit", "permissions", "a") == nil {
		t.Error("questions don't go on")
	}
	write(t, dir, must(os.ReadFile(path+".away")))
	if _, err := c.Apply(context.Background(), event(permission.Created, 2, "2", "b")); !errors.Is(err, catalog.ErrFile) {
		t.Errorf("with a copy in its place: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	apply(t, c, event(permission.Created, 2, "2", "b"))
}

// A file cut off under a running process is an error for the question that meets it.
func TestAFileThatIsTruncatedWhileInUse(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, func(o *catalog.Options) { o.LRUSize = 1 })
	for i := range 100 {
		apply(t, c, event(permission.Created, i, fmt.Sprint(i), fmt.Sprint("name:", i)))
	}
	whole, err := os.ReadFile(filepath.Join(dir, catalog.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, catalog.FileName), 2*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	d := c.Document(inmem.NewFromObject(map[string]any{}))
	txn := begin(t, d)
	defer d.Abort(context.Background(), txn)
	for _, path := range []storage.Path{{"scalekit", "permissions", "name:1"}, {"scalekit", "permissions"}} {
		var unavailable *catalog.UnavailableError
		if _, err := d.Read(context.Background(), txn, path); !errors.As(err, &unavailable) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	write(t, dir, whole) // for the checks at the end
}

// put writes into the file behind the catalog's back.
func put(t *testing.T, dir, bucket, key, value string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, catalog.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(value))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, dir string) {
	c := open(t, dir)
	for i := range 200 {
		apply(t, c, event(permission.Created, i, fmt.Sprint(i), fmt.Sprint("name", i)))
	}
	closeNow(t, c)
	if err := os.Truncate(filepath.Join(dir, catalog.FileName), 3*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
