package feed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// numbers is a document that changes whenever somebody looks, if it is restless.
type numbers struct {
	number   atomic.Int64
	restless bool
	takes    time.Duration // of a build
	builds   atomic.Int64
	size     int
}

func (n *numbers) Pin() int64 {
	if n.restless {
		return n.number.Add(1)
	}
	return n.number.Load()
}

func (n *numbers) Tag(v int64) string { return fmt.Sprintf(`"%d"`, v) }

func (n *numbers) Changed() <-chan struct{} { return nil }

func (n *numbers) Write(_ context.Context, _ int64, w io.Writer) error {
	n.builds.Add(1)
	time.Sleep(n.takes)
	_, err := w.Write(bytes.Repeat([]byte{7}, n.size))
	return err
}

func newTestFeed(t *testing.T, n *numbers, followers int) *Feed[int64] {
	t.Helper()
	f := New(n, Config{Dir: t.TempDir(), ContentType: "text/x", MostFollowers: followers, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(f.Stop)
	return f
}

// While changes follow each other, building takes its share of the time and no more.
func TestBuildingRests(t *testing.T) {
	n := &numbers{restless: true, takes: 20 * time.Millisecond}
	f := newTestFeed(t, n, 10)
	began := time.Now()
	for range 5 {
		version, err := f.builder.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		version.release()
	}
	if took, least := time.Since(began), n.takes*(1+4*buildShare); n.builds.Load() != 5 || took < least {
		t.Errorf("%d builds took %s, want 5 and at least %s", n.builds.Load(), took, least)
	}
}

// A peer that doesn't take what it asked for loses its place.
func TestSlowReader(t *testing.T) {
	f := newTestFeed(t, &numbers{size: 32 << 20}, 1)
	f.pace = pace{200 * time.Millisecond, 1 << 40}
	server := httptest.NewServer(f)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if len(f.places) != 1 {
		t.Error("it has no place")
	}
	for deadline := time.Now().Add(20 * time.Second); len(f.places) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it keeps its place")
		}
	}
	if rest, err := io.ReadAll(conn); err == nil && len(rest) >= 32<<20 {
		t.Errorf("it got %d bytes all the same", len(rest))
	}
	response, err := http.Head(server.URL)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the next one: %v, %v", response, err)
	}
}
