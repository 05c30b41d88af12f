package source_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/source"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestDownloadAndETag(t *testing.T) {
	server := serve(t, policy(t, "1"))
	s := newScene(t, source.Config{}, server.URL+"/b.tar.gz").start()
	if d := s.round(); d < 54*time.Second || d > 66*time.Second {
		t.Errorf("waits %v, want a minute give or take a tenth", d)
	}
	s.wantUsed("1")
	if got := server.last(); got.Get("If-None-Match") != "" || got.Get("Prefer") != "modes=snapshot" {
		t.Errorf("the first request says %v", got)
	}
	etag := server.etag
	s.again()
	s.wantUsed("1") // 304
	if got := server.last().Get("If-None-Match"); got != etag {
		t.Errorf("If-None-Match is %q, want %q", got, etag)
	}
	server.set(policy(t, "2"))
	s.again()
	s.wantUsed("1", "2")
	s.wantFailure("")
}

func TestLongPolling(t *testing.T) {
	server := serve(t, policy(t, "1"))
	server.kind = "application/vnd.openpolicyagent.bundles"
	s := newScene(t, source.Config{}, server.URL).start()
	if d := s.round(); d > 250*time.Millisecond {
		t.Errorf("waits %v, want to ask again at once", d)
	}
	s.proceed <- struct{}{} // this request is held
	s.eventually("a held request", func() bool { return server.count() == 2 })
	if got := server.last().Get("Prefer"); got != "modes=snapshot;wait=60" {
		t.Errorf("Prefer is %q", got)
	}
	server.set(policy(t, "2"))
	s.round()
	s.wantUsed("1", "2")
	// A reload doesn't wait for a held request.
	s.proceed <- struct{}{}
	s.eventually("a held request", func() bool { return server.count() == 3 })
	s.follower.Reload()
	s.round()
	s.wantUsed("1", "2", "2")
	if got := server.last().Get("If-None-Match"); got != "" {
		t.Errorf("a reload asks with If-None-Match %q", got)
	}
}

// A server that doesn't hold requests, whatever it says, isn't asked all the time.
func TestLongPollingThatIsNone(t *testing.T) {
	server := serve(t, policy(t, "1"))
	server.kind, server.hasty = "application/vnd.openpolicyagent.bundles", true
	c := source.Config{Keep: t.TempDir()}
	s := newScene(t, c, server.URL).start()
	s.round()
	if d := s.again(); d < 54*time.Second {
		t.Errorf("waits %v", d)
	}
	// What the server can do is known after a restart.
	newScene(t, c, server.URL).start().round()
	if got := server.last().Get("Prefer"); got != "modes=snapshot;wait=60" {
		t.Errorf("Prefer is %q", got)
	}
}

// What can't be kept is used all the same, and told.
// A disk that takes nothing keeps no policy out, and what it didn't take is kept later.
func TestDiskThatCantBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	c, server := source.Config{Keep: filepath.Join(file, "policies")}, serve(t, policy(t, "1"))
	s := newScene(t, c, server.URL).start()
	s.round()
	s.again()
	s.wantUsed("1")
	s.wantFailure("")
	if n := strings.Count(s.log.String(), "could not be kept"); n != 1 {
		t.Errorf("it is told %d times:\n%s", n, s.log)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.again()
	server.fail(http.StatusBadGateway)
	offline := newScene(t, c, server.URL).start()
	offline.round()
	offline.wantUsed("1")
}

// Keys that change are used for what is there already.
func TestKeysAreFollowed(t *testing.T) {
	var keys atomic.Pointer[bundle.Verification]
	keys.Store(verifying(t, strings.Repeat("x", 32), "")())
	server := serve(t, signed(t, "1", secret, ""))
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	write(t, path, string(signedFiles(t, map[string]string{"more/data.json": "{}", ".manifest": `{"revision":"1","roots":["more"]}`}, secret, "")))
	c := quick()
	c.Verification = keys.Load
	s := newScene(t, c, server.URL).start()
	s.round()
	s.wantUsed()
	keys.Store(verifying(t, secret, "")())
	s.round()
	s.wantUsed("1")
	// With a file, too.
	s = newScene(t, c, path, server.URL).start()
	s.round()
	s.wantUsed("1,1")
	keys.Store(verifying(t, strings.Repeat("x", 32), "")())
	s.round()
	s.eventually("the refusal", func() bool { return s.follower.Status().Sources[0].Failure != nil })
	s.wantUsed("1,1")
}

