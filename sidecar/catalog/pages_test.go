package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// patient is a sound file that a test damages in one place at a time.
type patient struct {
	t     *testing.T
	path  string
	whole []byte
	pages *pageFile
}

func newPatient(t *testing.T, permissions int) *patient {
	t.Helper()
	p := &patient{t: t, path: filepath.Join(sampleCatalog(t, permissions), FileName)}
	var err error
	if p.whole, err = os.ReadFile(p.path); err != nil {
		t.Fatal(err)
	}
	if p.pages, err = openPages(p.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.pages.close() })
	if err := p.pages.readMetas(); err != nil {
		t.Fatal(err)
	}
	return p
}

// inspect says what the inspection finds with bytes in place of what stands at an offset.
func (p *patient) inspect(at int, bytes []byte) error {
	p.t.Helper()
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(bytes, int64(at)); err != nil {
		p.t.Fatal(err)
	}
	defer func() {
		if _, err := f.WriteAt(p.whole[at:at+len(bytes)], int64(at)); err != nil {
			p.t.Fatal(err)
		}
	}()
	return inspectFile(context.Background(), p.path)
}

// each calls do for the pages of a kind that are in use, with where they stand.
func (p *patient) each(flags uint16, do func(page, int)) {
	p.t.Helper()
	free := freePagesOf(p.t, p.path)
	for id := uint64(2); id < p.pages.pages; id++ {
		if free[id] {
			continue
		}
		found, err := p.pages.read(id, nil)
		if err == nil && found.flags == flags {
			do(found, int(id*p.pages.pageSize))
		}
	}
}

// A flipped bit in the head of a leaf's element would hide the element from bbolt, flags
// included, or show another one.
func TestInspectionFindsEachFlippedBitOfAnElementsHead(t *testing.T) {
	p := newPatient(t, 600)
	tried := 0
	p.each(flagLeaf, func(found page, start int) {
		for _, i := range []int{0, found.count / 2, found.count - 1} {
			sound, err := found.element(i)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range elementSize * 8 {
				at := pageHeadSize + i*elementSize + bit/8
				flipped := found
				flipped.bytes = append([]byte(nil), found.bytes...)
				flipped.bytes[at] ^= 1 << (bit % 8)
				if e, err := flipped.element(i); err == nil && e.flags == sound.flags && bytes.Equal(e.key, sound.key) && bytes.Equal(e.value, sound.value) {
					continue // the same bytes stand there, too
				}
				tried++
				if err := p.inspect(start+at, flipped.bytes[at:at+1]); err == nil {
					t.Errorf("page %d, element %d: bit %d was not noticed (%q: %x)", found.id, i, bit, sound.key, sound.value)
				}
			}
		}
	})
	if tried < 1000 {
		t.Errorf("only %d bits were tried", tried)
	}
}

// Keys out of their order, on a leaf or between a branch and what is below it, are there and
// can't be found.
func TestInspectionFindsKeysOutOfOrder(t *testing.T) {
	p := newPatient(t, 3000)
	p.each(flagLeaf, func(found page, start int) {
		if found.count < 2 {
			return
		}
		first := start + pageHeadSize
		heads := append([]byte(nil), p.whole[first:first+2*elementSize]...)
		swapped := append(append([]byte(nil), heads[elementSize:]...), heads[:elementSize]...)
		// A position counts from its element.
		for i, by := range []int{elementSize, -elementSize} {
			position := swapped[i*elementSize+4:]
			machineOrder.PutUint32(position, uint32(int(machineOrder.Uint32(position))+by))
		}
		if err := p.inspect(first, swapped); err == nil || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("page %d with two elements swapped: %v", found.id, err)
		}
	})
	branches := 0
	p.each(flagBranch, func(found page, start int) {
		branches++
		e, err := found.element(1)
		if err != nil {
			t.Fatal(err)
		}
		at := start + pageHeadSize + elementSize + int(machineOrder.Uint32(found.bytes[pageHeadSize+elementSize:])) + len(e.key) - 1
		// One less than the first key below it, and so not above the last key of the page before.
		lower := append([]byte(nil), e.key...)
		for i := range lower {
			lower[i] = 'a'
		}
		if err := p.inspect(at-len(e.key)+1, lower); err == nil || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("page %d with a key that is too low: %v", found.id, err)
		}
	})
	if branches == 0 {
		t.Error("the file has no branches")
	}
}

