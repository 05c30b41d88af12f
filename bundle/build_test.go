package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

func source(name string, files map[string]string) bundle.Source {
	return bundle.Source{Name: name, FS: tree(files)}
}

// unpacked reads an archive without any of our code.
func unpacked(t *testing.T, archive []byte) (files map[string]string, names []string) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	must(t, err)
	files = map[string]string{}
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, names
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		files[header.Name] = string(content)
		names = append(names, header.Name)
	}
}

func TestBuild(t *testing.T) {
	policy := map[string]string{
		"authz/authz.rego": allowRego, "authz/authz_test.rego": "package authz_test", "README.md": "x", ".git/x.rego": "?",
		".manifest": `{"metadata":{"by":"me"}}`, ".signatures.json": `{"signatures":["of what was"]}`,
	}
	data := map[string]string{"x/data.yaml": "y: 1"}
	build := func(o bundle.BuildOptions) ([]byte, *bundle.Bundle) {
		var b bytes.Buffer
		built, err := bundle.Build(t.Context(), &b, []bundle.Source{source("policy", policy), source("data", data)}, o)
		must(t, err)
		return b.Bytes(), built
	}
	archive, built := build(bundle.BuildOptions{Revision: "7"})
	files, names := unpacked(t, archive)
	if want := []string{".manifest", "authz/authz.rego", "x/data.yaml"}; !slices.Equal(names, want) {
		t.Errorf("got the files %q, want %q", names, want)
	}
	if want := `{"revision":"7","roots":["authz","x"],"rego_version":1,"metadata":{"by":"me"}}`; files[".manifest"] != want {
		t.Errorf("got the manifest %s, want %s", files[".manifest"], want)
	}
	if files["authz/authz.rego"] != allowRego || built.Revision() != "7" {
		t.Errorf("got %q and revision %q", files["authz/authz.rego"], built.Revision())
	}
	if again, _ := build(bundle.BuildOptions{Revision: "7"}); !bytes.Equal(again, archive) {
		t.Error("built again, it has other bytes")
	}
	loaded, err := loadArchive(t, archive, bundle.LoadOptions{})
	if err != nil || loaded.Revision() != "7" || !slices.Equal(loaded.Roots(), []string{"authz", "x"}) {
		t.Errorf("got %v, %v", loaded, err)
	}
	var packed bytes.Buffer
	from := bundle.Source{Name: "a.tar.gz", Archive: bytes.NewReader(pack(t, entriesOf(policy)...))}
	_, err = bundle.Build(t.Context(), &packed, []bundle.Source{from, source("data", data)}, bundle.BuildOptions{Revision: "7"})
	if err != nil || !bytes.Equal(packed.Bytes(), archive) {
		t.Errorf("built of an archive, it has other bytes (%v)", err)
	}
	wide, _ := build(bundle.BuildOptions{Roots: []string{"authz", "x", "more"}})
	if files, _ := unpacked(t, wide); files[".manifest"] != `{"revision":"","roots":["authz","x","more"],"rego_version":1,"metadata":{"by":"me"}}` {
		t.Errorf("got the manifest %s, want the roots that were given", files[".manifest"])
	}
}