func TestBackoffAndRecovery(t *testing.T) {
	server := serve(t, policy(t, "1"))
	server.fail(http.StatusInternalServerError)
	s := newScene(t, source.Config{}, server.URL).start()
	longest := time.Duration(0)
	for i := range 12 {
		if i > 0 {
			s.proceed <- struct{}{}
		}
		d := s.round()
		longest = max(longest, d)
		if d > 66*time.Second {
			t.Fatalf("waits %v", d)
		}
	}
	if longest < 10*time.Second {
		t.Errorf("after twelve failures the longest wait was %v", longest)
	}
	s.wantUsed()
	s.wantFailure("want status 200, got 500")
	if n := strings.Count(s.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("one failure is told %d times", n)
	}
	server.fail(0)
	s.again()
	s.wantUsed("1")
	s.wantFailure("")
}

func TestTokenStaysAtItsOrigin(t *testing.T) {
	elsewhere := serve(t, policy(t, "1"))
	var seen []string
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		if r.URL.Path == "/first" {
			http.Redirect(w, r, "/second", http.StatusFound)
			return
		}
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer origin.Close()
	s := newScene(t, source.Config{Token: func() string { return "hush-hush" }}, origin.URL+"/first?signature=sesame").start()
	s.round()
	s.wantUsed("1")
	if len(seen) != 2 || seen[0] != "Bearer hush-hush" || seen[1] != "Bearer hush-hush" {
		t.Errorf("the origin saw %q", seen)
	}
	for name, values := range elsewhere.last() {
		if strings.Contains(strings.Join(values, " "), "hush") || strings.Contains(strings.Join(values, " "), "sesame") {
			t.Errorf("another origin saw %s: %q", name, values)
		}
	}
	elsewhere.Close()
	s.again()
	if log := s.log.String(); strings.Contains(log, "hush") || strings.Contains(log, "sesame") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func TestRedirectAwayFromHTTPSIsRefused(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/b.tar.gz", http.StatusFound))
	defer server.Close()
	s := newScene(t, source.Config{}, server.URL).start()
	s.round()
	s.wantFailure("redirected away from https")
}

func TestOfflineStart(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "policies")
	server := serve(t, policy(t, "1"))
	c := source.Config{Keep: keep}
	s := newScene(t, c, server.URL)
	first := s.start()
	first.round()
	server.fail(http.StatusBadGateway)

	again := newScene(t, c, server.URL).start()
	again.round()
	again.wantUsed("1")
	if at := again.follower.Status().Sources[0]; !at.Loaded || !at.Answered.IsZero() || at.Revision != "1" {
		t.Errorf("the status is %+v", at)
	}
	// Another URL has nothing kept.
	other := newScene(t, c, server.URL+"/other").start()
	other.round()
	other.wantUsed()
	// Nor has it when the file of the first one lies in its place.
	write(t, filepath.Join(keep, source.KeptName(must(source.ParsePlace(server.URL+"/third")))),
		string(must(os.ReadFile(filepath.Join(keep, source.KeptName(must(source.ParsePlace(server.URL))))))))
	third := newScene(t, c, server.URL+"/third").start()
	third.round()
	third.wantUsed()
	// When the server is back, it is asked with what is known.
	etag := server.etag
	server.fail(0)
	again.again()
	again.wantUsed("1")
	if got := server.last().Get("If-None-Match"); got != etag {
		t.Errorf("If-None-Match is %q, want %q", got, etag)
	}
	if at := again.follower.Status().Sources[0]; at.Answered.IsZero() {
		t.Errorf("the status is %+v", at)
	}
	for _, entry := range must(os.ReadDir(keep)) {
		if info := must(entry.Info()); info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// What is refused is never kept, so that a restart doesn't let it in.
func TestRefusedStaysRefused(t *testing.T) {
	good := func(t *testing.T) []byte { return signed(t, "1", secret, "authz") }
	for name, bad := range map[string]struct {
		content []byte
		want    string
	}{
		"tampered":     {replaced(t, signed(t, "2", secret, "authz")), ".signatures.json"},
		"unsigned":     {policy(t, "2"), "isn't signed"},
		"other key":    {signed(t, "2", strings.Repeat("x", 32), "authz"), ".signatures.json"},
		"wrong scope":  {signed(t, "2", secret, "other"), "scope"},
		"not a bundle": {[]byte("<html>"), "gzip"},
		"broken":       {signedBroken(t), "authz"},
		"older":        {signed(t, "0", secret, "authz"), "older than the revision in use"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, good(t))
			c := source.Config{Keep: t.TempDir(), Verification: verifying(t, secret, "authz")}
			s := newScene(t, c, server.URL).start()
			s.round()
			s.wantUsed("1")
			server.set(bad.content)
			s.again()
			s.again()
			s.wantUsed("1")
			s.wantFailure(bad.want)
			if n := strings.Count(s.log.String(), "level=ERROR"); n != 1 {
				t.Errorf("one failure is told %d times:\n%s", n, s.log)
			}
			again := newScene(t, c, server.URL).start()
			again.round()
			again.wantUsed("1")
			again.wantFailure(bad.want)
			server.set(signed(t, "3", secret, "authz"))
			again.again()
			again.wantUsed("1", "3")
			again.wantFailure("")
		})
	}
}

