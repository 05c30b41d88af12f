package listener_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]struct {
		network string
		local   bool
	}{
		"127.0.0.1:8181":      {"tcp", true},
		"127.9.9.9:0":         {"tcp", true},
		"[::1]:8181":          {"tcp", true},
		"localhost:8181":      {"tcp", true},
		"0.0.0.0:8181":        {"tcp", false},
		":8181":               {"tcp", false},
		"[::]:8181":           {"tcp", false},
		"10.0.0.1:8181":       {"tcp", false},
		"localhost.evil.io:1": {"tcp", false},
		"unix:///run/p.sock":  {"unix", true},
	} {
		a, err := listener.ParseAddress(text)
		if err != nil || a.Network != want.network || a.Local() != want.local || a.String() != text {
			t.Errorf("%s: got %+v local %v, %v", text, a, a.Local(), err)
		}
	}
	for _, text := range []string{"", "8181", "127.0.0.1", "unix://relative.sock", "unix:///" + strings.Repeat("x", 200)} {
		if a, err := listener.ParseAddress(text); err == nil {
			t.Errorf("%q was taken as %+v", text, a)
		}
	}
}

func unix(t *testing.T, path string) listener.Address {
	t.Helper()
	a, err := listener.UnixAddress(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	l, err := unix(t, path).Listen(0o640)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 || l.Addr().String() != path {
		t.Errorf("got %v, %v at %s", info, err, l.Addr())
	}
	if _, err := unix(t, path).Listen(0o600); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a socket in use: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays behind: %v", err)
	}
}

func TestClosingLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	first, err := unix(t, path).Listen(0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := unix(t, path).Listen(0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
}

func TestAStaleSocketIsReplacedAndAFileIsNot(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	l, err := unix(t, stale).Listen(0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unix(t, file).Listen(0o600); err == nil {
		t.Error("listening took the place of a file")
	}
	if content, _ := os.ReadFile(file); string(content) != "precious" {
		t.Errorf("the file says %q", content)
	}
}

func serve(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func ok(w http.ResponseWriter, _ *http.Request) { listener.WriteJSON(w, 200, "ok") }

// ask sends a request with headers and returns status and error code.
func ask(t *testing.T, server *httptest.Server, host string, headers map[string]string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		request.Host = host
	}
	for key, value := range headers {
		request.Header.Set(key, value)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct{ Error struct{ Code string } }
	body, _ := io.ReadAll(response.Body)
	_ = json.Unmarshal(body, &answer)
	return response, answer.Error.Code
}

func TestLocalOnly(t *testing.T) {
	server := serve(t, listener.LocalOnly(http.HandlerFunc(ok)))
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, test := range []struct {
		host, origin string
		status       int
		code         string
	}{
		{"", "", 200, ""},
		{"localhost" + port, "", 200, ""},
		{"LOCALHOST", "", 200, ""},
		{"[::1]" + port, "", 200, ""},
		{"app.localhost", "", 200, ""},
		{"evil.example" + port, "", 403, "host_forbidden"},
		{"127.0.0.1.evil.example", "", 403, "host_forbidden"},
		{"10.0.0.1", "", 403, "host_forbidden"},
		{"127.0.0.1:evil", "", 403, "host_forbidden"},
		{"[127.0.0.1", "", 403, "host_forbidden"},
		{"localhost" + port, "http://localhost" + port, 200, ""},
		{"localhost" + port, "http://localhost:1", 403, "origin_forbidden"},
		{"localhost" + port, "https://evil.example", 403, "origin_forbidden"},
		{"localhost" + port, "null", 403, "origin_forbidden"},
	} {
		headers := map[string]string{}
		if test.origin != "" {
			headers["Origin"] = test.origin
		}
		if response, code := ask(t, server, test.host, headers); response.StatusCode != test.status || code != test.code {
			t.Errorf("host %q, origin %q: got %d %s", test.host, test.origin, response.StatusCode, code)
		}
	}
}

func TestTwoOriginsAreRefused(t *testing.T) {
	request := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
	request.Header["Origin"] = []string{"http://localhost", "https://evil.example"}
	w := httptest.NewRecorder()
	listener.LocalOnly(http.HandlerFunc(ok)).ServeHTTP(w, request)
	if w.Code != http.StatusForbidden {
		t.Errorf("got %d", w.Code)
	}
}

func TestRequireToken(t *testing.T) {
	token := "first-token-0123456789"
	server := serve(t, listener.RequireToken(func() string { return token }, http.HandlerFunc(ok)))
	for authorization, status := range map[string]int{
		"":                401,
		"Bearer ":         401,
		"Bearer wrong":    401,
		"Basic " + token:  401,
		"Bearer " + token: 200,
		"bearer " + token: 200,
	} {
		response, _ := ask(t, server, "", map[string]string{"Authorization": authorization})
		if response.StatusCode != status || (status == 401) != (response.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%q: got %d", authorization, response.StatusCode)
		}
	}
	token = ""
	if response, _ := ask(t, server, "", map[string]string{"Authorization": "Bearer "}); response.StatusCode != 401 {
		t.Errorf("an empty token opens the door: %d", response.StatusCode)
	}
}

func TestContain(t *testing.T) {
	var logged strings.Builder
	server := serve(t, listener.Contain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the roof") }), slog.New(slog.NewTextHandler(&logged, nil))))
	response, code := ask(t, server, "", map[string]string{"X-Request-ID": "req-7"})
	if response.StatusCode != 500 || code != "internal_error" || response.Header.Get("X-Request-ID") != "req-7" {
		t.Errorf("got %d %s", response.StatusCode, code)
	}
	if got := logged.String(); !strings.Contains(got, "the roof") || !strings.Contains(got, "req-7") || !strings.Contains(got, "listener_test.go") {
		t.Errorf("logged %s", got)
	}
	if response, _ := ask(t, server, "", map[string]string{"X-Request-ID": strings.Repeat("x", 129)}); response.Header.Get("X-Request-ID") != "" {
		t.Error("an id of any length is echoed")
	}
}

func TestReadBody(t *testing.T) {
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, refused := listener.ReadBody(r, 10)
		if refused != nil {
			listener.WriteError(w, refused)
			return
		}
		listener.WriteJSON(w, 200, string(body))
	}))
	post := func(body io.Reader, encoding string) int {
		request, err := http.NewRequest(http.MethodPost, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		if encoding != "" {
			request.Header.Set("Content-Encoding", encoding)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	chunked := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	for _, test := range []struct {
		body     io.Reader
		encoding string
		want     int
	}{
		{strings.NewReader("0123456789"), "", 200},
		{strings.NewReader("0123456789a"), "", 413},
		{chunked(10), "", 200},
		{chunked(11), "", 413},
		{strings.NewReader("x"), "gzip", 400},
		{strings.NewReader("x"), "identity", 200},
	} {
		if got := post(test.body, test.encoding); got != test.want {
			t.Errorf("got %d, want %d", got, test.want)
		}
	}
}

// A peer that breaks off its body gets an error, and one that sends its headers byte by
// byte doesn't hold the connection.
func TestSlowAndBrokenPeers(t *testing.T) {
	answered := make(chan *listener.Error, 1)
	server := listener.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, refused := listener.ReadBody(r, 10)
		answered <- refused
	}), time.Second, quiet())
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 {
		t.Errorf("a wait without a bound: %+v", server)
	}
	server.ReadHeaderTimeout = 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })

	broken := dial(t, l)
	_, _ = io.WriteString(broken, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
	_ = broken.(*net.TCPConn).CloseWrite()
	if refused := <-answered; refused == nil || refused.Status != 400 {
		t.Errorf("a broken body: %v", refused)
	}

	slow := dial(t, l)
	_, _ = io.WriteString(slow, "GET / HTTP/1.1\r\nX-Slow: ")
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(slow); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection whose headers never end stays open")
	}
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
