package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// memoryShare of the container's limit is the runtime's; beyond it the collector works
	// harder. The rest is for the pages of the catalog's file.
	memoryShare = 0.8
	// reserveMost and reserveShare bound the reserve, in bytes and as a part of the limit.
	reserveMost  = 32 << 20
	reserveShare = 6
	// releaseEvery is how often an idle process is looked for, and idleBytes what one
	// allocates meanwhile at most; releaseLeast is less memory than is worth releasing.
	releaseEvery = 30 * time.Second
	idleBytes    = 4 << 20
	releaseLeast = 4 << 20
)

// reserve is memory that is never touched, so that it is address space and nothing else. It
// counts as living, and the collector lets garbage grow to GOGC percent of what lives: a
// question leaves garbage and hardly anything that lives, so that without a reserve the
// collector would run all the time. docs/decisions/0008 has the figures.
type reserve []byte

// tuneRuntime sets the runtime's memory limit from the container's, unless GOMEMLIMIT is
// set, and returns the reserve, which is to be kept until the end.
func tuneRuntime() (reserve, error) {
	// Does nothing without a limit, and nothing where GOMEMLIMIT is set.
	_, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	if err != nil {
		err = fmt.Errorf("reading the memory limit of the container: %w", err)
	}
	return make(reserve, min(reserveMost, debug.SetMemoryLimit(-1)/reserveShare)), err
}

// releaseWhenIdle gives garbage and free memory back to the system when nothing much
// happens, until ctx ends: a sidecar at rest should take what it needs and no more.
func releaseWhenIdle(ctx context.Context) {
	ticker := time.NewTicker(releaseEvery)
	defer ticker.Stop()
	for r := (releaser{then: readMemory()}); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if r.due(readMemory()) {
			debug.FreeOSMemory()
			r.then = readMemory() // which allocates a little
		}
	}
}

// releaser judges when memory should be given back: once for each time of rest.
type releaser struct {
	then     memory // at the last look
	released bool   // since something happened
}

func (r *releaser) due(now memory) bool {
	idle := now.allocated-r.then.allocated < idleBytes
	r.then = now
	if !idle {
		r.released = false
		return false
	}
	due := !r.released && now.garbage+now.free > releaseLeast
	r.released = r.released || due
	return due
}

// memory is what the runtime says of its memory, in bytes.
type memory struct {
	allocated uint64 // ever
	garbage   uint64 // may be in it: what was allocated since the last collection
	free      uint64 // and not given back
}

func readMemory() memory {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(samples)
	n := func(i int) uint64 { return samples[i].Value.Uint64() }
	return memory{allocated: n(0), garbage: n(1) - min(n(1), n(2)), free: n(3) + n(4)}
}

// keep ends the life of the reserve, and no sooner.
func (r reserve) keep() { runtime.KeepAlive(r) }
