package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"os"
)

// What follows reads the pages of a bbolt file (format version 2, as go.etcd.io/bbolt's
// internal/common defines it) before bbolt does. bbolt trusts its file: a flipped bit in a
// page number or a length makes it panic, sometimes in a goroutine of its own, and one in
// its list of free pages makes it overwrite good ones. Here every number is checked before
// it is followed, and nothing is written.
//
// A page begins with u64 id │ u16 flags │ u16 count │ u32 overflow; so many pages belong to
// it. Integers have the byte order of the machine. Behind the head stand
//
//	meta      u32 magic │ u32 version │ u32 page size │ u32 flags │ u64 root │ u64 sequence │
//	          u64 free list │ u64 pages │ u64 transaction │ u64 FNV-1a of what stands before
//	branch    count × ( u32 position │ u32 key size │ u64 page )
//	leaf      count × ( u32 flags │ u32 position │ u32 key size │ u32 value size )
//	free list count × u64 page, or a u64 count first where the count is 65535
//
// A position counts from the element that bears it. The value of a leaf element with flag 1
// is a bucket: u64 root │ u64 sequence, and if root is 0 a leaf page behind it.
const (
	pageHeadSize   = 16
	elementSize    = 16
	bucketHeadSize = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	flagBucket = 0x01 // of a leaf element

	bboltMagic   = 0xED0CDAED
	bboltVersion = 2
	metaSize     = 56 // without its checksum
	noFreelist   = ^uint64(0)

	// deepestTree is more levels than a tree of 2^64 pages of two elements would have.
	deepestTree = 64
)

var (
	machineOrder = binary.NativeEndian
	errNoBbolt   = errors.New("it isn't a bbolt file")
)

// pageFile is a bbolt file, open for reading. Pages are read one by one and not mapped: a
// failing disk is an error then and no fault of the processor, and it takes less time.
type pageFile struct {
	file     *os.File
	size     int64
	pageSize uint64
	pages    uint64 // in use or free; all of them stand in the file
	root     uint64 // page of the bucket of buckets
	freelist uint64
}

func openPages(path string) (*pageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoBbolt
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &pageFile{file: f, size: info.Size()}, nil
}

func (p *pageFile) close() error { return p.file.Close() }

// readMetas reads both meta pages, of which the one with the greater transaction counts.
// bbolt makes do with one. But a crash can't tear the 64 bytes of a meta page, so that a
// damaged one may be the newer one, with events that were acknowledged.
func (p *pageFile) readMetas() error {
	first, err := p.readMeta(0)
	if err != nil {
		return err
	}
	p.pageSize = uint64(machineOrder.Uint32(first[8:]))
	if p.pageSize < 1<<10 || p.pageSize > 1<<16 || p.pageSize&(p.pageSize-1) != 0 {
		return fmt.Errorf("its page size is %d", p.pageSize)
	}
	newest, err := p.readMeta(p.pageSize)
	if err != nil {
		return err
	}
	if machineOrder.Uint64(first[48:]) > machineOrder.Uint64(newest[48:]) {
		newest = first
	}
	p.root, p.freelist, p.pages = machineOrder.Uint64(newest[16:]), machineOrder.Uint64(newest[32:]), machineOrder.Uint64(newest[40:])
	if p.pages > uint64(p.size)/p.pageSize {
		return fmt.Errorf("it was cut off: it has %d bytes and should have %d pages of %d", p.size, p.pages, p.pageSize)
	}
	return nil
}

func (p *pageFile) readMeta(at uint64) ([]byte, error) {
	meta := make([]byte, metaSize+8)
	if _, err := p.file.ReadAt(meta, int64(at+pageHeadSize)); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: it has only %d bytes", errNoBbolt, p.size)
	} else if err != nil {
		return nil, err
	}
	if at == 0 && machineOrder.Uint32(meta) != bboltMagic {
		return nil, errNoBbolt
	}
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaSize]) // never fails, by its documentation
	if machineOrder.Uint32(meta) != bboltMagic || machineOrder.Uint32(meta[4:]) != bboltVersion || machineOrder.Uint64(meta[metaSize:]) != sum.Sum64() {
		return nil, fmt.Errorf("the meta page at byte %d is damaged, and may be the newest", at)
	}
	return meta, nil
}

// page is one page with all that overflowed from it.
type page struct {
	id    uint64
	flags uint16
	count int
	bytes []byte // from its head on
	size  uint64 // in pages
}

func newPage(id uint64, head []byte) page {
	return page{
		id: id, flags: machineOrder.Uint16(head[8:]), count: int(machineOrder.Uint16(head[10:])),
		size: 1 + uint64(machineOrder.Uint32(head[12:])),
	}
}

