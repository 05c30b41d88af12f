package webhook

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	skewSamples = 16               // verified deliveries that an estimate rests on, at most
	skewMemory  = time.Hour        // and no longer ago than this
	skewAlarm   = 30 * time.Second // worth a warning: at tolerance every delivery is refused
	stepAlarm   = 2 * time.Second  // less may be the adjustment of a healthy clock
)

// clock watches this machine's clock. It tells, and decides nothing: deliveries are judged
// by the window alone, and events are ordered by occurred_at alone.
//
// Two things are compared. The timestamp of a verified delivery is the sender's time in
// whole seconds, so a delivery of a right clock is late by up to a second and its way. And
// the wall clock is compared with the monotonic one, which nobody sets (it is slewed like
// the wall clock, so the two only part in a step, or while the machine sleeps).
type clock struct {
	began time.Time // the monotonic clock is read as the time since

	mu      sync.Mutex // guards all that follows
	newest  moment
	samples []skewSample // oldest first
	last    time.Duration
	alarmed bool // the estimate was beyond skewAlarm when it was last made
	step    step
	outside outsiders
}

// moment is one reading of both clocks.
type moment struct {
	wall      time.Time
	monotonic time.Duration
}

// skewSample is what one verified delivery says.
type skewSample struct {
	delivery string // id and timestamp: a delivery that somebody repeats says nothing new
	at       time.Duration
	skew     time.Duration // this machine's time minus the sender's
}

// step is the newest jump of the wall clock; at is zero before the first.
type step struct {
	by time.Duration
	at time.Time
}

// outsiders are deliveries whose claim was outside of the window. Anybody can send one.
type outsiders struct {
	count int
	by    int64 // seconds of the newest one, this machine's time minus the claimed
	at    time.Time
	since time.Duration // the same by the monotonic clock
}

// newClock returns a clock that begins at now, which carries a monotonic reading if the
// monotonic clock is to be compared.
func newClock(now time.Time) *clock {
	c := &clock{began: now}
	c.newest = c.moment(now)
	return c
}

func (c *clock) moment(now time.Time) moment { return moment{now.Round(0), now.Sub(c.began)} }

// look compares the clocks with each other, and returns the step that was found, or zero.
// What was compared with the wall clock before a step says nothing of the one after it.
func (c *clock) look(m moment) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := m.monotonic - c.newest.monotonic
	if passed < 0 {
		return 0 // another delivery was faster
	}
	by := m.wall.Sub(c.newest.wall) - passed
	c.newest = m
	if by.Abs() <= stepAlarm {
		return 0
	}
	c.step = step{by, m.wall}
	c.samples, c.alarmed = nil, false
	return by
}

// verified takes in a delivery that was signed with a live secret. It returns the estimated
// skew, and whether that went beyond skewAlarm with this delivery.
func (c *clock) verified(id, timestamp string, m moment) (skew time.Duration, alarm bool) {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return 0, false // checkTimestamp took it, so this doesn't happen
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delivery := id + "." + timestamp
	if slices.ContainsFunc(c.samples, func(s skewSample) bool { return s.delivery == delivery }) {
		return 0, false
	}
	c.last = m.wall.Sub(time.Unix(seconds, 0))
	c.samples = append(c.samples, skewSample{delivery, m.monotonic, c.last})
	if len(c.samples) > skewSamples {
		c.samples = c.samples[1:]
	}
	skew, _ = c.estimate(m)
	before := c.alarmed
	c.alarmed = skew.Abs() >= skewAlarm
	return skew, c.alarmed && !before
}

// estimate forgets what is too old and returns the median of the rest, and how many
// deliveries that is. Of two middle ones it is the lesser: what is late on its way makes a
// delivery look late, and nothing makes it look early.
func (c *clock) estimate(m moment) (skew time.Duration, deliveries int) {
	c.samples = slices.DeleteFunc(c.samples, func(s skewSample) bool { return m.monotonic-s.at > skewMemory })
	if len(c.samples) == 0 {
		return 0, 0
	}
	skews := make([]time.Duration, 0, skewSamples)
	for _, s := range c.samples {
		skews = append(skews, s.skew)
	}
	slices.Sort(skews)
	return skews[(len(skews)-1)/2], len(skews)
}

// refused takes in a delivery that claimed a time outside of the window.
func (c *clock) refused(timestamp string, m moment) {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return // checkTimestamp took it, so this doesn't happen
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outside = outsiders{c.outside.count + 1, m.wall.Unix() - seconds, m.wall, m.monotonic}
}

// skewAt returns the estimate as of a moment, and false when there is none.
func (c *clock) skewAt(m moment) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	skew, deliveries := c.estimate(m)
	return skew, deliveries > 0
}

// tell says in one line what is known, for an operator.
func (c *clock) tell(m moment) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := []string{c.tellSkew(m)}
	if !c.step.at.IsZero() {
		parts = append(parts, fmt.Sprintf("it jumped by %s at %s, or the machine slept", inSeconds(c.step.by), utc(c.step.at)))
	}
	if c.outside.count > 0 && m.monotonic-c.outside.since <= skewMemory {
		told := fmt.Sprintf("%d of the deliveries since %s were outside of the window of %d s, the last by %+d s at %s, unverified",
			c.outside.count, utc(c.began), tolerance/time.Second, c.outside.by, utc(c.outside.at))
		// Anybody can send one: beside verified deliveries that find the clock right they say nothing.
		if skew, deliveries := c.estimate(m); deliveries == 0 || skew.Abs() >= skewAlarm {
			told += ": check this machine's clock"
		}
		parts = append(parts, told)
	}
	return strings.Join(parts, "; ")
}

func (c *clock) tellSkew(m moment) string {
	skew, deliveries := c.estimate(m)
	if deliveries == 0 {
		return "no verified delivery in the last hour to compare it with"
	}
	ground := fmt.Sprintf("%s from the webhooks' timestamps (median of %d in the last hour, the last one %s)", inSeconds(skew), deliveries, inSeconds(c.last))
	if skew.Abs() < skewAlarm {
		return ground
	}
	return fmt.Sprintf("WRONG by %s: from %d s on every webhook is refused; set this machine's clock", ground, tolerance/time.Second)
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%+.1f s", d.Seconds()) }

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
