package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/source"
)

const patience = 20 * time.Second

// archive packs files into a bundle; the name .manifest gives it a revision.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	packed := tar.NewWriter(zipped)
	for name, content := range files {
		if err := packed.WriteHeader(&tar.Header{Name: "/" + name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(packed, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func policyFiles(revision string) map[string]string {
	files := map[string]string{"authz/app.rego": fmt.Sprintf("package authz\n\ndecision := {\"decision\": true, \"reasons\": [%q]}\n", revision)}
	if revision != "" {
		files[".manifest"] = fmt.Sprintf(`{"revision":%q,"roots":["authz"]}`, revision)
	}
	return files
}

// policy is a bundle of one rule with a revision.
func policy(t *testing.T, revision string) []byte { return archive(t, policyFiles(revision)) }

// signed is policy with a signature by an HMAC secret.
func signed(t *testing.T, revision, secret, scope string) []byte {
	t.Helper()
	return signedFiles(t, policyFiles(revision), secret, scope)
}

func signedFiles(t *testing.T, files map[string]string, secret, scope string) []byte {
	t.Helper()
	var listed []opabundle.FileInfo
	for _, name := range slices.Sorted(maps.Keys(files)) {
		hash, err := opabundle.NewSignatureHasher(opabundle.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		var value any = []byte(files[name])
		if strings.HasSuffix(name, ".json") || name == ".manifest" {
			if err := json.Unmarshal([]byte(files[name]), &value); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := hash.HashFile(value)
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, opabundle.NewFile(name, fmt.Sprintf("%x", sum), "SHA-256"))
	}
	claims := filepath.Join(t.TempDir(), "claims.json")
	if err := os.WriteFile(claims, fmt.Appendf(nil, `{"scope":%q}`, scope), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := opabundle.GenerateSignedToken(listed, opabundle.NewSigningConfig(secret, "HS256", claims), "")
	if err != nil {
		t.Fatal(err)
	}
	files[".signatures.json"] = fmt.Sprintf(`{"signatures":[%q]}`, token)
	return archive(t, files)
}

// bundleServer serves one bundle by the OPA bundle protocol.
type bundleServer struct {
	*httptest.Server
	mu       sync.Mutex
	content  []byte
	etag     string
	status   int    // instead of an answer
	kind     string // content type
	hasty    bool   // never holds a request
	requests []http.Header
	changed  chan struct{} // closed when content changes, for held requests
}

func serve(t *testing.T, content []byte) *bundleServer {
	t.Helper()
	s := &bundleServer{changed: make(chan struct{})}
	s.set(content)
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *bundleServer) set(content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content, s.etag = content, fmt.Sprintf("%q", fmt.Sprintf("%x", len(content))+fmt.Sprint(time.Now().UnixNano()))
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *bundleServer) fail(status int) { s.mu.Lock(); s.status = status; s.mu.Unlock() }

func (s *bundleServer) last() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1]
}

func (s *bundleServer) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.requests) }

func (s *bundleServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Header.Clone())
	if r.Header.Get("If-None-Match") == s.etag && strings.Contains(r.Header.Get("Prefer"), "wait=") && s.kind != "" && !s.hasty {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	switch {
	case s.status != 0:
		w.WriteHeader(s.status)
		return
	case r.Header.Get("If-None-Match") == s.etag:
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if s.kind != "" {
		w.Header().Set("Content-Type", s.kind)
	}
	w.Header().Set("ETag", s.etag)
	_, _ = w.Write(s.content)
}

// scene is a follower whose waits the test ends, and whose policies are compiled for real.
type scene struct {
	t        *testing.T
	follower *source.Follower
	waits    chan time.Duration // a remote source has finished one round
	proceed  chan struct{}
	log      *lockedBuffer

	mu   sync.Mutex
	used []string // revisions
}

func newScene(t *testing.T, c source.Config, values ...string) *scene {
	t.Helper()
	s := &scene{t: t, waits: make(chan time.Duration), proceed: make(chan struct{}), log: &lockedBuffer{}}
	for _, value := range values {
		place, err := source.ParsePlace(value)
		if err != nil {
			t.Fatal(err)
		}
		c.Places = append(c.Places, place)
	}
	c.Use = s.use
	if c.PollEvery == 0 {
		c.PollEvery = time.Hour
	}
	c.Interval = time.Minute
	c.Wait = s.wait
	c.Logger, c.Meter = slog.New(slog.NewTextHandler(s.log, nil)), noop.NewMeterProvider().Meter("")
	var err error
	if s.follower, err = source.New(c); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scene) use(_ context.Context, b *bundle.Bundle) error {
	if _, err := b.Compile(bundle.Options{Decision: "authz/decision"}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = append(s.used, b.Revision())
	return nil
}

func (s *scene) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	select {
	case s.waits <- d:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.proceed:
	case <-wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// start loads and runs until the test ends.
func (s *scene) start() *scene {
	s.t.Helper()
	if err := s.follower.Load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.follower.Run(ctx) }()
	s.t.Cleanup(func() { stop(); <-done })
	return s
}

// round waits until a remote source has finished a round, and returns how long it means to
// wait.
func (s *scene) round() time.Duration {
	s.t.Helper()
	select {
	case d := <-s.waits:
		return d
	case <-time.After(patience):
		s.t.Fatalf("no round ends; the log says\n%s", s.log)
		return 0
	}
}

// again begins the next round and waits until it is over.
func (s *scene) again() time.Duration {
	s.t.Helper()
	s.proceed <- struct{}{}
	return s.round()
}

func (s *scene) revisions() []string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.used) }

func (s *scene) wantUsed(want ...string) {
	s.t.Helper()
	if got := s.revisions(); !slices.Equal(got, want) {
		s.t.Fatalf("used %q, want %q; the log says\n%s", got, want, s.log)
	}
}

// wantFailure wants the newest content not in use for a reason with this text; "": in use.
func (s *scene) wantFailure(want string) {
	s.t.Helper()
	got := ""
	if at := s.follower.Status(); at.Failure != nil {
		got = at.Failure.Error()
	}
	if want == "" && got != "" || !strings.Contains(got, want) {
		s.t.Fatalf("the failure is %q, want %q", got, want)
	}
}

// eventually waits for what a poll makes true.
func (s *scene) eventually(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s doesn't come true; used %q; the log says\n%s", what, s.revisions(), s.log)
		}
		time.Sleep(time.Millisecond)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// write puts a file in place as a whole.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	draft := filepath.Join(filepath.Dir(path), ".draft")
	if err := os.WriteFile(draft, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(draft, path); err != nil {
		t.Fatal(err)
	}
}

func verifying(t *testing.T, secret, scope string) func() *bundle.Verification {
	t.Helper()
	v, err := bundle.NewVerification([]bundle.VerificationKey{{Content: []byte(secret)}}, scope)
	if err != nil {
		t.Fatal(err)
	}
	return func() *bundle.Verification { return v }
}
