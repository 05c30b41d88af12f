package webhook

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// after is a moment in which both clocks went on, and the wall clock was set by more.
func after(passed, set time.Duration) moment { return moment{noon.Add(passed + set), passed} }

// signed takes in a delivery that was made by a sender whose clock is right.
func signed(c *clock, id int, m moment, set time.Duration) (time.Duration, bool) {
	return c.verified(fmt.Sprint("msg_", id), strconv.FormatInt(m.wall.Add(-set).Unix(), 10), m)
}

func TestSkewIsAMedian(t *testing.T) {
	c := newClock(noon)
	for i, ahead := range []time.Duration{0, time.Second, -299 * time.Second, 0, 299 * time.Second} {
		signed(c, i, after(time.Duration(i)*time.Second, 0), ahead)
	}
	if skew, known := c.skewAt(after(5*time.Second, 0)); !known || skew != 0 {
		t.Errorf("two deliveries that say otherwise make it %s", skew)
	}
	if got, want := c.tell(after(5*time.Second, 0)), "+0.0 s from the webhooks' timestamps (median of 5 in the last hour, the last one +299.0 s)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A wrong clock is told from 30 s on, either way, and once when it begins.
func TestAWrongClockIsTold(t *testing.T) {
	for _, test := range []struct {
		off   time.Duration
		wrong bool
	}{{29 * time.Second, false}, {30 * time.Second, true}, {-29 * time.Second, false}, {-30 * time.Second, true}} {
		c := newClock(noon)
		alarms := 0
		for i := range 5 {
			if _, alarm := signed(c, i, after(time.Duration(i)*time.Second, 0), test.off); alarm {
				alarms++
			}
		}
		told := c.tell(after(5*time.Second, 0))
		if strings.HasPrefix(told, "WRONG by "+inSeconds(test.off)) != test.wrong || (alarms == 1) != test.wrong || alarms > 1 {
			t.Errorf("%s: %d alarms, %s", test.off, alarms, told)
		}
	}
}

func TestTheEstimateForgets(t *testing.T) {
	c := newClock(noon)
	for i := range skewSamples {
		signed(c, i, after(0, 0), 100*time.Second)
	}
	if _, known := c.skewAt(after(skewMemory, 0)); !known {
		t.Error("it forgot too early")
	}
	if skew, known := c.skewAt(after(skewMemory+1, 0)); known {
		t.Errorf("still %s after an hour", skew)
	}
	if told := c.tell(after(2*skewMemory, 0)); told != "no verified delivery in the last hour to compare it with" {
		t.Errorf("got %s", told)
	}
	for i := range 3 * skewSamples {
		off := 100 * time.Second
		if i >= 2*skewSamples {
			off = 0
		}
		signed(c, 1000+i, after(2*skewMemory, 0), off)
	}
	if skew, _ := c.skewAt(after(2*skewMemory, 0)); skew != 0 || len(c.samples) != skewSamples {
		t.Errorf("%s of %d deliveries: the last %d say 0", skew, len(c.samples), skewSamples)
	}
}

// Whoever sends a captured delivery again and again doesn't move the estimate.
func TestARepeatedDeliveryCountsOnce(t *testing.T) {
	c := newClock(noon)
	signed(c, 1, after(0, 0), 0)
	captured := strconv.FormatInt(noon.Add(-200*time.Second).Unix(), 10)
	for range 20 {
		if _, alarm := c.verified("msg_captured", captured, after(time.Second, 0)); alarm {
			t.Error("an alarm")
		}
	}
	if len(c.samples) != 2 {
		t.Errorf("%d samples of two deliveries", len(c.samples))
	}
}

func TestAJumpIsTold(t *testing.T) {
	const hour = time.Hour
	c := newClock(noon)
	signed(c, 1, after(0, 0), 0)
	for _, test := range []struct {
		passed, set, want time.Duration
	}{
		{time.Second, 0, 0},
		{5 * hour, 0, 0},
		{5 * hour, 2 * time.Second, 0},
		{5 * hour, 4*time.Second + 1, 2*time.Second + 1},
		{5*hour + time.Second, hour, hour - 4*time.Second - 1},
		{5*hour + time.Second, 0, -hour},
		{4 * hour, hour, 0}, // a delivery that came before and was judged later
		{6 * hour, 0, 0},
	} {
		if got := c.look(after(test.passed, test.set)); got != test.want {
			t.Errorf("after %s, set by %s: got %s, want %s", test.passed, test.set, got, test.want)
		}
	}
	if told := c.tell(after(6*hour, 0)); !strings.Contains(told, "it jumped by -3600.0 s at 2026-01-01T17:00:01Z, or the machine slept") {
		t.Errorf("got %s", told)
	}
}

// A time of this machine carries both clocks, and the difference of two such times is that of
// the monotonic one alone: the wall clock's has to be taken without it.
func TestBothClocksAreRead(t *testing.T) {
	began := time.Now()
	m := newClock(began).moment(began.Add(time.Second))
	if strings.Contains(m.wall.String(), "m=") || m.monotonic != time.Second || !strings.Contains(began.String(), "m=") {
		t.Errorf("got %v, began %v", m, began)
	}
}

// What was compared with the clock before it was set says nothing of it afterwards.
func TestAJumpBeginsTheEstimateAnew(t *testing.T) {
	c := newClock(noon)
	for i := range 5 {
		signed(c, i, after(0, 0), 100*time.Second)
	}
	c.look(after(time.Second, -100*time.Second))
	if _, known := c.skewAt(after(time.Second, -100*time.Second)); known {
		t.Error("the estimate of the old clock stays")
	}
	if _, alarm := signed(c, 9, after(2*time.Second, -100*time.Second), 40*time.Second); !alarm {
		t.Error("a new alarm isn't told")
	}
}

func TestOutsidersAreCounted(t *testing.T) {
	c := newClock(noon)
	for _, seconds := range []int64{noon.Unix() - 4000, noon.Unix() + 3600, 999_999_999_999} {
		c.refused(strconv.FormatInt(seconds, 10), after(0, 0))
	}
	c.refused(strconv.FormatInt(noon.Unix()+3600, 10), after(time.Minute, -time.Minute))
	want := "no verified delivery in the last hour to compare it with; 4 of the deliveries since 2026-01-01T12:00:00Z were outside of the window of 300 s, " +
		"the last by -3600 s at 2026-01-01T12:00:00Z, unverified: check this machine's clock"
	if got := c.tell(after(time.Minute, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
