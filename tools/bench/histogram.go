package main

import (
	"math/bits"
	"time"
)

// Buckets of a histogram: linear up to 128 ns, then 64 for each power of two, so that a
// value is known to 1.6 %. The last one takes everything from about 18 minutes.
const (
	subBits = 6
	octaves = 34
	buckets = (octaves + 1) << subBits
)

// histogram counts durations without allocating.
type histogram struct {
	counts [buckets]uint64
	total  uint64
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	octave := max(bits.Len64(v)-1-subBits, 0)
	return min(octave<<subBits+int(v>>octave), buckets-1)
}

// upperEdge returns the largest duration that falls into bucket i.
func upperEdge(i int) time.Duration {
	octave := max(i>>subBits-1, 0)
	return time.Duration((uint64(i-octave<<subBits)+1)<<octave - 1)
}

// add counts d.
func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.total++
}

// merge adds what other counted.
func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// percentile returns a duration that p percent of the values don't exceed; 0 when nothing
// was counted.
func (h *histogram) percentile(p float64) time.Duration {
	rank := max(uint64(p/100*float64(h.total)+0.5), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return upperEdge(i)
		}
	}
	return 0
}
