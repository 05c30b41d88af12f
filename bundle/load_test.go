package bundle_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-authz/postern/bundle"
)

const allowRego = "package authz\n\ndecision := true\n"

// tree makes a policy tree of names and contents.
func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

func load(t *testing.T, fsys fs.FS) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Load(t.Context(), fsys, bundle.LoadOptions{Name: "policies"})
	if err != nil {
		t.Fatalf("loading: %v", err)
	}
	return b
}

func compile(t *testing.T, fsys fs.FS, o bundle.Options) *bundle.Policy {
	t.Helper()
	p, err := load(t, fsys).Compile(o)
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	return p
}

// wantError wants all parts in the message.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want it to say %q", err, part)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing":                      {map[string]string{}, []string{"want .rego files in policies"}},
		"only tests":                   {map[string]string{"authz/authz_test.rego": allowRego}, []string{"want .rego files in policies"}},
		"only other files":             {map[string]string{"README.md": "hello", "schemas/input.json": "{}"}, []string{"want .rego files"}},
		"a syntax error":               {map[string]string{"authz/authz.rego": "package authz\n\ndecision := )\n"}, []string{"policies/authz/authz.rego:3"}},
		"an empty module":              {map[string]string{"authz.rego": ""}, []string{"policies/authz.rego", "empty module"}},
		"Rego v0":                      {map[string]string{"authz.rego": "package authz\n\ndecision { input.x }\n"}, []string{"policies/authz.rego:3"}},
		"two syntax errors":            {map[string]string{"b.rego": "package b\np := (", "a.rego": "package a\np = "}, []string{"policies/a.rego:2", "policies/b.rego:2"}},
		"malformed data":               {map[string]string{"data.json": "{\n\"a\":"}, []string{"reading policy: policies/data.json:2: want JSON: unexpected EOF"}},
		"malformed YAML data":          {map[string]string{"a/data.yaml": "b: 1\na: [1"}, []string{"reading policy: policies/a/data.yaml:1: want YAML: did not find"}},
		"data that is no object":       {map[string]string{"data.json": `[]`}, []string{"data.json", "must be object"}},
		"data twice":                   {map[string]string{"a/data.json": `{"b":1}`, "a/b/data.json": `2`}, []string{"a/data.json"}},
		"deep data":                    {map[string]string{"x/data.json": deep}, []string{"data.x", "nested deeper than 128"}},
		"deep data in arrays":          {map[string]string{"x/data.json": strings.Repeat("[", 200) + strings.Repeat("]", 200)}, []string{"nested deeper than 128"}},
		"deeper data than JSON may be": {map[string]string{"data.json": `{"a":` + strings.Repeat("[", 1e6)}, []string{"policies/data.json", "depth"}},
		"YAML that multiplies itself":  {map[string]string{"data.yaml": aliasBomb()}, []string{"policies/data.yaml", "what its aliases stand for"}},
		"deep Rego":                    {map[string]string{"a.rego": "package a\n\np := " + strings.Repeat("[", 200_000)}, []string{"policies/a.rego:3", "depth"}},
		"deep directories":             {map[string]string{strings.Repeat("a/", 40) + "a.rego": allowRego}, []string{"nested deeper than 32"}},
		"WebAssembly":                  {map[string]string{"authz.rego": allowRego, "policy.wasm": "\x00asm"}, []string{"policies/policy.wasm", "WebAssembly"}},
		"WebAssembly somewhere":        {map[string]string{"authz.rego": allowRego, "x/y.wasm": "\x00asm"}, []string{"policies/x/y.wasm", "WebAssembly"}},
		"a WebAssembly resolver":       {map[string]string{"authz.rego": allowRego, ".manifest": `{"wasm":[{"entrypoint":"authz/decision","module":"policy.wasm"}]}`}, []string{"wasm"}},
		"a delta bundle":               {map[string]string{"patch.json": `{"data":[]}`}, []string{"policies/patch.json", "delta"}},
		"a malformed manifest":         {map[string]string{"authz.rego": allowRego, ".manifest": "{\n\n\"a\" 1}"}, []string{"policies/.manifest:3: want a manifest"}},
		"two manifests":                {map[string]string{"authz.rego": allowRego, ".manifest": `{}`, "x/.manifest": `{}`}, []string{"multiple manifest"}},
		"a manifest for v0":            {map[string]string{"authz.rego": "package authz\n", ".manifest": `{"rego_version":0}`}, []string{"Rego v1", "rego_version 0"}},
		"a v0 file":                    {map[string]string{"authz.rego": "package authz\n", ".manifest": `{"file_rego_versions":{"/authz.rego":0}}`}, []string{"Rego v1", "/authz.rego"}},
		"overlapping roots":            {map[string]string{"authz.rego": allowRego, ".manifest": `{"roots":["authz","authz/x"]}`}, []string{"overlap"}},
		"a package off its root":       {map[string]string{"authz.rego": allowRego, ".manifest": `{"roots":["other"]}`}, []string{"authz.rego", "other"}},
		"data off its root":            {map[string]string{"authz.rego": allowRego, "x/data.json": `{"y":1}`, ".manifest": `{"roots":["authz"]}`}, []string{"/x"}},
		"a revision too long":          {map[string]string{"authz.rego": allowRego, ".manifest": `{"revision":"` + strings.Repeat("r", 257) + `"}`}, []string{"revision", "256"}},
		"a revision of 2 lines":        {map[string]string{"authz.rego": allowRego, ".manifest": `{"revision":"a\nb"}`}, []string{"revision", "control"}},
		"a signature, no key":          {map[string]string{"authz.rego": allowRego, ".signatures.json": `{"signatures":["x"]}`}, []string{"key"}},
		"an inline schema that reads a file": {
			map[string]string{"authz.rego": "package authz\n\n# METADATA\n# schemas:\n#   - input: {\"properties\": {\"x\": {\"$ref\": \"file:///etc/hostname\"}}}\ndecision := input.x\n"},
			[]string{"policies/authz.rego:3", "file:///etc/hostname"},
		},
		"an inline schema that fetches": {
			map[string]string{"authz.rego": "package authz\n\n# METADATA\n# schemas:\n#   - input: {\"allOf\": [{\"$ref\": \"http://127.0.0.1/x\"}]}\ndecision := input.x\n"},
			[]string{"policies/authz.rego:3", "http://127.0.0.1/x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bundle.Load(t.Context(), tree(c.files), bundle.LoadOptions{Name: "policies"})
			wantError(t, err, append(c.want, "reading policy: ")...)
		})
	}
}

