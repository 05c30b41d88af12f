package author_test

import (
	"os"
	"testing"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// Whatever is written as a policy is looked at, and ends in findings with a place in it.
func FuzzCheck(f *testing.F) {
	f.Add("package a\n\np if input.action.name in data.a.q\n\nq contains x if {\n\tsome x in data.a.q\n\tx == input.action.name\n}")
	f.Add("package a\n\nf(x) := g(x)\n\ng(x) := x if data.scalekit.permissions[x]\n\np if f([\"a\"][_]) == {k: v | some k, v in {\"a\": \"b\"}}[input.action.name]")
	f.Add("package a\n\np if {\n\tx = y\n\ty = input.action.name\n\tx in {y, \"b\"} | {z | some z in input.token.claims.permissions}\n\tdata.scalekit[_][x]\n}")
	f.Add("package a\n\np := 1 if data[x].y == x\n\nelse := {1: [data.scalekit.deleted[_]]}\n\nq[a].b contains c if {\n\ta := \"x\"\n\tc := a\n\twalk(data.a.p, [_, c])\n}")
	f.Add("package a\n\np if every k, v in {\"x\": [1]} { data.a.q[k].b[v[_]] with data.scalekit as k with input.action.name as v }")
	f.Fuzz(func(t *testing.T, source string) {
		t.Chdir(t.TempDir())
		if err := os.WriteFile("a.rego", []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		findings, err := author.Check{Source: author.Source{Schemas: policies.Schemas()}, Catalog: known(), Unused: true}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range findings {
			if found.Rule != author.RuleUnused && found.File != "a.rego" && found.Rule != author.RuleLoad {
				t.Errorf("%v has no place", found)
			}
		}
	})
}
