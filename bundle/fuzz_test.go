package bundle_test

import (
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
	})
}
