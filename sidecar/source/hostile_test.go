package source_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/source"
)

// What a server sends instead of HTTP is quoted neither at length nor with a URL's query.
func TestAnswersThatAreNoHTTP(t *testing.T) {
	for name, answer := range map[string]string{
		"a long line":           strings.Repeat("H", 50_000) + "\r\n\r\n",
		"a long status":         "HTTP/1.1 2" + strings.Repeat("0", 50_000) + " OK\r\n\r\n",
		"a malformed header":    "HTTP/1.1 302 Found\r\nLocation: https://b.example/?signature=hush\x01\r\n\r\n",
		"a malformed redirect":  "HTTP/1.1 302 Found\r\nLocation: https://b.example:port/?signature=hush\r\nContent-Length: 0\r\n\r\n",
		"a redirect to nothing": "HTTP/1.1 302 Found\r\nLocation: https:///?signature=hush\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				for {
					peer, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = peer.Read(make([]byte, 4096))
					_, _ = fmt.Fprint(peer, answer)
					_ = peer.Close()
				}
			}()
			s := newScene(t, source.Config{}, "http://"+l.Addr().String()+"/b.tar.gz?key=hush").start()
			s.round()
			s.wantFailure(l.Addr().String())
			if told := s.follower.Status().Failure.Error() + s.log.String(); len(told) > 4000 || strings.Contains(told, "hush") {
				t.Errorf("got %d bytes of failure and log, %.1000s", len(told), told)
			}
		})
	}
}

// A tag that a server may not take back isn't sent back to it.
func TestLongETagIsNone(t *testing.T) {
	content, sent := policy(t, "1"), make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("If-None-Match")
		w.Header().Set("ETag", `"`+strings.Repeat("e", 5000)+`"`)
		_, _ = w.Write(content)
	}))
	defer server.Close()
	s := newScene(t, source.Config{Keep: filepath.Join(t.TempDir(), "kept")}, server.URL).start()
	s.round()
	s.again()
	s.wantUsed("1")
	if first, second := <-sent, <-sent; first != "" || second != "" {
		t.Errorf("got tags of %d and %d bytes, want none", len(first), len(second))
	}
}
