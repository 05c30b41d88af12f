package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/source"
)

func unpack(t *testing.T, content []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	unzipped, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if err != nil {
			return files
		}
		files[strings.TrimPrefix(header.Name, "/")] = string(must(io.ReadAll(r)))
	}
}

// signedBroken is a good signature of a policy that can't be compiled.
func signedBroken(t *testing.T) []byte {
	files := policyFiles("2")
	files["authz/app.rego"] = "package authz\n\ndecision := nothing\n"
	return signedFiles(t, files, secret, "authz")
}

func app(revision string) string { return policyFiles(revision)["authz/app.rego"] }

// reasons is what tells test policies apart whose revision is a digest.
func (s *scene) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.used) }

func quick() source.Config { return source.Config{PollEvery: 2 * time.Millisecond} }

// Each way of changing a directory takes effect.
func TestDirectoryIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.rego")
	write(t, path, app("a"))
	s := newScene(t, quick(), dir).start()
	inPlace := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changes := map[string]func(){
		"write in place": func() { inPlace(app("b")) },
		"rename over it": func() { write(t, path, app("c")) },
		"a file more":    func() { write(t, filepath.Join(dir, "more", "more.rego"), "package more\n\nx := 1\n") },
		"a file less": func() {
			if err := os.RemoveAll(filepath.Join(dir, "more")); err != nil {
				t.Fatal(err)
			}
		},
		"same size and times": func() {
			info := must(os.Stat(path))
			inPlace(app("d"))
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
	}
	for _, name := range []string{"write in place", "rename over it", "a file more", "a file less", "same size and times"} {
		before := s.count()
		changes[name]()
		s.eventually(name, func() bool { return s.count() > before && s.follower.Status().Failure == nil })
	}
}

// A ConfigMap is updated by a swap of the symbolic link ..data.
func TestConfigMapIsFollowed(t *testing.T) {
	dir := t.TempDir()
	generation := func(n int) string {
		name := fmt.Sprintf("..2026_%d", n)
		write(t, filepath.Join(dir, name, "app.rego"), app(fmt.Sprint(n)))
		write(t, filepath.Join(dir, name, "other.rego"), fmt.Sprintf("package other\n\nx := %d\n", n))
		return name
	}
	swap := func(to string) {
		link := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(generation(1))
	for _, name := range []string{"app.rego", "other.rego"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := newScene(t, quick(), dir).start()
	for n := range 5 {
		before := s.count()
		swap(generation(n + 2))
		s.eventually("a swap", func() bool { return s.count() > before })
	}
	s.wantFailure("")
}

func TestBrokenDirectoryChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.rego")
	write(t, path, app("a"))
	s := newScene(t, quick(), dir).start()
	for _, broken := range []struct{ content, want string }{
		{"package authz\n\ndecision := {\n", "app.rego:"},
		{"package authz\n\ndecision := nothing\n", "app.rego:3"},
		{"package scalekit\n\nx := 1\n", "scalekit"},
	} {
		write(t, path, broken.content)
		s.eventually(broken.want, func() bool {
			at := s.follower.Status()
			return at.Failure != nil && strings.Contains(at.Failure.Error(), broken.want)
		})
		if s.count() != 1 {
			t.Fatalf("used %q", s.revisions())
		}
	}
	write(t, path, app("b"))
	s.eventually("the mended policy", func() bool { return s.count() == 2 })
	s.wantFailure("")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.eventually("the directory's absence", func() bool { return s.follower.Status().Failure != nil })
	if n := strings.Count(s.log.String(), "level=ERROR"); n != 4 {
		t.Errorf("four failures are told %d times:\n%s", n, s.log)
	}
}

func TestBundleFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	write(t, path, string(policy(t, "1")))
	s := newScene(t, quick(), path).start()
	s.wantUsed("1")
	write(t, path, string(policy(t, "2")))
	s.eventually("the next revision", func() bool { return slices.Equal(s.revisions(), []string{"1", "2"}) })
	write(t, path, string(policy(t, "1")))
	s.eventually("the refusal", func() bool { return s.follower.Status().Failure != nil })
	s.wantFailure("older than the revision in use")
	s.wantUsed("1", "2")
}

