package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// loadsFrom states are too many for one transaction: bbolt splits a leaf when the transaction
// ends, so that one with many new keys takes quadratic time.
const loadsFrom = 10_000

// loadRepair applies a large repair: it writes a new file, in the order of its keys, and puts it in
// the old one's place. Questions and events go on meanwhile; events wait for the last step alone,
// which brings in what they changed since. The repair becomes visible as a whole.
func (c *Catalog) loadRepair(ctx context.Context, r Repair, progress Progress) (changed int, err error) {
	touched := touchedKeys{}
	if err := c.writer.inTurn(ctx, func() error { return c.writer.startNoting(touched) }); err != nil {
		return 0, err
	}
	defer c.writer.stopNoting(context.WithoutCancel(ctx))
	draft, err := c.newDraft()
	if err != nil {
		return 0, fmt.Errorf("loading the catalog: %w", err)
	}
	l := &loader{catalog: c, draft: draft, repair: r, step: &step{before: map[string]permission.State{}}}
	if err = l.fill(ctx, progress); err == nil {
		whole := context.WithoutCancel(ctx)
		err = c.writer.inTurn(whole, func() error { return l.take(whole, touched) })
	}
	if err != nil && !l.placed {
		err = errors.Join(err, draft.discard())
	}
	if err != nil {
		return 0, fmt.Errorf("loading the catalog: %w", err)
	}
	return l.changed, nil
}

// loader is a repair on its way into a file of its own.
type loader struct {
	catalog *Catalog
	draft   *draft
	repair  Repair
	step    *step // from the revision that is current when the file is taken
	bearers []bearer
	header  header
	roles   *roles
	changed int
	placed  bool // the draft is the catalog's file by now
}

// bearer is what the indexes need to know of a state.
type bearer struct {
	permission.State        // without description
	changed          bool   // by the repair
	old              string // the name that the id bore before, if that was another one
}

// fill writes the catalog's states and the repair's, makes them durable and reads them as
// the next start would.
func (l *loader) fill(ctx context.Context, progress Progress) (err error) {
	defer containDamage(&err)()
	c := l.catalog
	if err := c.step("copy"); err != nil {
		return err
	}
	states := slices.Clone(l.repair.States)
	slices.SortStableFunc(states, func(a, b permission.State) int { return strings.Compare(a.ID, b.ID) })
	if err := c.view(func(tx *bbolt.Tx) error { return l.copy(ctx, tx, states, progress) }); err != nil {
		return err
	}
	if err := c.step("sync"); err != nil {
		return err
	}
	if err := l.draft.db.Sync(); err != nil {
		return err
	}
	l.draft.db.NoSync = false
	return inspectFile(ctx, l.draft.path)
}

// copy writes everything, as of the revision that tx shows.
func (l *loader) copy(ctx context.Context, tx *bbolt.Tx, states []permission.State, progress Progress) error {
	first, _ := tx.Bucket(bucketNames).Cursor().First()
	l.step.wasEmpty = first == nil
	most := len(states) + tx.Bucket(bucketStates).Inspect().KeyN
	l.bearers = make([]bearer, 0, most)
	w := &keyWriter{to: l.draft.db, count: counter{ctx: ctx, total: 2 * int64(most), progress: progress}}
	if err := w.create(); err != nil {
		return err
	}
	defer w.giveUp()
	if err := l.copyStates(w, tx, states); err != nil {
		return err
	}
	if err := l.writeIndexes(w, tx); err != nil {
		return err
	}
	return l.copyMeta(w, tx)
}

// copyStates joins two lists of states in the order of their ids.
func (l *loader) copyStates(w *keyWriter, tx *bbolt.Tx, states []permission.State) error {
	put := func(s permission.State, b bearer) error {
		b.State, b.Description = s, ""
		l.bearers = append(l.bearers, b)
		id := []byte(s.ID)
		return w.put(bucketStates, id, seal(bucketStates, id, encodeState(s)))
	}
	// upTo takes the states of the repair below id; all of them where it is empty.
	upTo := func(id string) error {
		for len(states) > 0 && (id == "" || states[0].ID < id) {
			var s permission.State
			s, states = takeFirst(states)
			l.changed++
			if err := put(s, bearer{changed: true}); err != nil {
				return err
			}
		}
		return nil
	}
	err := tx.Bucket(bucketStates).ForEach(func(id, sealed []byte) error {
		old, err := openState(id, sealed)
		if err == nil {
			err = upTo(old.ID)
		}
		if err != nil {
			return err
		}
		if len(states) == 0 || states[0].ID != old.ID {
			return put(old, bearer{})
		}
		var s permission.State
		s, states = takeFirst(states)
		if s = permission.Merge(old, s); s == old {
			return put(old, bearer{})
		}
		l.changed++
		return put(s, bearer{changed: true, old: old.Name})
	})
	if err != nil {
		return err
	}
	return upTo("")
}

