package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// The reserve counts for the collector, and is not there for anybody else.
func TestTheReserveTakesNoMemory(t *testing.T) {
	before := anonymousBytes(t)
	kept, err := tuneRuntime()
	if err != nil {
		t.Log(err) // a machine without cgroups
	}
	defer kept.keep()
	if len(kept) < 1<<20 {
		t.Errorf("the reserve has %d bytes", len(kept))
	}
	if grown := anonymousBytes(t) - before; grown > len(kept)/4 {
		t.Errorf("a reserve of %d bytes made the process larger by %d", len(kept), grown)
	}
}

func anonymousBytes(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no proc file system here")
	}
	found := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatal("the kernel doesn't tell RssAnon")
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// Memory is given back once nothing happens any more, once for each time of rest, and only
// if there is something to give.
func TestMemoryIsReleasedAtRest(t *testing.T) {
	const garbage = 2 * releaseLeast
	r := releaser{}
	for i, step := range []struct {
		now  memory
		want bool
	}{
		{memory{allocated: 100 << 20, garbage: garbage}, false},        // busy
		{memory{allocated: 101 << 20, garbage: garbage}, true},         // at rest
		{memory{allocated: 102 << 20, garbage: garbage}, false},        // still
		{memory{allocated: 200 << 20, garbage: garbage}, false},        // busy again
		{memory{allocated: 200 << 20, free: garbage}, true},            // at rest again
		{memory{allocated: 300 << 20}, false},                          // busy
		{memory{allocated: 300 << 20, garbage: releaseLeast}, false},   // nothing to give
		{memory{allocated: 300<<20 + idleBytes, free: garbage}, false}, // busy
		{memory{allocated: 300<<20 + idleBytes, free: garbage}, true},
	} {
		if got := r.due(step.now); got != step.want {
			t.Errorf("step %d: got %v", i, got)
		}
	}
}
