package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// ErrCompacting says that a compaction is under way already. Nothing changed.
var ErrCompacting = errors.New("the catalog is being compacted already")

const (
	draftSuffix     = ".compact"
	draftFill       = 0.9      // of a page: room for what comes later, as bbolt's own Compact leaves it
	keysPerDraftTx  = 50_000   // bounds the memory of a transaction
	draftAlloc      = 64 << 10 // the step in which it grows, in bytes: it has no hole at its end
	keysPerProgress = 10_000   // and per look at the context
)

// CompactReport says what a compaction did to the size of the file, in bytes.
type CompactReport struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// Compact copies the catalog into a new file without the holes of the old one, and puts it
// in the old one's place. Questions and events go on meanwhile; events wait for the last
// step alone, which copies what they changed since. After an error the old file stays.
//
// It needs room for the copy on the disk. While it runs the old file grows by what is
// written, as its reader keeps bbolt from using pages again.
func (c *Catalog) Compact(ctx context.Context, progress Progress) (report CompactReport, err error) {
	if c.writer == nil {
		return report, errReadOnly
	}
	touched := touchedKeys{}
	if err := c.writer.inTurn(ctx, func() error { return c.writer.startNoting(touched) }); err != nil {
		return report, err
	}
	defer c.writer.stopNoting(context.WithoutCancel(ctx))
	draft, err := c.newDraft()
	if err != nil {
		return report, fmt.Errorf("compacting the catalog: %w", err)
	}
	if report, err = c.fillDraft(ctx, draft, progress.orNone()); err == nil {
		whole := context.WithoutCancel(ctx)
		err = c.writer.inTurn(whole, func() error { return c.writer.takeDraft(whole, draft, touched) })
	}
	if err != nil {
		return report, fmt.Errorf("compacting the catalog: %w", errors.Join(err, draft.discard()))
	}
	after, err := os.Stat(c.path)
	if err != nil {
		return report, fmt.Errorf("looking at the compacted catalog: %w", err)
	}
	report.After = after.Size()
	return report, nil
}

// draft is a file that is to take the place of the catalog's.
type draft struct {
	*file
	path string
}

func (d *draft) discard() error {
	return errors.Join(d.db.Close(), os.Remove(d.path))
}

func (c *Catalog) newDraft() (*draft, error) {
	path := c.path + draftSuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash
		return nil, err
	}
	f, err := c.openBbolt(path, false)
	if err != nil {
		return nil, err
	}
	f.db.NoSync = true // until all of it is there
	f.db.AllocSize = draftAlloc
	return &draft{f, path}, nil
}

// fillDraft copies everything, makes it durable and reads it as the next start would.
func (c *Catalog) fillDraft(ctx context.Context, d *draft, progress Progress) (report CompactReport, err error) {
	defer containDamage(&err)()
	if err := c.step("copy"); err != nil {
		return report, err
	}
	if info, err := os.Stat(c.path); err == nil {
		report.Before = info.Size()
	}
	err = c.view(func(tx *bbolt.Tx) error {
		return copyBuckets(ctx, d.db, tx, progress)
	})
	if err != nil {
		return report, err
	}
	if err := c.step("sync"); err != nil {
		return report, err
	}
	if err := d.db.Sync(); err != nil {
		return report, err
	}
	d.db.NoSync = false
	return report, inspectFile(ctx, d.path)
}

func copyBuckets(ctx context.Context, to *bbolt.DB, from *bbolt.Tx, progress Progress) error {
	names := [][]byte{bucketMeta, bucketStates, bucketBearers, bucketNames}
	w := &draftWriter{to: to, count: counter{ctx: ctx, progress: progress}}
	for _, name := range names {
		w.count.total += int64(from.Bucket(name).Inspect().KeyN)
	}
	for _, name := range names {
		if err := w.copyBucket(name, from.Bucket(name)); err != nil {
			return err
		}
	}
	return nil
}

// draftWriter copies in the order of the keys, many of them in one transaction.
type draftWriter struct {
	to    *bbolt.DB
	count counter
}