// bbolt writes to the pages of its free list.
func TestInspectionFindsAFreePageThatIsInUse(t *testing.T) {
	p := newPatient(t, 600)
	used := uint64(0)
	p.each(flagLeaf, func(found page, _ int) { used = found.id })
	list := int(p.pages.freelist * p.pages.pageSize)
	entry := make([]byte, 8)
	for name, id := range map[string]uint64{"in use": used, "behind the end": p.pages.pages, "a meta page": 1, "the list itself": p.pages.freelist} {
		machineOrder.PutUint64(entry, id)
		if err := p.inspect(list+pageHeadSize, entry); err == nil {
			t.Errorf("a free page that is %s was not noticed", name)
		}
	}
	// One page less in the list is a page that nobody knows of.
	count := make([]byte, 2)
	machineOrder.PutUint16(count, machineOrder.Uint16(p.whole[list+10:])-1)
	if err := p.inspect(list+10, count); err == nil || !strings.Contains(err.Error(), "neither in use nor free") {
		t.Errorf("a page that was lost: %v", err)
	}
}

func TestFreePages(t *testing.T) {
	list := func(count uint16, ids ...uint64) page {
		bytes := make([]byte, pageHeadSize)
		for _, id := range ids {
			bytes = machineOrder.AppendUint64(bytes, id)
		}
		return page{id: 3, flags: flagFreelist, count: int(count), bytes: bytes}
	}
	long := make([]uint64, 70_001)
	long[0] = 70_000
	for name, test := range map[string]struct {
		list page
		want int // -1: an error
	}{
		"none":                {list(0), 0},
		"two":                 {list(2, 4, 5), 2},
		"more than there are": {list(3, 4, 5), -1},
		"a long list":         {list(0xFFFF, long...), 70_000},
		"a long list, cut":    {list(0xFFFF, long[:60_000]...), -1},
		"a count that wraps":  {list(0xFFFF, ^uint64(0), 4), -1},
		"no list":             {page{flags: flagLeaf, bytes: make([]byte, 64)}, -1},
	} {
		ids, err := test.list.freePages()
		if (err != nil) != (test.want < 0) || err == nil && len(ids) != 8*test.want {
			t.Errorf("%s: got %d bytes, %v", name, len(ids), err)
		}
	}
}

func TestElementsWithinTheirPage(t *testing.T) {
	leaf := func(position, key, value uint32) page {
		bytes := make([]byte, 64)
		for i, n := range []uint32{0, position, key, value} {
			machineOrder.PutUint32(bytes[pageHeadSize+4*i:], n)
		}
		return page{flags: flagLeaf, count: 1, bytes: bytes}
	}
	if e, err := leaf(16, 8, 24).element(0); err != nil || len(e.key) != 8 || len(e.value) != 24 {
		t.Errorf("got %+v, %v", e, err)
	}
	for name, p := range map[string]page{
		"a value behind the end":    leaf(16, 8, 25),
		"a key behind the end":      leaf(48, 1, 0),
		"sizes that wrap":           leaf(16, 1<<31, 1<<31),
		"a position behind the end": leaf(1<<31, 0, 0),
	} {
		if e, err := p.element(0); err == nil {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	if _, err := leaf(16, 8, 24).element(3); err == nil {
		t.Error("an element behind the end was read")
	}
}

func TestBuckets(t *testing.T) {
	inline := func(flags uint16) []byte {
		value := make([]byte, bucketHeadSize+pageHeadSize)
		machineOrder.PutUint16(value[bucketHeadSize+8:], flags)
		return value
	}
	if b, err := newBucket(inline(flagLeaf)); err != nil || b.inline.count != 0 {
		t.Errorf("got %+v, %v", b, err)
	}
	atPage := binary.NativeEndian.AppendUint64(nil, 7)
	if b, err := newBucket(append(atPage, make([]byte, 8)...)); err != nil || b.root != 7 {
		t.Errorf("got %+v, %v", b, err)
	}
	for name, value := range map[string][]byte{
		"cut off": make([]byte, bucketHeadSize-1), "without a page": make([]byte, bucketHeadSize+pageHeadSize-1), "no leaf": inline(flagBranch),
	} {
		if b, err := newBucket(value); err == nil {
			t.Errorf("%s: got %+v", name, b)
		}
	}
}