func TestSourcesAreJoined(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "app.rego"), app("a"))
	write(t, filepath.Join(other, "other.rego"), "package other\n\nx := 1\n")
	server := serve(t, archive(t, map[string]string{"more/data.json": `{"y": 1}`, ".manifest": `{"revision":"7","roots":["more"]}`}))
	s := newScene(t, quick(), dir, other, server.URL).start()
	s.wantUsed() // one is missing
	s.round()
	if got := s.revisions(); len(got) != 1 || !strings.HasSuffix(got[0], ",7") || strings.Count(got[0], ",") != 2 {
		t.Fatalf("used %q", got)
	}
	// A conflict is refused as a whole, and mended by the other source.
	write(t, filepath.Join(other, "other.rego"), "package authz\n\nx := 1\n")
	s.eventually("the conflict", func() bool { return s.follower.Status().Failure != nil })
	s.wantFailure("data.authz")
	write(t, filepath.Join(dir, "app.rego"), "package other\n\ndecision := true\n")
	write(t, filepath.Join(other, "other.rego"), app("b"))
	s.eventually("the mended pair", func() bool { return s.count() == 2 })
	s.wantFailure("")
}

func TestReloadIsForced(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "app.rego"), app("a"))
	s := newScene(t, source.Config{}, dir).start()
	s.follower.Reload()
	s.eventually("a reload", func() bool { return s.count() == 2 })
}

func TestStartFailsOnWhatIsLocal(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "found none", filepath.Join(dir, "absent"): "no such file", "/dev/null": "/dev/null"} {
		s := newScene(t, source.Config{}, path)
		if err := s.follower.Load(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--policy: ") {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// While a ConfigMap is swapped all the time, what is used is of one generation.
func TestGenerationsAreNotMixed(t *testing.T) {
	const files = 20
	dir := t.TempDir()
	for n := range 2 {
		for i := range files {
			write(t, filepath.Join(dir, fmt.Sprintf("..%d", n), fmt.Sprintf("f%d.rego", i)), fmt.Sprintf("package p%d\n\nx := %d\n", i, n))
		}
		write(t, filepath.Join(dir, fmt.Sprintf("..%d", n), ".manifest"), fmt.Sprintf(`{"revision":"generation %d"}`, n))
	}
	swap := func(n int) {
		if err := os.Symlink(fmt.Sprintf("..%d", n), filepath.Join(dir, "..tmp")); err != nil {
			t.Error(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Error(err)
		}
	}
	swap(0)
	for i := range files {
		name := fmt.Sprintf("f%d.rego", i)
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join("..data", ".manifest"), filepath.Join(dir, ".manifest")); err != nil {
		t.Fatal(err)
	}
	place := must(source.ParsePlace(dir))
	var mixed atomic.Int64
	c := source.Config{
		Places: []source.Place{place}, PollEvery: time.Millisecond, Interval: time.Minute,
		Logger: slog.New(slog.DiscardHandler), Meter: noop.NewMeterProvider().Meter(""),
		Use: func(_ context.Context, b *bundle.Bundle) error {
			policy, err := b.Compile(bundle.Options{})
			if err != nil {
				return err
			}
			want := "x := " + strings.TrimPrefix(b.Revision(), "generation ")
			for _, module := range policy.Compiler.Modules {
				if !strings.HasPrefix(module.Rules[0].String(), want) {
					mixed.Add(1)
				}
			}
			return nil
		},
	}
	f := must(source.New(c))
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	for n := range 400 {
		swap(n % 2)
		f.Reload()
		time.Sleep(time.Duration(n%7) * 100 * time.Microsecond)
	}
	stop()
	<-done
	if n := mixed.Load(); n > 0 {
		t.Errorf("%d modules were of another generation", n)
	}
}
