package source_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/source"
)

// A directory that can't be used together with a download is no reason to ask the server more
// often, or to let it hold no request.
func TestAConflictLeavesTheServerInPeace(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "more.rego"), "package more\n\nx := 1\n")
	server := serve(t, policy(t, "1"))
	s := newScene(t, quick(), dir, server.URL).start()
	s.round()
	s.wantFailure("")
	write(t, filepath.Join(dir, "more.rego"), "package authz\n\nx := 1\n")
	s.eventually("the conflict", func() bool { return s.follower.Status().Failure != nil })
	before := s.follower.Status().Sources[1].Answered
	if d := s.again(); d < 50*time.Second {
		t.Errorf("asks again after %v", d)
	}
	if s.follower.Status().Sources[1].Answered.Equal(before) {
		t.Error("the answer isn't told")
	}
	s.wantFailure("data.authz")
}

// Reloads that are asked for faster than a server answers don't keep its bundle out.
func TestReloadsWithoutEndLetADownloadEnd(t *testing.T) {
	content := policy(t, "1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(200 * time.Millisecond):
			_, _ = w.Write(content)
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	s := newScene(t, source.Config{}, server.URL).start()
	for deadline := time.Now().Add(patience); len(s.revisions()) == 0; time.Sleep(10 * time.Millisecond) {
		s.follower.Reload()
		if time.Now().After(deadline) {
			t.Fatal("the download never ends")
		}
	}
}