// read reads page id into buffer, or into a larger one. The page is valid for as long as
// its buffer isn't used again.
func (p *pageFile) read(id uint64, buffer []byte) (page, error) {
	if id < 2 || id >= p.pages {
		return page{}, fmt.Errorf("page %d: there are %d", id, p.pages)
	}
	buffer = grown(buffer, p.pageSize)
	if _, err := p.file.ReadAt(buffer, int64(id*p.pageSize)); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	found := newPage(id, buffer)
	if stored := machineOrder.Uint64(buffer); stored != id {
		return page{}, fmt.Errorf("page %d: it says that it is %d", id, stored)
	}
	if found.size > p.pages-id {
		return page{}, fmt.Errorf("page %d: its end lies behind that of the file", id)
	}
	found.bytes = grown(buffer, found.size*p.pageSize)
	if rest := found.bytes[p.pageSize:]; len(rest) > 0 {
		if _, err := p.file.ReadAt(rest, int64((id+1)*p.pageSize)); err != nil {
			return page{}, fmt.Errorf("page %d: %w", id, err)
		}
	}
	return found, nil
}

// grown returns a buffer of that size which begins with what buffer holds.
func grown(buffer []byte, size uint64) []byte {
	if uint64(cap(buffer)) >= size {
		return buffer[:size]
	}
	return append(make([]byte, 0, size), buffer...)[:size]
}

// element is what a branch or a leaf page holds.
type element struct {
	flags      uint32 // of a leaf
	child      uint64 // of a branch
	key, value []byte
}

func (p page) element(i int) (e element, err error) {
	at := pageHeadSize + i*elementSize
	if at+elementSize > len(p.bytes) {
		return e, fmt.Errorf("page %d: element %d lies behind its end", p.id, i)
	}
	head := p.bytes[at : at+elementSize]
	var position, keySize, valueSize uint64
	if p.flags == flagBranch {
		position, keySize, e.child = uint64(machineOrder.Uint32(head)), uint64(machineOrder.Uint32(head[4:])), machineOrder.Uint64(head[8:])
	} else {
		e.flags, position = machineOrder.Uint32(head), uint64(machineOrder.Uint32(head[4:]))
		keySize, valueSize = uint64(machineOrder.Uint32(head[8:])), uint64(machineOrder.Uint32(head[12:]))
	}
	start := uint64(at) + position
	if start+keySize+valueSize > uint64(len(p.bytes)) {
		return e, fmt.Errorf("page %d: what element %d points to lies behind its end", p.id, i)
	}
	e.key, e.value = p.bytes[start:start+keySize], p.bytes[start+keySize:start+keySize+valueSize]
	return e, nil
}

// pageSet is a set of page numbers.
type pageSet []uint64

func newPageSet(pages uint64) pageSet { return make(pageSet, pages/64+1) }

// add reports false if id is in the set already.
func (s pageSet) add(id uint64) bool {
	bit := uint64(1) << (id % 64)
	fresh := s[id/64]&bit == 0
	s[id/64] |= bit
	return fresh
}

// unite adds all of other, which must have nothing in common with s.
func (s pageSet) unite(other pageSet) error {
	for i, word := range other {
		if s[i]&word != 0 {
			return fmt.Errorf("page %d: two pages lead to it", 64*i+bits.TrailingZeros64(s[i]&word))
		}
		s[i] |= word
	}
	return nil
}

// treeWalk visits the elements of trees in the order of their keys. What it hands to a
// visitor is valid until that returns.
type treeWalk struct {
	ctx     context.Context
	file    *pageFile
	reached pageSet
	buffers [deepestTree + 1][]byte // one for each level
}

// tree visits the leaf elements of the tree at page id. The keys, those of the branches
// included, must be in their order, or a search wouldn't find what stands there.
func (w *treeWalk) tree(id uint64, visit func(element) error) error {
	return w.subtree(id, nil, nil, deepestTree, visit)
}

// subtree visits keys from low to below high, where those aren't nil.
func (w *treeWalk) subtree(id uint64, low, high []byte, levels int, visit func(element) error) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	p, err := w.file.read(id, w.buffers[levels])
	if err != nil {
		return err
	}
	w.buffers[levels] = p.bytes
	for i := range p.size {
		if !w.reached.add(id + i) {
			return fmt.Errorf("page %d: two pages lead to it", id+i)
		}
	}
	switch {
	case p.flags == flagLeaf:
		return walkLeaf(p, low, high, visit)
	case p.flags == flagBranch && levels > 0:
		return w.branch(p, low, high, levels-1, visit)
	}
	return fmt.Errorf("page %d: it is no part of a tree (flags %#x)", id, p.flags)
}

func (w *treeWalk) branch(p page, low, high []byte, levels int, visit func(element) error) error {
	for i := range p.count {
		e, err := p.element(i)
		if err != nil {
			return err
		}
		if err := checkOrder(p, i, e.key, low, high); err != nil {
			return err
		}
		end := high
		if i+1 < p.count {
			next, err := p.element(i + 1)
			if err != nil {
				return err
			}
			end = next.key
		}
		if err := w.subtree(e.child, e.key, end, levels, visit); err != nil {
			return err
		}
		low = e.key
	}
	return nil
}

