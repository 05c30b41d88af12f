package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/bundle"
)

// entry is one of an archive.
type entry struct {
	name, content string
	kind          byte // 0: a file
}

// pack makes a tar file compressed with gzip.
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	return zipped(t, tarred(t, entries...))
}

func tarred(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o600, Size: int64(len(e.content))}
		switch e.kind {
		case 0:
			header.Typeflag = tar.TypeReg
		case tar.TypeSymlink, tar.TypeLink:
			header.Linkname = "/etc/passwd"
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entriesOf sorts a tree into an archive.
func entriesOf(files map[string]string) []entry {
	var entries []entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, entry{name: name, content: files[name]})
	}
	return entries
}

func loadArchive(t *testing.T, archive []byte, o bundle.LoadOptions) (*bundle.Bundle, error) {
	t.Helper()
	o.Name = "b.tar.gz"
	return bundle.LoadArchive(t.Context(), bytes.NewReader(archive), o)
}

// An archive and a directory of the same files are the same bundle, however the names are
// written.
func TestAnArchiveIsItsFiles(t *testing.T) {
	files := map[string]string{
		"authz/authz.rego": allowRego, "authz/authz_test.rego": "package authz_test\n\nimport data.authz\n\ntest_allow if authz.decision\n",
		"x/data.json": `{"y":1}`, "README.md": "hello", ".manifest": `{"revision":"7","roots":["authz","x"]}`, ".git/a.rego": "no Rego",
	}
	want := load(t, tree(files))
	for _, prefix := range []string{"", "/", "./"} {
		entries := []entry{{name: cmpOr(prefix, "./"), kind: tar.TypeDir}, {name: prefix + "authz/", kind: tar.TypeDir}}
		for _, e := range entriesOf(files) {
			entries = append(entries, entry{name: prefix + e.name, content: e.content})
		}
		got, err := loadArchive(t, pack(t, entries...), bundle.LoadOptions{})
		if err != nil {
			t.Fatalf("%q: %v", prefix, err)
		}
		if got.Revision() != "7" || !slices.Equal(got.Roots(), want.Roots()) || got.Name() != "b.tar.gz" {
			t.Errorf("%q: got %q %q %q, want 7 %q b.tar.gz", prefix, got.Revision(), got.Roots(), got.Name(), want.Roots())
		}
		policy, err := got.Compile(bundle.Options{Decision: "authz/decision"})
		if err != nil || len(policy.Compiler.Modules) != 1 || len(policy.Data) != 1 {
			t.Errorf("%q: got %v, %v, want one module and data.x", prefix, policy, err)
		}
	}
}

