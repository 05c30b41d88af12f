package scalekit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/scalekit"
)

func TestBackoff(t *testing.T) {
	random := 0.5
	b := scalekit.Backoff{Base: 2 * time.Second, Max: 15 * time.Second, Random: func() float64 { return random }}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 7500 * time.Millisecond, 7500 * time.Millisecond} {
		if got := b.Next(0); got != want {
			t.Errorf("failure %d: %s, want %s", i, got, want)
		}
	}
	if got := b.Next(time.Minute); got != time.Minute+7500*time.Millisecond {
		t.Errorf("the server asked for a minute, got %s", got)
	}
	b.Reset()
	if got := b.Next(time.Minute); got != 61*time.Second {
		t.Errorf("after a success: %s", got)
	}
	random = 0
	if got := b.Next(0); got != 0 {
		t.Errorf("the jitter is full, got %s", got)
	}
}

func TestBackoffStaysInItsWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "base"))
		most := time.Duration(rapid.Int64Range(1, int64(100*24*time.Hour)).Draw(t, "max"))
		b := scalekit.Backoff{Base: base, Max: most, Random: func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "random") }}
		for window := base; ; window *= 2 {
			floor := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "floor"))
			if got := b.Next(floor); got < floor || got >= floor+min(window, most) && got > floor {
				t.Fatalf("%s is out of [%s, %s+%s)", got, floor, floor, min(window, most))
			}
			if window > 4*most {
				return
			}
		}
	})
}
