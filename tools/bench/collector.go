package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
)

// traceCollector has a server of Go write a line about each collection.
const traceCollector = "GODEBUG=gctrace=1"

// collections adds up what a server has allocated, out of the lines about its collections:
// the heap before each one less what the one before it had left. Each line is known to a
// mebibyte, so the sum of many is good to a few percent.
type collections struct {
	mu      sync.Mutex
	rest    []byte // of a line that hasn't ended
	left    int64
	bytes   int64
	number  int
	started bool
}

// Write reads the lines of a server's log; those that are no trace are skipped.
func (c *collections) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest = append(c.rest, p...)
	for {
		line, rest, ended := bytes.Cut(c.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		if before, after, ok := parseCollection(line); ok {
			if c.started {
				c.bytes += (before - c.left) << 20
				c.number++
			}
			c.left, c.started = after, true
		}
		c.rest = rest
	}
}

// reset begins anew with the next collection.
func (c *collections) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes, c.number, c.started = 0, 0, false
}

func (c *collections) sum() (allocated int64, number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.number
}

// parseCollection reads the sizes of a line such as
// "gc 7 @0.1s 2%: 0.01+1.2+0.003 ms clock, 0.02+0.5/1.1/0.2+0.006 ms cpu, 7->8->4 MB, 9 MB goal, …":
// the heap at the end of the collection before anything is freed, and what lives.
func parseCollection(line []byte) (before, after int64, ok bool) {
	if !bytes.HasPrefix(line, []byte("gc ")) {
		return 0, 0, false
	}
	for part := range bytes.SplitSeq(line, []byte(", ")) {
		sizes := bytes.Split(bytes.TrimSuffix(part, []byte(" MB")), []byte("->"))
		if len(sizes) != 3 {
			continue
		}
		before, beforeErr := strconv.ParseInt(string(sizes[1]), 10, 64)
		after, afterErr := strconv.ParseInt(string(sizes[2]), 10, 64)
		return before, after, beforeErr == nil && afterErr == nil
	}
	return 0, 0, false
}

// allocation is what a server allocates for a question, and how often it collects that.
type allocation struct {
	perQuestion          float64 // bytes
	questionsACollection float64
}

// measureAllocation asks a server that traces its collector for one leg.
func measureAllocation(ctx context.Context, s *server, t *target, o options) (allocation, error) {
	if _, err := t.drive(ctx, o.connections, o.legLength()/2); err != nil {
		return allocation{}, fmt.Errorf("settling %s: %w", s.name, err)
	}
	s.collections.reset()
	l, err := t.drive(ctx, o.connections, o.legLength())
	if err != nil {
		return allocation{}, fmt.Errorf("measuring what %s allocates: %w", s.name, err)
	}
	allocated, number := s.collections.sum()
	if number == 0 {
		return allocation{}, nil // a leg that is too short to tell
	}
	n := float64(l.latencies.total)
	return allocation{float64(allocated) / n, n / float64(number)}, nil
}

func (a allocation) text() string {
	if a.perQuestion == 0 {
		return "too few collections to tell"
	}
	return fmt.Sprintf("%.1f KiB for a question, a collection each %.0f questions", a.perQuestion/1024, a.questionsACollection)
}
