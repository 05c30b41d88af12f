package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	lake "github.com/postern-authz/postern/sidecar/catalog"
)

const (
	lruPermissions = 200_000
	lruCapacity    = 10_000
	lruQuestions   = 150_000 // of a Zipf trace; half of them come before what interrupts it
	lruAfterScan   = 20_000  // questions behind the scan that are told for themselves
	lruRounds      = 3       // at most
)

// lookupTrace is a sequence of names to look up. Those of Zipf's law are counted, the
// others only asked.
type lookupTrace struct {
	name    string
	names   []string
	counted func(i int) bool
	readers int // goroutines, each with a part of the trace
}

// readThrough is what a front did on a trace.
type readThrough struct {
	hitRatio    float64 // of the counted lookups
	perLookup   float64 // ns, of all lookups, those in the catalog included
	cpu         float64 // the same in time on the cores, which a busy machine lengthens less
	allocations float64 // in each lookup
}

// frontKind is a way to make a front, with what was measured of it by trace.
type frontKind struct {
	name string
	make func(size int) (front, error)
	runs map[string][]readThrough
}

// comparison is the suite of caches in front of a catalog.
type comparison struct {
	document *lake.Document
	txn      storage.Transaction
	fronts   []*frontKind
	traces   []lookupTrace
	rounds   int
}

// runLRU compares the caches of golang-lru in front of Postern's catalog, in this process.
func runLRU(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	large := largeCatalog{live: lruPermissions, deleted: largeDeleted}
	fmt.Fprintln(progress, "lru: filling a catalog")
	if err := makeCatalog(ctx, f.path("data"), large.writeDump); err != nil {
		return told, err
	}
	// The catalog's own LRU holds one record: what a front doesn't have is read from the file.
	c, err := lake.Open(ctx, lake.Options{Dir: f.path("data"), LRUSize: 1, ReadOnly: true})
	if err != nil {
		return told, fmt.Errorf("opening the catalog: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	q := newComparison(c, large, min(o.rounds, lruRounds))
	if q.txn, err = q.document.NewTransaction(ctx); err != nil {
		return told, err
	}
	defer q.document.Abort(ctx, q.txn)
	if err := q.run(ctx, progress); err != nil {
		return told, err
	}
	return q.report(), nil
}

func newComparison(c *lake.Catalog, large largeCatalog, rounds int) *comparison {
	q := &comparison{document: c.Document(inmem.New()), rounds: rounds, traces: newLookupTraces(large, lruQuestions)}
	for _, kind := range []frontKind{
		{name: "LRU", make: newPlainLRU},
		{name: "2Q", make: newTwoQueues},
		{name: "2Q, our lock around its own", make: newLockedTwoQueues},
	} {
		kind.runs = map[string][]readThrough{}
		q.fronts = append(q.fronts, &kind)
	}
	return q
}

// newLookupTraces draws the same names by Zipf's law for each trace, and puts between them
// what it is about.
func newLookupTraces(large largeCatalog, length int) []lookupTrace {
	random := rand.New(rand.NewPCG(traceSeed, 4)) //nolint:gosec // the same trace each time
	zipf := rand.NewZipf(random, zipfS, 1, uint64(large.live-1))
	drawn := make([]string, length)
	for i := range drawn {
		drawn[i] = large.name(large.ranked(int(zipf.Uint64())))
	}
	half := length / 2
	scan := make([]string, 0, large.live)
	for i := range large.live {
		scan = append(scan, large.name(i))
	}
	scanned := append(append(append([]string{}, drawn[:half]...), scan...), drawn[half:]...)
	behind := half + len(scan)
	flooded := make([]string, 0, 2*length)
	for i, name := range drawn {
		flooded = append(flooded, name, fmt.Sprintf("unheard-of:%d", i))
	}
	second := func(i int) bool { return i >= half } // the first half warms up
	return []lookupTrace{
		{"Zipf", drawn, second, 1},
		{"Zipf, two readers", drawn, second, 2},
		{"Zipf behind a scan of all names", scanned, func(i int) bool { return i >= behind }, 1},
		{"the first questions behind the scan", scanned[:behind+min(lruAfterScan, length-half)], func(i int) bool { return i >= behind }, 1},
		{"Zipf, each second name unknown", flooded, func(i int) bool { return i >= length && i%2 == 0 }, 1},
	}
}

// run lets each front read each trace, by turns.
func (q *comparison) run(ctx context.Context, progress io.Writer) error {
	for round := range q.rounds {
		for _, t := range q.traces {
			for _, kind := range q.fronts {
				f, err := kind.make(lruCapacity)
				if err != nil {
					return fmt.Errorf("making %s: %w", kind.name, err)
				}
				r, err := q.read(ctx, f, t)
				if err != nil {
					return fmt.Errorf("reading through %s: %w", kind.name, err)
				}
				kind.runs[t.name] = append(kind.runs[t.name], r)
			}
		}
		fmt.Fprintf(progress, "lru: round %d of %d\n", round+1, q.rounds)
	}
	return nil
}

// read looks up the names of a trace, from as many goroutines as it has readers.
func (q *comparison) read(ctx context.Context, f front, t lookupTrace) (r readThrough, err error) {
	type part struct {
		hits, counted int
		err           error
	}
	parts := make(chan part, t.readers)
	runtime.GC() // of the front before
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpuBefore, err := ownCPUTime()
	if err != nil {
		return r, err
	}
	began := time.Now()
	for reader := range t.readers {
		go func() {
			var p part
			p.hits, p.counted, p.err = q.readPart(ctx, f, t, reader)
			parts <- p
		}()
	}
	var sum part
	for range t.readers {
		p := <-parts
		sum.hits, sum.counted, sum.err = sum.hits+p.hits, sum.counted+p.counted, errors.Join(sum.err, p.err)
	}
	took := time.Since(began)
	cpuAfter, err := ownCPUTime()
	runtime.ReadMemStats(&after)
	return readThrough{
		hitRatio:    float64(sum.hits) / float64(sum.counted),
		perLookup:   float64(took.Nanoseconds()) / float64(len(t.names)),
		cpu:         float64((cpuAfter - cpuBefore).Nanoseconds()) / float64(len(t.names)),
		allocations: float64(after.Mallocs-before.Mallocs) / float64(len(t.names)),
	}, errors.Join(sum.err, err)
}

// readPart reads each name of the trace whose number falls to the reader.
func (q *comparison) readPart(ctx context.Context, f front, t lookupTrace, reader int) (hits, counted int, err error) {
	path := storage.Path{lake.Root, "permissions", ""}
	for i := reader; i < len(t.names); i += t.readers {
		name := t.names[i]
		_, hit := f.get(name)
		if t.counted(i) {
			counted++
			if hit {
				hits++
			}
		}
		if hit {
			continue
		}
		path[2] = name
		value, err := q.document.Read(ctx, q.txn, path)
		switch {
		case storage.IsNotFound(err): // an unknown name isn't kept, as in Postern
		case err != nil:
			return hits, counted, err
		default:
			f.add(name, value)
		}
	}
	return hits, counted, nil
}
