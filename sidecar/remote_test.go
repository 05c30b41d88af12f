package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

// A running sidecar tells the same names as its catalog holds, whatever the pages.
func TestRemoteCatalog(t *testing.T) {
	const listed = 2*largestPage + 1
	var entries []string
	for i := range listed {
		entries = append(entries, fmt.Sprintf(`{"id":"perm_%d","name":"name:%04d","create_time":"2024-01-15T10:00:00Z"}`, i, i))
	}
	all, err := catalog.ReadRestorable(strings.NewReader(fmt.Sprintf(`{"permissions":[%s],"next_page_token":"","total_size":%d}`, strings.Join(entries, ","), listed)))
	if err != nil {
		t.Fatal(err)
	}
	server, c := permissionServer(t)
	if _, err := c.Restore(t.Context(), all, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(t.Context(), permissionEvent(permission.Deleted, 2, "7", "name:0007")); err != nil {
		t.Fatal(err)
	}
	remote, err := newRemoteSidecar(server.URL+"/", "")
	if err != nil {
		t.Fatal(err)
	}
	live, complete, err := remote.names(t.Context())
	if err != nil || !complete || len(live) != listed-1 || slices.Contains(live, "name:0007") || !slices.Contains(live, "name:2000") {
		t.Errorf("got %d names, complete %t, %v", len(live), complete, err)
	}
	for name, want := range map[string]bool{"name:0007": true, "name:0008": false, "a/b c?": false, "\x00": false, "": false, strings.Repeat("x", 300): false} {
		if got, err := remote.wasDeleted(t.Context(), name); got != want || err != nil {
			t.Errorf("%.20q: got %t, %v", name, got, err)
		}
	}
}

func TestRemoteCatalogOverASocketWithAToken(t *testing.T) {
	const token = "0123456789abcdef"
	path := filepath.Join(t.TempDir(), "authorize.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, `{"error":{"code":"unauthorized","message":"no"}}`, http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"permissions":[{"name":"a"}],"next_cursor":null,"complete":true}`)
	}))
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	for file, want := range map[string]string{writeFile(t, []byte(token+"\n"), t.TempDir(), "token"): "", "": "unauthorized"} {
		remote, err := newRemoteSidecar("unix://"+path, file)
		if err != nil {
			t.Fatal(err)
		}
		live, complete, err := remote.names(t.Context())
		if want == "" && (err != nil || !complete || !slices.Equal(live, []string{"a"})) {
			t.Errorf("got %q, %t, %v", live, complete, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What isn't a decision API ends in one error, and at once.
func TestRemoteCatalogRefuses(t *testing.T) {
	for from, want := range map[string]string{
		"127.0.0.1:8181": "want a decision API", "ftp://a": "want a decision API", "http://user:pass@a": "want a decision API",
		"http://a/?x": "want a decision API",
	} {
		if _, err := newRemoteSidecar(from, ""); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pass") {
			t.Errorf("%s: got %v", from, err)
		}
	}
	if _, err := newRemoteSidecar("http://a", writeFile(t, []byte("short"), t.TempDir(), "token")); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("got %v", err)
	}
	for answer, want := range map[string]string{
		"hello":                                "want an answer of Postern's decision API",
		`{"permissions":[],"next_cursor":"x"}`: "the same page comes twice",
		`{"permissions":"` + strings.Repeat("x", largestRemoteAnswer): "larger than",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		remote, err := newRemoteSidecar(server.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := remote.names(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: got %v, want %s", answer, err, want)
		}
		server.Close()
	}
	moved := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	t.Cleanup(moved.Close)
	remote, err := newRemoteSidecar(moved.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := remote.names(t.Context()); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("followed a redirect: %v", err)
	}
}
