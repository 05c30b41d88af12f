package scalekit

import "time"

// Backoff tells how long to wait after a failure: a random part of a window that doubles
// with each failure, so that many sidecars that failed together don't come back together
// ("full jitter", https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
// It isn't safe for concurrent use.
type Backoff struct {
	Base   time.Duration  // the window after the first failure
	Max    time.Duration  // the widest window
	Random func() float64 // returns a number in [0, 1)

	failures int // since the last Reset, counted no further than the window grows
}

// Next returns the wait after one more failure. It is never shorter than floor, what the
// server asked for with Retry-After or zero: the jitter comes on top.
func (b *Backoff) Next(floor time.Duration) time.Duration {
	window := b.Base
	for range b.failures {
		if window > b.Max-window {
			window = b.Max
			break
		}
		window *= 2
	}
	if window = min(window, b.Max); window < b.Max {
		b.failures++
	}
	return floor + time.Duration(b.Random()*float64(window))
}

// Reset begins anew, after a success.
func (b *Backoff) Reset() { b.failures = 0 }