// aliasBomb is a short document that is 9^12 elements long when its aliases are followed.
func aliasBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := range 12 {
		alias := fmt.Sprintf("*a%d", i)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.Join(slices.Repeat([]string{alias}, 9), ", "))
	}
	return b.String()
}

func TestNoBundleClaimsTheRootsOfTheSidecar(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"a directory":        {map[string]string{"scalekit/data.json": `{"sync":{"complete":true}}`}, []string{"policies/scalekit/data.json"}},
		"below it":           {map[string]string{"scalekit/permissions/data.yaml": `x: {}`}, []string{"policies/scalekit/permissions/data.yaml"}},
		"a key":              {map[string]string{"data.json": `{"scalekit":{"sync":{"complete":true}}}`}, []string{"policies/data.json"}},
		"beside a namesake":  {map[string]string{"nested/data.json": `{"scalekit":1}`, "scalekit/data.json": `{}`}, []string{"policies/scalekit/data.json"}},
		"an empty key":       {map[string]string{"data.json": `{"scalekit":null}`}, []string{"policies/data.json"}},
		"an empty directory": {map[string]string{"scalekit/data.json": `{}`}, []string{"policies/scalekit/data.json"}},
		"YAML":               {map[string]string{"data.yml": "scalekit: {}"}, []string{"policies/data.yml"}},
		"a package":          {map[string]string{"x.rego": "package scalekit\n\np := 1"}, []string{"policies/x.rego:1", "package scalekit"}},
		"a package below":    {map[string]string{"x.rego": "package scalekit.permissions\n\np := 1"}, []string{"policies/x.rego:1"}},
		"a quoted package":   {map[string]string{"x.rego": "package scalekit[\"a b\"]\n\np := 1"}, []string{"policies/x.rego:1"}},
		"a root":             {map[string]string{"a.rego": allowRego, ".manifest": `{"roots":["authz","scalekit"]}`}, []string{"policies/.manifest"}},
		"a root below":       {map[string]string{"a.rego": allowRego, ".manifest": `{"roots":["authz","/scalekit/roles/"]}`}, []string{"policies/.manifest"}},
	} {
		for _, root := range []string{"scalekit", "postern"} {
			t.Run(name+" "+root, func(t *testing.T) {
				files := map[string]string{"authz.rego": "package other\n\np := 1"}
				for name, content := range c.files {
					files[strings.ReplaceAll(name, "scalekit", root)] = strings.ReplaceAll(content, "scalekit", root)
				}
				if _, ok := files["a.rego"]; ok {
					delete(files, "authz.rego")
				}
				_, err := bundle.Load(t.Context(), tree(files), bundle.LoadOptions{Name: "policies"})
				wantError(t, err, "claims data."+root)
				for _, want := range c.want {
					wantError(t, err, strings.ReplaceAll(want, "scalekit", root))
				}
			})
		}
	}
	compile(t, tree(map[string]string{"a.rego": "package scalekit2\n\np := 1", "x/scalekit/data.json": `{"postern":1}`}), bundle.Options{})
}

