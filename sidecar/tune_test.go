package main

import "testing"

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