// takeFirst merges the first states, as far as they are of one id.
func takeFirst(states []permission.State) (first permission.State, rest []permission.State) {
	first, rest = states[0], states[1:]
	for len(rest) > 0 && rest[0].ID == first.ID {
		first, rest = permission.Merge(first, rest[0]), rest[1:]
	}
	return first, rest
}

// writeIndexes writes who bears each name and who decides for it, and notes for which names
// that changes.
func (l *loader) writeIndexes(w *keyWriter, tx *bbolt.Tx) error {
	slices.SortFunc(l.bearers, func(a, b bearer) int {
		if byName := strings.Compare(a.Name, b.Name); byName != 0 {
			return byName
		}
		return strings.Compare(a.ID, b.ID)
	})
	for i := range l.bearers {
		b := &l.bearers[i]
		if err := w.put(bucketBearers, bearerKey(b.Name, b.ID), nil); err != nil {
			return err
		}
		if b.changed && !l.step.wasEmpty {
			if err := l.noteBefore(tx, b.Name, b.old); err != nil {
				return err
			}
		}
	}
	for rest := l.bearers; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Name == rest[0].Name {
			n++
		}
		if err := l.writeDecider(w, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (l *loader) writeDecider(w *keyWriter, bearers []bearer) error {
	all := make([]permission.State, len(bearers))
	for i, b := range bearers {
		all[i] = b.State
	}
	decider := permission.Decides(all)
	if decider.Live() {
		l.header.count++
		l.header.digest = l.header.digest.Plus(decider.Content)
	}
	name := []byte(decider.Name)
	return w.put(bucketNames, name, seal(bucketNames, name, []byte(decider.ID)))
}

// noteBefore notes who decides for names before the repair.
func (l *loader) noteBefore(tx *bbolt.Tx, names ...string) error {
	for _, name := range names {
		if _, noted := l.step.before[name]; noted || name == "" {
			continue
		}
		s, _, err := readDecider(tx, []byte(name))
		if err != nil {
			return err
		}
		l.step.before[strings.Clone(name)] = s
	}
	return nil
}

// copyMeta writes what the file says of itself.
func (l *loader) copyMeta(w *keyWriter, tx *bbolt.Tx) error {
	id, head, err := readMeta(tx)
	if err != nil {
		return err
	}
	l.header.revision, l.header.complete, l.header.newest = head.revision+1, head.complete || l.repair.Complete, head.newest
	if l.header.newest.olderThan(l.repair.newest) {
		l.header.newest = l.repair.newest
	}
	for _, s := range l.repair.States {
		if key := keyOf(s); s.EventID != "" && l.header.newest.olderThan(key) {
			l.header.newest = key
		}
	}
	l.bearers = nil
	return w.update(func(to *bbolt.Tx) error {
		meta := to.Bucket(bucketMeta)
		if roles := tx.Bucket(bucketMeta).Get(keyRoles); roles != nil {
			if err := meta.Put(keyRoles, roles); err != nil {
				return err
			}
		}
		return errors.Join(meta.Put(keyFormat, []byte(formatVersion)), putIdentity(meta, id), putHeader(meta, l.header))
	})
}

// What follows runs in the writer's turn.

// take brings the draft up to date and makes it the catalog's file and its newest revision.
func (l *loader) take(ctx context.Context, touched touchedKeys) (err error) {
	defer containDamage(&err)()
	c := l.catalog
	if err := c.checkWritable(ctx); err != nil {
		return err
	}
	if c.writer.doubtful != nil {
		if err := c.writer.settle(); err != nil {
			return err
		}
	}
	if err := c.step("catch up"); err != nil {
		return err
	}
	if err := c.view(func(tx *bbolt.Tx) error { return l.catchUp(tx, touched) }); err != nil {
		return err
	}
	if err := c.step("rename"); err != nil {
		return err
	}
	current := c.current.Load()
	l.step.to = newSnapshot(c.identity.epoch, l.header, l.roles)
	current.next.Store(l.step) // before any reader can meet the new file
	if err := os.Rename(l.draft.path, c.path); err != nil {
		current.next.Store(nil)
		return err
	}
	l.placed = true
	l.draft.unplaced, l.draft.db.AllocSize = true, allocSize
	old := c.file.Swap(l.draft.file)
	old.retire()
	c.writer.reach(l.step)
	return c.place(l.draft.file) // visible all the same; the next commit tries again
}

// catchUp merges what events changed since the draft was filled, and the roles.
func (l *loader) catchUp(from *bbolt.Tx, touched touchedKeys) error {
	return l.draft.db.Update(func(tx *bbolt.Tx) error {
		now, err := readHeader(from.Bucket(bucketMeta))
		if err != nil {
			return err
		}
		t, err := newTransaction(tx, l.catalog.writer.events, nil)
		if err != nil {
			return err
		}
		if err := l.mergeTouched(t, from, touched); err != nil {
			return err
		}
		t.header.revision, t.header.complete = now.revision, t.header.complete || now.complete
		t.seen(now.newest)
		if l.roles, err = l.rolesNow(t); err != nil {
			return err
		}
		l.header = t.header
		l.header.revision++ // as finish does
		return errors.Join(putIdentity(tx.Bucket(bucketMeta), l.catalog.identity), t.finish())
	})
}

func (l *loader) mergeTouched(t *transaction, from *bbolt.Tx, touched touchedKeys) error {
	for _, id := range slices.Sorted(maps.Keys(touched[string(bucketStates)])) {
		s, found, err := readState(from.Bucket(bucketStates), []byte(id))
		if err != nil || !found {
			return errors.Join(err, errTouchedIsGone(found))
		}
		if _, err := t.apply(s); err != nil {
			return err
		}
	}
	// What decides for these names in the revision before isn't what did when they were noted.
	for _, bucket := range [...][]byte{bucketNames, bucketBearers} {
		for key := range touched[string(bucket)] {
			name, _, _ := strings.Cut(key, "\x00")
			s, _, err := readDecider(from, []byte(name))
			if err != nil {
				return err
			}
			l.step.before[name] = s
		}
	}
	return l.noteTouchedStates(from, touched)
}

// noteTouchedStates does the same for the names of states that changed in place.
func (l *loader) noteTouchedStates(from *bbolt.Tx, touched touchedKeys) error {
	for id := range touched[string(bucketStates)] {
		s, _, err := readState(from.Bucket(bucketStates), []byte(id))
		if err != nil {
			return err
		}
		decider, _, err := readDecider(from, []byte(s.Name))
		if err != nil {
			return err
		}
		l.step.before[s.Name] = decider
	}
	return nil
}

// rolesNow returns the roles of the coming revision: the repair's, else what the catalog has.
// The draft may hold them already, and the catalog others by now.
func (l *loader) rolesNow(t *transaction) (*roles, error) {
	list := l.repair.Roles
	if list == nil {
		list = l.catalog.current.Load().roles.list
	}
	if err := t.putRoles(list); err != nil {
		return nil, err
	}
	return readRoles(t.meta.Bucket)
}

// errTouchedIsGone: no state is ever removed.
func errTouchedIsGone(found bool) error {
	if found {
		return nil
	}
	return errors.New("a state is gone that was there")
}

// keyWriter writes in the order of the keys, many of them in one transaction.
type keyWriter struct {
	to    *bbolt.DB
	count counter
	tx    *bbolt.Tx // nil between two transactions
	keys  int       // in it
}

func (w *keyWriter) create() error {
	return w.to.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketStates, bucketBearers, bucketNames} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *keyWriter) put(bucket, key, value []byte) (err error) {
	if err := w.count.advance(); err != nil {
		return err
	}
	if w.tx == nil {
		if w.tx, err = w.to.Begin(true); err != nil {
			return err
		}
		w.keys = 0
	}
	into := w.tx.Bucket(bucket)
	into.FillPercent = draftFill
	if err := into.Put(key, value); err != nil {
		return err
	}
	if w.keys++; w.keys < keysPerDraftTx {
		return nil
	}
	return w.end()
}

// end commits what was put since the last transaction.
func (w *keyWriter) end() error {
	if w.tx == nil {
		return nil
	}
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

// giveUp ends a transaction that isn't to be committed, if there is one.
func (w *keyWriter) giveUp() {
	if w.tx != nil {
		_ = w.tx.Rollback()
	}
}

// update does something in a transaction of its own.
func (w *keyWriter) update(do func(*bbolt.Tx) error) error {
	if err := w.end(); err != nil {
		return err
	}
	return w.to.Update(do)
}