func TestLoadKeepsToItsLimits(t *testing.T) {
	fsys := tree(map[string]string{"a.rego": allowRego, "b.rego": "package b", "README.md": strings.Repeat("x", 1000)})
	size := int64(len(allowRego) + len("package b"))
	for name, c := range map[string]struct {
		o    bundle.LoadOptions
		want string
	}{
		"just as large": {bundle.LoadOptions{MaxBytes: size}, ""},
		"too large":     {bundle.LoadOptions{MaxBytes: size - 1}, "b.rego: the bundle is larger than 40 bytes"},
		"just as many":  {bundle.LoadOptions{MaxFiles: 3}, ""},
		"too many":      {bundle.LoadOptions{MaxFiles: 2}, "more than 2 files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bundle.Load(t.Context(), fsys, c.o)
			if c.want != "" {
				wantError(t, err, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoadGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := bundle.Load(ctx, tree(map[string]string{"a.rego": allowRego}), bundle.LoadOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to be canceled", err)
	}
}

func TestLoadPutsDataInItsPlace(t *testing.T) {
	policy := compile(t, tree(map[string]string{
		"authz/authz.rego":      allowRego,
		"authz/authz_test.rego": "package authz\n\ndecision := false\n",
		"data.json":             `{"top":1}`,
		"a/b/data.yaml":         "c: yes it is",
		"a/other.json":          `{"not":"data"}`,
		"a/x.data.json":         `{"not":"data"}`,
		"plan.json":             `{"not":"data"}`,
		".git/data.json":        `{"not":"data"}`,
		".git/policy.wasm":      "not read",
		"._authz.rego":          "not Rego",
	}), bundle.Options{Decision: "authz/decision"})
	if len(policy.Data) != 2 || policy.Data["top"] == nil {
		t.Errorf("got data %v, want top and a", policy.Data)
	}
	a, _ := policy.Data["a"].(map[string]any)
	b, _ := a["b"].(map[string]any)
	if len(a) != 1 || b["c"] != "yes it is" {
		t.Errorf("got data.a %v, want the file at a.b alone", a)
	}
}

func TestRevision(t *testing.T) {
	revision := func(files map[string]string) string {
		return load(t, tree(files)).Revision()
	}
	base := revision(map[string]string{"a.rego": allowRego, "data.json": `{}`})
	if !strings.HasPrefix(base, "sha256:") || len(base) != len("sha256:")+16 {
		t.Errorf("got revision %q, want sha256: and 16 digits", base)
	}
	same := revision(map[string]string{"data.json": `{}`, "a.rego": allowRego, "README.md": "x", "a_test.rego": "package a"})
	if same != base {
		t.Errorf("got revision %q with files that don't count, want %q", same, base)
	}
	// Names sorted as bytes; lengths before names and contents.
	digest := sha256.New()
	for _, text := range []string{"a.rego", allowRego, "a/data.json", "{}"} {
		fmt.Fprintf(digest, "\x00\x00\x00\x00\x00\x00\x00%c%s", len(text), text)
	}
	want := fmt.Sprintf("sha256:%x", digest.Sum(nil)[:8])
	if got := revision(map[string]string{"a.rego": allowRego, "a/data.json": "{}"}); got != want {
		t.Errorf("got revision %q, want %q", got, want)
	}
	for name, files := range map[string]map[string]string{
		"another content":        {"a.rego": allowRego + "\n", "data.json": `{}`},
		"another name":           {"b.rego": allowRego, "data.json": `{}`},
		"another place":          {"a.rego": allowRego, "x/data.json": `{}`},
		"a file less":            {"a.rego": allowRego},
		"a manifest without one": {"a.rego": allowRego, "data.json": `{}`, ".manifest": `{"metadata":{"x":1}}`},
	} {
		if got := revision(files); got == base {
			t.Errorf("%s: got the same revision %q", name, got)
		}
	}
	if got := revision(map[string]string{"a.rego": allowRego, ".manifest": `{"revision":"v1.2.3"}`}); got != "v1.2.3" {
		t.Errorf("got revision %q, want that of the manifest", got)
	}
}

// A ConfigMap is a directory of links into a directory that ..data links to, and is
// replaced as a whole. Items with a path make links to directories.
func TestLoadReadsConfigMapsOnce(t *testing.T) {
	directory := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(directory, "..2024_01_15_10_30_00.1/nested"), 0o755))
	must(t, os.WriteFile(filepath.Join(directory, "..2024_01_15_10_30_00.1/authz.rego"), []byte("package authz\n\ndefault decision := false\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(directory, "..2024_01_15_10_30_00.1/nested/data.json"), []byte(`{"x":1}`), 0o644))
	must(t, os.Symlink("..2024_01_15_10_30_00.1", filepath.Join(directory, "..data")))
	must(t, os.Symlink("..data/authz.rego", filepath.Join(directory, "authz.rego")))
	must(t, os.Symlink("..data/nested", filepath.Join(directory, "nested")))

	policy := compile(t, os.DirFS(directory), bundle.Options{Decision: "authz/decision"})
	if len(policy.Compiler.Modules) != 1 {
		t.Errorf("got %d modules, want 1", len(policy.Compiler.Modules))
	}
	if nested, _ := policy.Data["nested"].(map[string]any); len(policy.Data) != 1 || len(nested) != 1 {
		t.Errorf("got data %v, want nested.x alone", policy.Data)
	}
}

func TestLoadFollowsLinksWithinReason(t *testing.T) {
	for name, c := range map[string]struct {
		link, to string
		want     []string
	}{
		"to the directory itself": {"loop", ".", []string{"policies/loop/loop", "symbolic link"}},
		"to itself":               {"loop.rego", "loop.rego", []string{"policies/loop.rego"}},
		"to nothing":              {"gone.rego", "nowhere", []string{"policies/gone.rego", "no such file"}},
		"to a device":             {"null.rego", os.DevNull, []string{"policies/null.rego", "want a file"}},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			must(t, os.WriteFile(filepath.Join(directory, "a.rego"), []byte(allowRego), 0o644))
			must(t, os.Symlink(c.to, filepath.Join(directory, c.link)))
			_, err := bundle.Load(t.Context(), os.DirFS(directory), bundle.LoadOptions{Name: "policies"})
			wantError(t, err, c.want...)
		})
	}
}

func TestLoadOfNoDirectory(t *testing.T) {
	_, err := bundle.Load(t.Context(), os.DirFS(filepath.Join(t.TempDir(), "gone")), bundle.LoadOptions{Name: "gone"})
	wantError(t, err, "reading policy: gone: no such file or directory")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
