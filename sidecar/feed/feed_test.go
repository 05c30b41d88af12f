package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/feed"
	"github.com/postern-authz/postern/sidecar/listener"
)

// source is a document of one number.
type source struct {
	size     int // of a version, in bytes
	mu       sync.Mutex
	number   int
	changed  chan struct{}
	builds   []int
	building func(ctx context.Context, number int) error // what a build waits for; may be nil
	watched  chan struct{}                               // holds a token for each call of Changed
}

func newSource() *source {
	return &source{size: 1000, changed: make(chan struct{}), watched: make(chan struct{}, 100_000)}
}

func (s *source) Pin() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

func (s *source) Tag(number int) string { return fmt.Sprintf(`"%d"`, number) }

func (s *source) Changed() <-chan struct{} {
	s.watched <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *source) set(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number = number
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) Write(ctx context.Context, number int, w io.Writer) error {
	s.mu.Lock()
	s.builds = append(s.builds, number)
	building := s.building
	s.mu.Unlock()
	if building != nil {
		if err := building(ctx, number); err != nil {
			return err
		}
	}
	_, err := w.Write(bytes.Repeat([]byte{'0' + byte(number%10)}, s.size))
	return err
}

func (s *source) built() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.builds)
}

// scene is a feed of a source behind a listener that gives a request little time.
type scene struct {
	*testing.T
	*source
	feed   *feed.Feed[int]
	server *http.Server
	url    string
}

func start(t *testing.T, followers int) scene {
	t.Helper()
	s := newSource()
	f := feed.New(s, feed.Config{Dir: t.TempDir(), ContentType: "text/x", MostFollowers: followers, Logger: slog.New(slog.DiscardHandler)})
	server := listener.NewServer(f, 300*time.Millisecond, slog.New(slog.DiscardHandler))
	server.ReadTimeout = 300 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { f.Stop(); server.Close() })
	return scene{t, s, f, server, "http://" + l.Addr().String()}
}

type answer struct {
	status int
	tag    string
	body   string
	header http.Header
	err    error
}

func (s scene) ask(ctx context.Context, method string, headers ...string) answer {
	request, err := http.NewRequestWithContext(ctx, method, s.url, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header.Get("ETag"), string(body), response.Header, err}
}

// follow asks in the background, and returns once the feed has looked for a change.
func (s scene) follow(ctx context.Context, headers ...string) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- s.ask(ctx, http.MethodGet, headers...) }()
	<-s.watched
	return answers
}

func (s scene) want(a answer, status int, tag string) {
	s.Helper()
	if a.err != nil || a.status != status || a.tag != tag {
		s.Errorf("got %d %s %v, want %d %s", a.status, a.tag, a.err, status, tag)
	}
}

// What a peer has isn't built and isn't sent, in whatever form it says so.
func TestConditions(t *testing.T) {
	s := start(t, 10)
	s.set(7)
	for _, held := range []string{`"7"`, `W/"7"`, `*`, `"1", "7"`, `"1" ,, W/"7"`, "\"a,b\"\t,\"7\""} {
		s.want(s.ask(t.Context(), http.MethodGet, "If-None-Match: "+held), 304, `"7"`)
	}
	s.want(s.ask(t.Context(), http.MethodGet, `If-None-Match: "1"`, `If-None-Match: "7"`), 304, `"7"`)
	s.want(s.ask(t.Context(), http.MethodHead), 200, `"7"`)
	if s.built() != 0 {
		t.Errorf("built %v for nobody", s.builds)
	}
	for _, held := range []string{"", `"8"`, `7`, `"7`, `"77"`, `w/"7"`, `x, "7"`, `"\"7\""`} {
		s.want(s.ask(t.Context(), http.MethodGet, "If-None-Match: "+held, "Prefer: wait=50"), 200, `"7"`)
	}
	a := s.ask(t.Context(), http.MethodGet)
	if a.body != strings.Repeat("7", 1000) || a.header.Get("Content-Type") != "text/x" || a.header.Get("Content-Length") != "1000" {
		t.Errorf("got %v %.20s", a.header, a.body)
	}
	a = s.ask(t.Context(), http.MethodGet, "Range: bytes=10-19,900-", `If-Range: "7"`)
	if a.status != http.StatusOK || len(a.body) != 1000 {
		t.Errorf("a range, which is passed over: got %+v", a)
	}
	if s.built() != 1 {
		t.Errorf("built %v", s.builds)
	}
}

// A peer that has the newest version waits for the next, longer than the listener would let it,
// and is told when none comes.
func TestWaiting(t *testing.T) {
	s := start(t, 10)
	s.want(<-s.follow(t.Context(), `If-None-Match: "0"`, "Prefer: modes=snapshot,delta;wait=1"), 304, `"0"`)
	following := s.follow(t.Context(), `If-None-Match: "0"`, "Prefer: modes=snapshot,delta;wait=50")
	s.set(1)
	s.want(<-following, 200, `"1"`)
	following = s.follow(t.Context(), `If-None-Match: "1", "2"`, "Prefer: wait=50")
	s.set(2)
	<-s.watched // which it holds, too, so that it goes on waiting
	s.set(3)
	s.want(<-following, 200, `"3"`)
}

