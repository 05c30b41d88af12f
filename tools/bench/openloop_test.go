package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// numbered is a target that asks a server that echoes for the numbers up to length.
func numbered(server *httptest.Server, length int) *target {
	t := &target{addr: server.Listener.Addr().String(), check: func(i int, body []byte) error {
		if string(body) != fmt.Sprint(i) {
			return fmt.Errorf("question %d: got %q", i, body)
		}
		return nil
	}}
	for i := range length {
		t.requests = append(t.requests, render("/", fmt.Append(nil, i)))
	}
	return t
}

// echo answers with the body, after it was let through.
func echo(t *testing.T, let func(body string)) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		let(string(body))
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestAnOpenLoopSendsAllThatIsDueAndNotBefore(t *testing.T) {
	var answered, last atomic.Int64
	server := echo(t, func(body string) {
		if answered.Add(1); body == "4" {
			last.Add(1)
		}
	})
	start, p := time.Now(), pace{perSecond: 1000, duration: 100 * time.Millisecond}
	l, err := numbered(server, 5).driveOpen(context.Background(), 3, p, 2)
	if err != nil {
		t.Fatal(err)
	}
	if answered.Load() != 100 || l.latencies.total != 100 || l.lateness.total+uint64(l.queued) != 100 {
		t.Errorf("want 100 requests, got %d answered, %d counted, %d + %d sent", answered.Load(), l.latencies.total, l.lateness.total, l.queued)
	}
	if last.Load() != 20 {
		t.Errorf("want the last of 5 questions in each fifth request, got it %d times", last.Load())
	}
	if elapsed := time.Since(start); elapsed < p.due(99) {
		t.Errorf("want the last one sent after %v, got all answered after %v", p.due(99), elapsed)
	}
}

// A server that stalls delays what is due meanwhile, and that counts although it isn't
// even sent: it is what a closed loop omits.
func TestAnOpenLoopCountsFromTheDueTime(t *testing.T) {
	const stall = 80 * time.Millisecond
	var stalled atomic.Bool
	server := echo(t, func(string) {
		if !stalled.Swap(true) {
			<-time.After(stall)
		}
	})
	l, err := numbered(server, 5).driveOpen(context.Background(), 1, pace{perSecond: 1000, duration: stall}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.latencies.percentile(50); got < stall/2-stall/10 {
		t.Errorf("want half of the requests to have waited for half of the stall, got %v", got)
	}
	if l.queued < 70 {
		t.Errorf("want nearly all of 80 requests due while the connection waited, got %d", l.queued)
	}
}

func TestAnOpenLoopEndsWithWhatGoesWrong(t *testing.T) {
	p := pace{perSecond: 1000, duration: time.Minute}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"wrong answer": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") }, `got "other"`},
		"wrong status": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "want status 200, got 503"},
		"hangs up":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "the server hung up"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			if _, err := numbered(server, 5).driveOpen(context.Background(), 1, p, 0); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, got %v", c.want, err)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		server := echo(t, func(string) { cancel() })
		if _, err := numbered(server, 5).driveOpen(ctx, 1, p, 0); err == nil {
			t.Error("want an error")
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		for _, addr := range []string{"127.0.0.1:1", "localhost:80", "[::1]:80"} {
			if _, err := (&target{addr: addr}).driveOpen(context.Background(), 1, p, 0); err == nil {
				t.Errorf("%s: want an error", addr)
			}
		}
	})
}