func (w *draftWriter) copyBucket(name []byte, from *bbolt.Bucket) error {
	cursor := from.Cursor()
	key, value := cursor.First()
	for first := true; first || key != nil; first = false {
		err := w.to.Update(func(tx *bbolt.Tx) error {
			into, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			into.FillPercent = draftFill
			for n := 0; key != nil && n < keysPerDraftTx; n++ {
				if err := w.count.advance(); err != nil {
					return err
				}
				if err := into.Put(key, value); err != nil {
					return err
				}
				key, value = cursor.Next()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// touchedKeys are the keys that were written or deleted, by bucket. A nil one notes nothing.
type touchedKeys map[string]map[string]struct{}

func (t touchedKeys) note(bucket, key []byte) {
	if t == nil {
		return
	}
	keys := t[string(bucket)]
	if keys == nil {
		keys = map[string]struct{}{}
		t[string(bucket)] = keys
	}
	keys[string(key)] = struct{}{}
}

// table is a bucket whose changes are noted while somebody copies it.
type table struct {
	*bbolt.Bucket
	name    []byte
	touched touchedKeys
}

func newTable(tx *bbolt.Tx, name []byte, touched touchedKeys) table {
	return table{tx.Bucket(name), name, touched}
}

// Put is that of the bucket, noted.
func (t table) Put(key, value []byte) error {
	t.touched.note(t.name, key)
	return t.Bucket.Put(key, value)
}

// Delete is that of the bucket, noted.
func (t table) Delete(key []byte) error {
	t.touched.note(t.name, key)
	return t.Bucket.Delete(key)
}

// What follows runs in the writer's turn.

func (w *writer) startNoting(into touchedKeys) error {
	if w.touched != nil {
		return ErrCompacting
	}
	if w.doubtful != nil { // its keys would not be among them
		if err := w.settle(); err != nil {
			return err
		}
	}
	w.touched = into
	return nil
}

func (w *writer) stopNoting(ctx context.Context) {
	// It fails only when the writer has ended, which notes nothing more.
	_ = w.inTurn(ctx, func() error { w.touched = nil; return nil })
}

// takeDraft brings the draft up to date and makes it the catalog's file.
func (w *writer) takeDraft(ctx context.Context, d *draft, touched touchedKeys) (err error) {
	defer containDamage(&err)()
	c := w.catalog
	if err := c.checkWritable(ctx); err != nil {
		return err
	}
	if w.doubtful != nil {
		if err := w.settle(); err != nil {
			return err
		}
	}
	if err := c.step("catch up"); err != nil {
		return err
	}
	if err := c.view(func(tx *bbolt.Tx) error { return catchUp(d.db, tx, touched) }); err != nil {
		return err
	}
	if err := c.sameRevision(d.file); err != nil {
		return err
	}
	if err := c.step("rename"); err != nil {
		return err
	}
	if err := os.Rename(d.path, c.path); err != nil {
		return err
	}
	d.unplaced, d.db.AllocSize = true, allocSize
	old := c.file.Swap(d.file)
	old.retire()
	_ = c.place(d.file) // else before the next commit, which fails with what this did
	return nil
}

// catchUp copies the keys that changed while the draft was filled.
func catchUp(to *bbolt.DB, from *bbolt.Tx, touched touchedKeys) error {
	return to.Update(func(tx *bbolt.Tx) error {
		// All of meta: who claims the environment notes nothing.
		err := from.Bucket(bucketMeta).ForEach(func(key, value []byte) error { return tx.Bucket(bucketMeta).Put(key, value) })
		if err != nil {
			return err
		}
		for bucket, keys := range touched {
			source, into := from.Bucket([]byte(bucket)), tx.Bucket([]byte(bucket))
			for key := range keys {
				var err error
				if value := source.Get([]byte(key)); value == nil {
					err = into.Delete([]byte(key))
				} else {
					err = into.Put([]byte(key), value)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// place makes the rename durable that put the file where it is. Until then a power cut could
// bring the old one back, so that nothing may be acknowledged.
func (c *Catalog) place(f *file) error {
	if !f.unplaced {
		return nil
	}
	if err := c.step("sync directory"); err != nil {
		return err
	}
	if err := syncDirectory(filepath.Dir(c.path)); err != nil {
		return err
	}
	f.unplaced = false
	return nil
}

func (c *Catalog) step(name string) error {
	if c.hooks.step == nil {
		return nil
	}
	return c.hooks.step(name)
}