// replaced changes the policy of a bundle and leaves its signature.
func replaced(t *testing.T, content []byte) []byte {
	files := unpack(t, content)
	files["authz/app.rego"] = "package authz\n\ndecision := true\n"
	return archive(t, files)
}

// The server isn't told of an ETag whose bundle isn't the one in use, whatever came between.
func TestETagIsOfWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "more.rego"), "package more\n\nx := 1\n")
	server := serve(t, policy(t, "a"))
	s := newScene(t, quick(), dir, server.URL).start()
	s.round()
	files := policyFiles("b")
	files[".manifest"], files["more/data.json"] = `{"revision":"b","roots":["authz","more"]}`, "{}"
	first := server.etag
	server.set(archive(t, files))
	s.again()
	s.wantFailure("data.more")
	if got := server.last().Get("If-None-Match"); got != first {
		t.Errorf("If-None-Match is %q, want %q", got, first)
	}
	write(t, filepath.Join(dir, "more.rego"), "package another\n\nx := 1\n")
	s.eventually("the mended pair", func() bool { return s.count() == 2 })
	server.set(policy(t, "a"))
	server.mu.Lock()
	server.etag = first // the server has gone back
	server.mu.Unlock()
	s.again()
	s.wantFailure("")
	if got := s.revisions(); len(got) != 3 || !strings.HasSuffix(got[2], ",a") {
		t.Errorf("used %q", got)
	}
}

func TestRollbackWhenAllowed(t *testing.T) {
	server := serve(t, policy(t, "2"))
	s := newScene(t, source.Config{AllowRollback: true}, server.URL).start()
	s.round()
	server.set(policy(t, "1"))
	s.again()
	s.wantUsed("2", "1")
}

// What is kept is verified again.
func TestKeptIsVerified(t *testing.T) {
	server := serve(t, policy(t, "1"))
	c := source.Config{Keep: t.TempDir()}
	newScene(t, c, server.URL).start().round()
	server.fail(http.StatusBadGateway)
	c.Verification = verifying(t, secret, "")
	s := newScene(t, c, server.URL).start()
	s.round()
	s.wantUsed()
	if !strings.Contains(s.log.String(), "isn't signed") {
		t.Errorf("the log says\n%s", s.log)
	}
	// Damage is found.
	c.Verification = nil
	path := must(filepath.Glob(filepath.Join(c.Keep, "*.bundle")))[0]
	content := must(os.ReadFile(path))
	content[len(content)-1] ^= 1
	write(t, path, string(content))
	s = newScene(t, c, server.URL).start()
	s.round()
	s.wantUsed()
	if !strings.Contains(s.log.String(), "damaged") {
		t.Errorf("the log says\n%s", s.log)
	}
}

func TestLargeAnswersEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	s := newScene(t, source.Config{}, server.URL).start()
	s.round()
	s.wantFailure("larger than")
}

func TestParsePlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "isn't empty",
		"ftp://example.com/b.tar.gz":   "https://",
		"http://example.com/b.tar.gz":  "https",
		"https://u:hush@example.com/b": "no user",
		"https://example.com/b#x":      "fragment",
		"https://":                     "absolute",
		"http://127.0.0.1/b.tar.gz":    "",
		"https://example.com/b?x=y":    "",
		"policies":                     "",
	} {
		place, err := source.ParsePlace(text)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		if strings.Contains(place.Name(), "x=y") {
			t.Errorf("the name %s tells the query", place.Name())
		}
	}
}