func walkLeaf(p page, low, high []byte, visit func(element) error) error {
	for i := range p.count {
		e, err := p.element(i)
		if err != nil {
			return err
		}
		if err := checkOrder(p, i, e.key, low, high); err != nil {
			return err
		}
		if err := visit(e); err != nil {
			return err
		}
		low = e.key
	}
	return nil
}

// checkOrder wants the first key of a page from low on, and each other one above low, which
// is the one before it.
func checkOrder(p page, i int, key, low, high []byte) error {
	order := bytes.Compare(low, key)
	if (low != nil && (order > 0 || order == 0 && i > 0)) || (high != nil && bytes.Compare(key, high) >= 0) {
		return fmt.Errorf("page %d: key %d is out of order", p.id, i)
	}
	return nil
}

// bucket is a tree of its own, at a page or, while it is small, within the value of the
// element that names it.
type bucket struct {
	root   uint64
	inline page // where root is 0
}

func newBucket(value []byte) (bucket, error) {
	if len(value) < bucketHeadSize {
		return bucket{}, errTruncated
	}
	b := bucket{root: machineOrder.Uint64(value)}
	if b.root != 0 && len(value) > bucketHeadSize {
		return bucket{}, errTrailing
	}
	if b.root != 0 {
		return b, nil
	}
	small := value[bucketHeadSize:]
	if len(small) < pageHeadSize {
		return bucket{}, errTruncated
	}
	b.inline = newPage(0, small)
	b.inline.bytes = bytes.Clone(small)
	if b.inline.flags != flagLeaf {
		return bucket{}, errors.New("a bucket within a page is no leaf")
	}
	return b, nil
}

// bucket visits the elements of b in the order of their keys. None of them is a bucket: bbolt
// would find no value where that flag was flipped.
func (w *treeWalk) bucket(b bucket, visit func(element) error) error {
	plain := func(e element) error {
		if e.flags != 0 {
			return fmt.Errorf("the entry %.64q isn't a plain one (flags %#x)", e.key, e.flags)
		}
		return visit(e)
	}
	if b.root == 0 {
		return walkLeaf(b.inline, nil, nil, plain)
	}
	return w.tree(b.root, plain)
}

// find returns a copy of the value of key in b; nil when there is none.
func (p *pageFile) find(b bucket, key []byte) ([]byte, error) {
	at := b.inline // a page is read over it only where there is none
	for levels := 0; levels <= deepestTree; levels++ {
		if b.root != 0 {
			var err error
			if at, err = p.read(b.root, at.bytes); err != nil {
				return nil, err
			}
		}
		e, found, err := at.search(key)
		if err != nil || !found {
			return nil, err
		}
		if at.flags != flagBranch {
			if !bytes.Equal(e.key, key) {
				return nil, nil
			}
			return e.value, nil
		}
		b.root = e.child
	}
	return nil, fmt.Errorf("page %d: the tree above it is too deep", b.root)
}

// search returns the last element whose key isn't above key.
func (p page) search(key []byte) (found element, ok bool, err error) {
	low, high := 0, p.count
	for low < high {
		middle := (low + high) / 2
		e, err := p.element(middle)
		if err != nil {
			return element{}, false, err
		}
		if bytes.Compare(e.key, key) > 0 {
			high = middle
			continue
		}
		found, ok, low = e, true, middle+1
	}
	return found, ok, nil
}

// checkFreePages wants each page to be reached by a tree or to be free, and none to be both:
// bbolt writes to free ones.
func (p *pageFile) checkFreePages(reached pageSet) error {
	if p.freelist == noFreelist {
		return errors.New("it doesn't say which of its pages are free")
	}
	list, err := p.read(p.freelist, nil)
	if err != nil {
		return err
	}
	for i := range list.size {
		if !reached.add(list.id + i) {
			return fmt.Errorf("page %d: it is in use and a part of the list of free pages", list.id+i)
		}
	}
	free, err := list.freePages()
	if err != nil {
		return err
	}
	for ; len(free) > 0; free = free[8:] {
		id := machineOrder.Uint64(free)
		if id < 2 || id >= p.pages || !reached.add(id) {
			return fmt.Errorf("page %d: it is free, and in use or listed twice or not there", id)
		}
	}
	for id := uint64(2); id < p.pages; id++ {
		if reached.add(id) {
			return fmt.Errorf("page %d: it is neither in use nor free", id)
		}
	}
	return nil
}

// freePages returns the numbers in a free list, eight bytes each.
func (p page) freePages() ([]byte, error) {
	if p.flags != flagFreelist {
		return nil, fmt.Errorf("page %d: it is no list of free pages (flags %#x)", p.id, p.flags)
	}
	count, from := uint64(p.count), uint64(pageHeadSize)
	if count == 0xFFFF {
		count, from = machineOrder.Uint64(p.bytes[from:]), from+8
	}
	if count > (uint64(len(p.bytes))-from)/8 {
		return nil, fmt.Errorf("page %d: the list of free pages goes on behind its end", p.id)
	}
	return p.bytes[from : from+8*count], nil
}