func TestBuildRefuses(t *testing.T) {
	typo := "package authz\n\n# METADATA\n# schemas:\n#   - input: schema.input\ndecision if input.sbject.id == \"x\"\n"
	for name, c := range map[string]struct {
		sources []bundle.Source
		o       bundle.BuildOptions
		want    []string
	}{
		"nothing":            {nil, bundle.BuildOptions{}, []string{"want at least one directory"}},
		"no policy":          {[]bundle.Source{source("p", map[string]string{"README.md": "x"})}, bundle.BuildOptions{}, []string{"want .rego files in p"}},
		"one place twice":    {[]bundle.Source{source("p", map[string]string{"a.rego": allowRego}), source("q", map[string]string{"a.rego": "package b"})}, bundle.BuildOptions{}, []string{"q/a.rego", "in p, too"}},
		"a syntax error":     {[]bundle.Source{source("p", map[string]string{"a.rego": "package a\n\np := )"})}, bundle.BuildOptions{}, []string{"p/a.rego:3"}},
		"not strict":         {[]bundle.Source{source("p", map[string]string{"a.rego": "package a\n\np if {\n\tx := 1\n}"})}, bundle.BuildOptions{}, []string{"p/a.rego:4", "unused"}},
		"a typo":             {[]bundle.Source{source("p", map[string]string{"a.rego": typo})}, bundle.BuildOptions{}, []string{"p/a.rego:6", "sbject"}},
		"a builtin":          {[]bundle.Source{source("p", map[string]string{"a.rego": "package a\n\np := http.send({})"})}, bundle.BuildOptions{}, []string{"p/a.rego:3", "--allow-builtin"}},
		"a root of ours":     {[]bundle.Source{source("p", map[string]string{"a.rego": allowRego})}, bundle.BuildOptions{Roots: []string{"authz", "scalekit"}}, []string{"claims data.scalekit"}},
		"a root too narrow":  {[]bundle.Source{source("p", map[string]string{"a.rego": allowRego})}, bundle.BuildOptions{Roots: []string{"other"}}, []string{"p/a.rego", "other"}},
		"an odd revision":    {[]bundle.Source{source("p", map[string]string{"a.rego": allowRego})}, bundle.BuildOptions{Revision: "a\nb"}, []string{"want a revision"}},
		"larger than limits": {[]bundle.Source{source("p", map[string]string{"a.rego": allowRego}), source("q", map[string]string{"b/data.json": `"` + string(bytes.Repeat([]byte("x"), 900)) + `"`})}, bundle.BuildOptions{Load: bundle.LoadOptions{MaxBytes: 1000}}, []string{"larger than 1000 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			c.o.Compile.Schemas = policies.Schemas()
			_, err := bundle.Build(t.Context(), &b, c.sources, c.o)
			wantError(t, err, c.want...)
			if b.Len() > 0 {
				t.Errorf("got %d bytes written, want none", b.Len())
			}
		})
	}
}

func TestInspect(t *testing.T) {
	files := map[string]string{
		"a.rego":      "# METADATA\n# title: Who may\npackage authz\n\n# METADATA\n# title: The answer\n# entrypoint: true\ndecision if ok(1)\n\ndecision if ok(2)\n\nok(x) if x > 1\n",
		"a_test.rego": "package authz_test", "b.rego": "package b.c", ".manifest": `{"revision":"7"}`, "README.md": "x",
	}
	pair := secret()
	archive := signedArchive(t, files, bundle.SigningKey{ID: "k", Content: pair.private, Scope: "s"})
	inspect := func(o bundle.LoadOptions) *bundle.Inspection {
		got, err := bundle.Inspect(t.Context(), bundle.Source{Archive: bytes.NewReader(archive)}, o)
		must(t, err)
		return got
	}
	got := inspect(bundle.LoadOptions{})
	if got.Revision != "7" || !slices.Equal(got.Roots, []string{"authz", "b/c"}) || len(got.Files) != 6 {
		t.Errorf("got %+v", got)
	}
	rules := []bundle.Rule{{Path: "authz/decision", Title: "The answer", Entrypoint: true}, {Path: "authz/ok"}}
	if len(got.Packages) != 2 || got.Packages[0].Title != "Who may" || got.Packages[1].Path != "b/c" || !slices.Equal(got.Packages[0].Rules, rules) {
		t.Errorf("got the packages %+v", got.Packages)
	}
	if s := got.Signature; s == nil || s.KeyID != "k" || s.Algorithm != "HS256" || s.Scope != "s" || s.Verified || len(s.Files) != 5 {
		t.Errorf("got the signature %+v", s)
	}
	if s := inspect(bundle.LoadOptions{Verification: verification(t, "s", bundle.VerificationKey{Content: pair.public})}).Signature; !s.Verified {
		t.Error("with its key it isn't verified")
	}
	wrong := bundle.LoadOptions{Verification: verification(t, "", bundle.VerificationKey{Content: pair.public})}
	_, err := bundle.Inspect(t.Context(), bundle.Source{Archive: bytes.NewReader(archive)}, wrong)
	wantError(t, err, "scope")
	_, err = bundle.Inspect(t.Context(), source("p", map[string]string{"a.rego": allowRego}), wrong)
	wantError(t, err, "isn't signed")
}