// However many ask, a version is built once.
func TestOneBuild(t *testing.T) {
	s := start(t, 100)
	release := make(chan struct{})
	s.building = func(context.Context, int) error { <-release; return nil }
	var following []<-chan answer
	for range 50 {
		following = append(following, s.follow(t.Context()))
	}
	close(release)
	for _, f := range following {
		s.want(<-f, 200, `"0"`)
	}
	if s.built() != 1 {
		t.Errorf("built %v", s.builds)
	}
}

// Who asks while an older version is being built gets the one that it could know of.
func TestNobodyGetsAnOlderVersion(t *testing.T) {
	s := start(t, 100)
	begun, release := make(chan struct{}, 10), make(chan struct{})
	s.building = func(context.Context, int) error { begun <- struct{}{}; <-release; return nil }
	first := s.follow(t.Context())
	<-begun
	s.set(1)
	second := s.follow(t.Context())
	release <- struct{}{}
	s.want(<-first, 200, `"0"`)
	release <- struct{}{}
	s.want(<-second, 200, `"1"`)
}

// A build ends with the last one who waits for it, and the next one begins another.
func TestAbandonedBuild(t *testing.T) {
	s := start(t, 100)
	begun, ended, release := make(chan struct{}, 10), make(chan error, 10), make(chan struct{})
	s.building = func(ctx context.Context, _ int) error {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		<-release
		return ctx.Err()
	}
	ctx, hangUp := context.WithCancel(t.Context())
	other, hangUpToo := context.WithCancel(t.Context())
	first, second := s.follow(ctx), s.follow(other)
	<-begun
	hangUp()
	<-first
	select {
	case <-ended:
		t.Error("it ended while somebody waited")
	case <-time.After(50 * time.Millisecond):
	}
	hangUpToo()
	<-second
	<-ended
	s.mu.Lock()
	s.building = nil
	s.mu.Unlock()
	third := s.follow(t.Context())
	for range 100 { // so that it comes before the build has ended, as good as always
		runtime.Gosched()
	}
	close(release)
	s.want(<-third, 200, `"0"`)
}

// A build that fails, or panics, is told, and tried again by who asks next.
func TestFailedBuild(t *testing.T) {
	s := start(t, 100)
	for _, failure := range []func(context.Context, int) error{
		func(context.Context, int) error { return errors.New("no room in /secret/place") },
		func(context.Context, int) error { panic("a mistake") },
	} {
		s.building = failure
		a := s.ask(t.Context(), http.MethodGet)
		s.want(a, 503, "")
		if !strings.Contains(a.body, `"catalog_unavailable"`) || strings.Contains(a.body, "secret") || a.header.Get("Retry-After") != "1" {
			t.Errorf("got %+v", a)
		}
	}
	s.building = nil
	s.want(s.ask(t.Context(), http.MethodGet), 200, `"0"`)
}

// Beyond the bound nobody waits, and who hangs up makes room.
func TestPlaces(t *testing.T) {
	s := start(t, 2)
	ctx, hangUp := context.WithCancel(t.Context())
	first := s.follow(ctx, `If-None-Match: "0"`, "Prefer: wait=50")
	second := s.follow(t.Context(), `If-None-Match: "0"`, "Prefer: wait=50")
	a := s.ask(t.Context(), http.MethodGet)
	if s.want(a, 503, ""); !strings.Contains(a.body, `"too_many_followers"`) || a.header.Get("Retry-After") != "1" {
		t.Errorf("got %+v", a)
	}
	hangUp()
	<-first
	for a := s.ask(t.Context(), http.MethodGet); a.status != 200; a = s.ask(t.Context(), http.MethodGet) {
		if a.status != 503 || t.Context().Err() != nil {
			t.Fatalf("got %+v", a)
		}
	}
	s.set(1)
	s.want(<-second, 200, `"1"`)
}

// A server that shuts down waits for nobody who waits.
// Who announces a body and hangs up would keep a place until its wait is over, unseen.
func TestNobodyWaitsBehindABody(t *testing.T) {
	f := feed.New(newSource(), feed.Config{Dir: t.TempDir(), ContentType: "a/b", MostFollowers: 1, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(f.Stop)
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	for _, body := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		peer, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = peer.Close() }()
		_ = peer.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(peer, "GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nPrefer: wait=60\r\n%s\r\n\r\n", body)
		response := make([]byte, 12)
		if _, err := io.ReadFull(peer, response); err != nil || string(response) != "HTTP/1.1 400" {
			t.Errorf("%s: got %q, %v, want 400 at once", body, response, err)
		}
	}
}

func TestStopping(t *testing.T) {
	s := start(t, 10)
	waiting := s.follow(t.Context(), `If-None-Match: "0"`, "Prefer: wait=50")
	begun := make(chan struct{})
	s.mu.Lock()
	s.building = func(ctx context.Context, _ int) error { close(begun); <-ctx.Done(); return ctx.Err() }
	s.mu.Unlock()
	building := s.follow(t.Context())
	<-begun
	began := time.Now()
	s.feed.Stop()
	if err := s.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	s.want(<-waiting, 304, `"0"`)
	s.want(<-building, 503, "")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	s.feed.Stop()
}

// Files of replaced versions are given back once their readers are done.
func TestReplacedVersionsAreClosed(t *testing.T) {
	s := start(t, 10)
	s.size = 2 << 20                                 // too large for memory
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what is forgotten
	before := openFiles(t)
	for i := range 10 {
		s.set(i)
		s.want(s.ask(t.Context(), http.MethodGet), 200, fmt.Sprintf(`"%d"`, i))
	}
	if after := openFiles(t); after > before+5 {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}