func cmpOr(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func TestTestsAreKeptForTheirAuthor(t *testing.T) {
	files := map[string]string{"a.rego": allowRego, "a_test.rego": "package a_test\n\ntest_x if true\n"}
	want := load(t, tree(files)).Revision()
	kept, err := bundle.Load(t.Context(), tree(files), bundle.LoadOptions{Tests: true})
	if err != nil || kept.Revision() != want {
		t.Fatalf("got %v, %v, want the revision %s, for which tests don't count", kept, err, want)
	}
	policy, err := kept.Compile(bundle.Options{})
	if err != nil || len(policy.Compiler.Modules) != 2 {
		t.Errorf("got %v, %v, want two modules", policy, err)
	}
	if archived, err := loadArchive(t, pack(t, entriesOf(files)...), bundle.LoadOptions{Tests: true}); err != nil || archived.Revision() != want {
		t.Errorf("got %v, %v, want it of an archive, too", archived, err)
	}
}

func TestLoadArchiveRefuses(t *testing.T) {
	rego := entry{name: "a.rego", content: allowRego}
	sound := pack(t, rego)
	changed := slices.Clone(sound)
	changed[len(changed)-6] ^= 1 // of the checksum
	for name, c := range map[string]struct {
		archive []byte
		want    []string
	}{
		"nothing":                    {nil, []string{"gzip", "EOF"}},
		"no gzip":                    {[]byte(allowRego), []string{"want an archive compressed with gzip"}},
		"no tar":                     {zipped(t, []byte(strings.Repeat("x", 2000))), []string{"reading the archive"}},
		"an empty archive":           {pack(t), []string{"want .rego files in b.tar.gz"}},
		"half an archive":            {sound[:len(sound)/2], []string{"reading the archive", "unexpected EOF"}},
		"no end":                     {sound[:len(sound)-4], []string{"unexpected EOF"}},
		"another checksum":           {changed, []string{"checksum"}},
		"something behind":           {append(slices.Clone(sound), "garbage garbage"...), []string{"gzip"}},
		"something behind, zipped":   {append(slices.Clone(sound), zipped(t, []byte("garbage"))...), []string{"goes on behind its end"}},
		"an archive behind":          {append(slices.Clone(sound), pack(t, entry{name: "b.rego", content: "package b"})...), []string{"goes on behind its end"}},
		"a way out":                  {pack(t, rego, entry{name: "../b.rego", content: "package b"}), []string{`"../b.rego"`, "plain name"}},
		"a way out, from the top":    {pack(t, rego, entry{name: "/../b.rego", content: "package b"}), []string{`"/../b.rego"`}},
		"a way out, within":          {pack(t, rego, entry{name: "x/../../b.rego", content: "package b"}), []string{"plain name"}},
		"an absolute name twice":     {pack(t, rego, entry{name: "//b.rego", content: "package b"}), []string{"plain name"}},
		"an empty part":              {pack(t, rego, entry{name: "x//b.rego", content: "package b"}), []string{"plain name"}},
		"a backslash":                {pack(t, rego, entry{name: `x\b.rego`, content: "package b"}), []string{"plain name"}},
		"a line end":                 {pack(t, rego, entry{name: "x\nb.rego", content: "package b"}), []string{"plain name"}},
		"a directory that leads out": {pack(t, rego, entry{name: "../", kind: tar.TypeDir}), []string{"plain name"}},
		"a long name":                {pack(t, rego, entry{name: strings.Repeat("x", 1025), content: "x"}), []string{"at most 1024 bytes"}},
		"a deep name":                {pack(t, rego, entry{name: strings.Repeat("x/", 33) + "b.rego", content: "package b"}), []string{"deeper than 32"}},
		"a name twice":               {pack(t, rego, rego), []string{"b.tar.gz/a.rego", "twice"}},
		"a name twice, with /":       {pack(t, rego, entry{name: "/a.rego", content: "package b"}), []string{"b.tar.gz/a.rego", "twice"}},
		"a name twice, with ./":      {pack(t, rego, entry{name: "./a.rego", content: "package b"}), []string{"twice"}},
		"a symbolic link":            {pack(t, rego, entry{name: "b.rego", kind: tar.TypeSymlink}), []string{`"b.rego"`, "link"}},
		"a hard link":                {pack(t, rego, entry{name: "b.rego", kind: tar.TypeLink}), []string{`"b.rego"`, "link"}},
		"a device":                   {pack(t, rego, entry{name: "b.rego", kind: tar.TypeChar}), []string{"device"}},
		"a pipe":                     {pack(t, rego, entry{name: "b.rego", kind: tar.TypeFifo}), []string{"device"}},
		"a syntax error":             {pack(t, entry{name: "a/b.rego", content: "package b\n\np := )\n"}), []string{"b.tar.gz/a/b.rego:3"}},
		"a root of the sidecar":      {pack(t, entry{name: "x.rego", content: "package scalekit\n\np := 1"}), []string{"b.tar.gz/x.rego:1", "claims data.scalekit"}},
		"data of the sidecar":        {pack(t, rego, entry{name: "/data.json", content: `{"postern":{}}`}), []string{"b.tar.gz/data.json", "claims data.postern"}},
		"WebAssembly":                {pack(t, rego, entry{name: "/policy.wasm", content: "x"}), []string{"b.tar.gz/policy.wasm", "WebAssembly"}},
		"a delta bundle":             {pack(t, entry{name: "/patch.json", content: `{"data":[]}`}), []string{"patch.json", "delta"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := loadArchive(t, c.archive, bundle.LoadOptions{})
			wantError(t, err, append(c.want, "reading policy: ")...)
			if got != nil {
				t.Error("got something of it all the same")
			}
		})
	}
}

func TestLoadArchiveKeepsToItsLimits(t *testing.T) {
	archive := tarred(t, entry{name: "a.rego", content: allowRego}, entry{name: "README.md", content: strings.Repeat("x", 1000)})
	size := int64(len(archive))
	large := tarred(t, entry{name: "a.rego", content: allowRego}, entry{name: "big", content: strings.Repeat("\x00", 1<<20)})
	for name, c := range map[string]struct {
		archive []byte
		o       bundle.LoadOptions
		want    string
	}{
		"just as large": {zipped(t, archive), bundle.LoadOptions{MaxBytes: size}, ""},
		"too large":     {zipped(t, archive), bundle.LoadOptions{MaxBytes: size - 1}, "the bundle is larger than"},
		"a large file":  {zipped(t, large), bundle.LoadOptions{MaxBytes: 1 << 20}, "b.tar.gz/big: the bundle is larger than 1048576 bytes"},
		"just as many":  {zipped(t, archive), bundle.LoadOptions{MaxFiles: 2}, ""},
		"too many":      {zipped(t, archive), bundle.LoadOptions{MaxFiles: 1}, "more than 1 files"},
		"compressed badly": {
			append(bytes.Repeat(zipped(t, nil), 1000), zipped(t, archive)...), bundle.LoadOptions{MaxBytes: size}, "the bundle is larger than",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadArchive(t, c.archive, c.o)
			if c.want != "" {
				wantError(t, err, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A gzip bomb costs no more memory than the limit, all that is ever allocated counted.
func TestAGzipBombIsCheap(t *testing.T) {
	const limit = 4 << 20
	for name, bomb := range map[string][]byte{
		"one file":     bombOf(t, 1, 1<<26),
		"many files":   bombOf(t, 64, 1<<20),
		"zeros behind": zipped(t, append(tarred(t, entry{name: "a.rego", content: allowRego}), make([]byte, 1<<26)...)),
	} {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			_, err := loadArchive(t, bomb, bundle.LoadOptions{MaxBytes: limit})
			wantError(t, err, "larger than 4194304 bytes")
			if total := allocated() - before; total > limit+limit/8 {
				t.Errorf("got %d bytes allocated in all, want about the limit of %d", total, limit)
			}
		})
	}
}

// bombOf makes an archive of many zeros.
func bombOf(t *testing.T, files int, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	zeros := make([]byte, 1<<20)
	for i := range files {
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Size: size}))
		for rest := size; rest > 0; rest -= int64(len(zeros)) {
			_, err := w.Write(zeros[:min(rest, int64(len(zeros)))])
			must(t, err)
		}
	}
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

func TestLoadArchiveGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := bundle.LoadArchive(ctx, bytes.NewReader(pack(t, entry{name: "a.rego", content: allowRego})), bundle.LoadOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to be canceled", err)
	}
}
