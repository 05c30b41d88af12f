package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"

	"github.com/postern-authz/postern/sidecar/permission"
)

// inspection reads a whole file before anything is written to it: each page, each seal, and
// whether the indexes, the count and the digest agree with the states. A flipped bit in a
// key would make a deleted permission look like one never seen, and one in the list of free
// pages would have good records overwritten.
//
// Where two buckets must say the same, it doesn't look one up in the other, which would take
// seconds for a million permissions. It adds up a hash of each fact on either side and
// compares the sums. The hash is keyed anew each time, so that no two facts cancel out in
// each of two runs.
type inspection struct {
	file    *pageFile
	header  header
	buckets map[string]bucket
	seed    maphash.Seed
}

// inspectFile returns an error, which says what is wrong, unless the catalog at path can be
// written to.
func inspectFile(ctx context.Context, path string) (err error) {
	file, err := openPages(path)
	if err == nil {
		err = errors.Join(inspectPages(ctx, file), file.close())
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return unusable(path, err)
}

func inspectPages(ctx context.Context, file *pageFile) (err error) {
	defer containDamage(&err)()
	if err := file.readMetas(); err != nil {
		return err
	}
	in := &inspection{file: file, buckets: map[string]bucket{}, seed: maphash.MakeSeed()}
	roots := &treeWalk{ctx: ctx, file: file, reached: newPageSet(file.pages)}
	if err := roots.tree(file.root, in.addBucket); err != nil {
		return err
	}
	if err := in.readMeta(roots); err != nil {
		return err
	}
	// The states are about as much work as both indexes, so that two processors share it.
	states := make(chan stateSums, 1)
	go func() { states <- in.sumStates(ctx) }()
	index := in.sumIndexes(ctx)
	sums := <-states
	if err := errors.Join(sums.err, index.err); err != nil {
		return err
	}
	if err := in.compare(sums, index); err != nil {
		return err
	}
	for _, other := range []pageSet{sums.reached, index.reached} {
		if err := roots.reached.unite(other); err != nil {
			return err
		}
	}
	return file.checkFreePages(roots.reached)
}

func (in *inspection) addBucket(e element) error {
	if e.flags != flagBucket {
		return errNoCatalog
	}
	b, err := newBucket(e.value)
	in.buckets[string(e.key)] = b
	return err
}

// readMeta reads the format first: what else stands in the file depends on it.
func (in *inspection) readMeta(roots *treeWalk) error {
	values := map[string][]byte{}
	if meta, found := in.buckets[string(bucketMeta)]; found {
		if err := roots.bucket(meta, func(e element) error { values[string(e.key)] = bytes.Clone(e.value); return nil }); err != nil {
			return err
		}
	}
	if err := checkFormat(values[string(keyFormat)], func(name []byte) bool { _, found := in.buckets[string(name)]; return found }); err != nil {
		return err
	}
	if len(in.buckets) != 4 {
		return fmt.Errorf("it has %d buckets and should have 4", len(in.buckets))
	}
	if _, err := openIdentity(values[string(keyIdentity)]); err != nil {
		return err
	}
	if _, err := openRoles(values[string(keyRoles)]); err != nil {
		return err
	}
	var err error
	in.header, err = openHeader(values[string(keyHeader)])
	return err
}

// stateSums is what the states add up to.
type stateSums struct {
	reached pageSet
	states  uint64
	bearers uint64 // sum of the hashes of the keys that the index should have
	live    uint64
	digest  wideSum // of the contents of all that live, whether they decide for their name or not
	err     error
}

func (in *inspection) sumStates(ctx context.Context) (sums stateSums) {
	defer containDamage(&sums.err)()
	walk := &treeWalk{ctx: ctx, file: in.file, reached: newPageSet(in.file.pages)}
	key := make([]byte, 0, permission.MaxName+1+permission.MaxID)
	err := walk.bucket(in.buckets[string(bucketStates)], func(e element) error {
		s, err := glanceAtState(e.key, e.value)
		if err != nil {
			return err
		}
		if s.hasEvent && s.occurredAt >= in.header.newest.occurredAt {
			if err := in.checkNewest(e.key, e.value); err != nil {
				return err
			}
		}
		sums.states++
		key = append(append(append(key[:0], s.name...), 0), e.key...)
		sums.bearers += maphash.Bytes(in.seed, key)
		if s.live {
			sums.live++
			sums.digest.add(s.content)
		}
		return nil
	})
	sums.reached = walk.reached
	sums.err = errors.Join(sums.err, err)
	return sums
}

// checkNewest is asked of few states.
func (in *inspection) checkNewest(id, sealed []byte) error {
	s, err := openState(id, sealed)
	if err == nil && in.header.newest.olderThan(keyOf(s)) {
		err = fmt.Errorf("permission %.64q: its event is newer than the newest", id)
	}
	return err
}

// indexSums is what the indexes add up to.
type indexSums struct {
	reached  pageSet
	bearers  uint64 // keys
	keys     uint64 // sum of their hashes
	names    uint64
	deciders uint64  // sum of the hashes of who should decide for each name, by the bearers
	decided  uint64  // the same by the names themselves
	idle     uint64  // live states that don't decide for the name they bear
	surplus  wideSum // of their contents
	err      error
}

func (in *inspection) sumIndexes(ctx context.Context) (sums indexSums) {
	defer containDamage(&sums.err)()
	walk := &treeWalk{ctx: ctx, file: in.file, reached: newPageSet(in.file.pages)}
	bearers := &bearerGroups{in: in, sums: &sums}
	err := walk.bucket(in.buckets[string(bucketBearers)], bearers.visit)
	if err == nil {
		err = bearers.endGroup()
	}
	names := bearers.groups
	key := make([]byte, 0, permission.MaxName+1+permission.MaxID)
	if err == nil {
		err = walk.bucket(in.buckets[string(bucketNames)], func(e element) error {
			id, err := unseal(bucketNames, e.key, e.value)
			if err != nil {
				return fmt.Errorf("reading which permission %.64q is: %w", e.key, err)
			}
			sums.names++
			key = append(append(append(key[:0], e.key...), 0), id...)
			sums.decided += maphash.Bytes(in.seed, key)
			return nil
		})
	}
	if err == nil && (names != sums.names || sums.decided != sums.deciders) {
		err = errors.New("who decides for a name isn't who should")
	}
	sums.reached = walk.reached
	sums.err = errors.Join(sums.err, err)
	return sums
}

// bearerGroups takes the bearers of one name together, which follow each other.
type bearerGroups struct {
	in     *inspection
	sums   *indexSums
	first  []byte   // key of the group's first bearer, nil before the first group
	name   int      // length of its name
	more   [][]byte // ids of the others, which few names have
	groups uint64
}

func (g *bearerGroups) visit(e element) error {
	end := bytes.IndexByte(e.key, 0)
	if end < 0 || len(e.value) > 0 {
		return fmt.Errorf("the index of names has the entry %.64q", e.key)
	}
	g.sums.bearers++
	g.sums.keys += maphash.Bytes(g.in.seed, e.key)
	if g.first != nil && end == g.name && bytes.Equal(e.key[:end], g.first[:end]) {
		g.more = append(g.more, bytes.Clone(e.key[end+1:]))
		return nil
	}
	err := g.endGroup()
	g.first, g.name = append(g.first[:0], e.key...), end
	return err
}

// endGroup settles who should decide for the name of the group.
func (g *bearerGroups) endGroup() error {
	if g.first == nil {
		return nil
	}
	g.groups++
	if len(g.more) == 0 {
		g.sums.deciders += maphash.Bytes(g.in.seed, g.first)
		return nil
	}
	var all []permission.State
	for _, id := range append(g.more, g.first[g.name+1:]) {
		sealed, err := g.in.file.find(g.in.buckets[string(bucketStates)], id)
		if err != nil {
			return err
		}
		s, err := openState(id, sealed)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	decider := permission.Decides(all)
	g.sums.deciders += maphash.Bytes(g.in.seed, bearerKey(string(g.first[:g.name]), decider.ID))
	for _, s := range all {
		if s.Live() && s.ID != decider.ID {
			g.sums.idle++
			g.sums.surplus.add(s.Content[:])
		}
	}
	g.more = g.more[:0]
	return nil
}

// compare holds the states against the indexes and the header.
func (in *inspection) compare(states stateSums, index indexSums) error {
	if states.states != index.bearers || states.bearers != index.keys {
		return errors.New("the index of names doesn't lead to what the permissions are called")
	}
	if count := states.live - index.idle; count != in.header.count {
		return fmt.Errorf("the header counts %d live permissions and there are %d", in.header.count, count)
	}
	if digest := states.digest.digest().Minus(index.surplus.digest()); digest != in.header.digest {
		return fmt.Errorf("the header's digest is %s and that of the live permissions %s", in.header.digest, digest)
	}
	return nil
}

// glance is what an inspection needs to know of a state.
type glance struct {
	name, content  []byte
	live, hasEvent bool
	occurredAt     permission.Instant
}

// glanceAtState takes a sealed state apart in place. The seal says that its parts are what
// was once checked and written, so they aren't checked again.
func glanceAtState(id, sealed []byte) (g glance, err error) {
	payload, err := unseal(bucketStates, id, sealed)
	if err != nil {
		return g, fmt.Errorf("reading the state of permission %.64q: %w", id, err)
	}
	d := decoder{rest: payload}
	s := permission.State{Kind: permission.Kind(d.byte())}
	d.take(1) // source
	s.OccurredAt = d.instant()
	d.take(8) // created_at
	g.content = d.take(uint64(len(permission.Digest{})))
	g.name = d.bytes()
	g.hasEvent = len(d.bytes()) > 0
	d.bytes() // description
	s.Marks = d.marks()
	g.live, g.occurredAt = s.Live(), s.OccurredAt
	return g, d.end()
}

// wideSum adds up digests in whole words; [permission.Digest.Plus] goes byte by byte.
type wideSum [4]uint64

func (w *wideSum) add(digest []byte) {
	var carry uint64
	for i := len(w) - 1; i >= 0; i-- {
		w[i], carry = bits.Add64(w[i], binary.BigEndian.Uint64(digest[8*i:]), carry)
	}
}

func (w *wideSum) digest() (d permission.Digest) {
	for i, word := range w {
		binary.BigEndian.PutUint64(d[8*i:], word)
	}
	return d
}
