package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/bundle"
)

// FuzzLoad takes one file of each kind for a bundle. Whatever they hold: no panic, no
// endless work, and no policy with something under a root of the sidecar.
func FuzzLoad(f *testing.F) {
	for _, seed := range []struct{ rego, json, yaml, manifest string }{
		{allowRego, `{"a":1}`, "b: 1", `{"revision":"1","roots":[""]}`},
		{"package scalekit.x\n\np := 1", `{"scalekit":{}}`, "postern: {}", `{"roots":["scalekit"]}`},
		{"# METADATA\n# scope: package\n# schemas:\n#   - input: {\"$ref\": \"#/x\", \"x\": {\"type\": \"string\"}}\npackage a.b\n\nimport data.c\n\np contains x if {\n\tsome x in input.y\n\tnot c.d[x]\n}\n", `{}`, "a: &a [1]\nb: [*a, *a]", `{"roots":["a","b"],"metadata":{"x":null}}`},
		{"package a\n\np := http.send({})", `[`, "!!binary x", `{"rego_version":0,"file_rego_versions":{"*.rego":1}}`},
		{"package a\n\np[x].q if x := input[_]\n\np.r.q := $\"{input.x}\"", `{"a":{"p":1}}`, "---\n---", `{"wasm":[{"entrypoint":"a/p"}]}`},
	} {
		f.Add(seed.rego, seed.json, seed.yaml, seed.manifest)
	}
	f.Fuzz(func(t *testing.T, rego, json, yaml, manifest string) {
		fsys := fstest.MapFS{}
		for name, content := range map[string]string{"a.rego": rego, "data.json": json, "y/data.yaml": yaml, ".manifest": manifest} {
			if content != "" {
				fsys[name] = &fstest.MapFile{Data: []byte(content)}
			}
		}
		b, err := bundle.Load(t.Context(), fsys, bundle.LoadOptions{})
		if err != nil {
			return
		}
		again, err := bundle.Load(t.Context(), fsys, bundle.LoadOptions{})
		if err != nil || again.Revision() != b.Revision() || b.Revision() == "" {
			t.Fatalf("loaded again: got %v and %v, want revision %q twice", again, err, b.Revision())
		}
		wantHarmless(t, b)
	})
}

// wantHarmless wants no policy with something under a root of the sidecar.
func wantHarmless(t *testing.T, b *bundle.Bundle) {
	t.Helper()
	policy, err := b.Compile(bundle.Options{})
	if err != nil {
		return
	}
	for _, root := range []string{"scalekit", "postern"} {
		if _, claimed := policy.Data[root]; claimed {
			t.Errorf("the data claims %s", root)
		}
		ref := ast.Ref{ast.DefaultRootDocument, ast.StringTerm(root)}
		if rules := policy.Compiler.GetRulesWithPrefix(ref); len(rules) > 0 {
			t.Errorf("the rule %s claims %s", rules[0].Head, root)
		}
	}
	for _, builtin := range policy.Compiler.Required.Builtins {
		if _, refused := reaching()[builtin.Name]; refused {
			t.Errorf("the policy uses %s", builtin.Name)
		}
	}
}

// FuzzLoadArchive puts an entry of any name and kind into an archive, and any bytes behind
// it. Whatever they are: no panic, no endless work, no more than the limits, nothing under a
// root of the sidecar, and with a key nothing that it didn't sign.
func FuzzLoadArchive(f *testing.F) {
	for _, seed := range []struct {
		name, content string
		kind          byte
		behind        string
	}{
		{"/data.json", `{"a":1}`, tar.TypeReg, ""},
		{"./", "", tar.TypeDir, ""},
		{".signatures.json", `{"signatures":["e30.e30.e30"]}`, tar.TypeReg, ""},
		{"x/.manifest", `{"revision":"1"} {"revision":"2"}`, tar.TypeReg, "\x00"},
		{"../x.rego", "package x", tar.TypeReg, "garbage"},
		{"l", "", tar.TypeSymlink, string(tarred(f, entry{name: "b.rego", content: "package b"}))},
		{"scalekit/data.yaml", "x: 1", tar.TypeReg, ""},
		{"GNUSparseFile.0/x", "1\n0\n512\n", 'S', ""},
	} {
		f.Add(seed.name, seed.content, seed.kind, []byte(seed.behind))
	}
	key, err := bundle.NewVerification([]bundle.VerificationKey{{Content: secret().public}}, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, content string, kind byte, behind []byte) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range []entry{{"authz.rego", allowRego, tar.TypeReg}, {name, content, kind}} {
			header := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: "x", Size: int64(len(e.content))}
			if err := w.WriteHeader(header); err == nil {
				_, _ = w.Write([]byte(e.content)) // of a kind without content it fails
			}
		}
		_ = w.Close()
		for _, plain := range [][]byte{append(b.Bytes(), behind...), append(b.Bytes()[:min(b.Len(), 1024)], behind...)} {
			wantSafeArchive(t, stored(t, plain), key)
		}
		wantSafeArchive(t, behind, key)
	})
}

func wantSafeArchive(t *testing.T, archive []byte, key *bundle.Verification) {
	t.Helper()
	o := bundle.LoadOptions{MaxBytes: 1 << 20, MaxFiles: 100}
	if b, err := bundle.LoadArchive(t.Context(), bytes.NewReader(archive), o); err == nil {
		wantHarmless(t, b)
	}
	if found, err := bundle.Inspect(t.Context(), bundle.Source{Archive: bytes.NewReader(archive)}, o); err == nil && found.Revision == "" {
		t.Error("got no revision")
	}
	o.Verification = key
	if b, err := bundle.LoadArchive(t.Context(), bytes.NewReader(archive), o); err == nil {
		t.Errorf("got %s by a key that signed nothing", b.Revision())
	}
}

// stored is zipped, but fast.
func stored(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	must(t, err)
	_, err = w.Write(content)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}
