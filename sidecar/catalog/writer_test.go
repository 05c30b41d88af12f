package catalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// While a commit hangs the queue fills, and the next request is told so after a while;
// those in the queue are answered when the commit goes on.
func TestAFullQueue(t *testing.T) {
	var hanging atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	c := openHooked(t, t.TempDir(), hooks{commit: func(tx *bbolt.Tx) error {
		if hanging.CompareAndSwap(true, false) {
			close(entered)
			<-release
		}
		return tx.Commit()
	}}, 1)
	hanging.Store(true)
	var wg sync.WaitGroup
	send := func(i int) {
		wg.Go(func() {
			if _, err := c.Apply(context.Background(), described(permission.Created, 1, fmt.Sprint(i), "")); err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		})
	}
	send(0)
	<-entered
	for i := range queueLength {
		send(1 + i)
	}
	for len(c.writer.queue) < queueLength {
		runtime.Gosched()
	}
	if _, err := c.Apply(context.Background(), described(permission.Created, 1, "late", "")); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	close(release)
	wg.Wait()
	if got := c.Sync().Count; got != 1+queueLength {
		t.Errorf("%d permissions", got)
	}
}

// Requests that come one by one share commits; one that comes alone, and a crowd, don't wait.
func TestPausesBetweenCommits(t *testing.T) {
	var commits atomic.Int64
	c, err := Open(context.Background(), Options{Dir: t.TempDir(), LRUSize: 1, Committed: func(Commit) { commits.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	w := c.writer // whose goroutine touches none of this while the queue is empty
	now := time.Now()
	for _, test := range []struct {
		took, ago, want time.Duration
	}{
		{time.Millisecond, 0, 7 * time.Millisecond},
		{time.Millisecond, 5 * time.Millisecond, 2 * time.Millisecond},
		{time.Hour, time.Millisecond, longestPause - time.Millisecond},
		{time.Hour, longestPause, 0}, // a request that comes alone
	} {
		w.took, w.ended = test.took, now.Add(-test.ago)
		if got := w.rest(now); got != test.want {
			t.Errorf("%s after a commit of %s: got %s, want %s", test.ago, test.took, got, test.want)
		}
	}
	w.crowded <- struct{}{}
	w.took, w.ended = time.Hour, time.Now()
	if w.pause(); len(w.crowded) > 0 {
		t.Error("a crowd waits")
	}
	c.eager = true
	if got := w.rest(now); got > 0 {
		t.Errorf("an eager catalog waits %s", got)
	}
	c.eager = false
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() { mustApply(t, c, described(permission.Created, 1, fmt.Sprint(i), "")) })
	}
	wg.Wait()
	if got := commits.Load(); got > 400/crowd*2 {
		t.Errorf("400 events at once took %d commits", got)
	}
}
