package bundle_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/bundle"
)

func named(t *testing.T, name string, files map[string]string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Load(t.Context(), tree(files), bundle.LoadOptions{Name: name})
	must(t, err)
	return b
}

func TestRoots(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"of the manifest":     {map[string]string{"a.rego": allowRego, ".manifest": `{"roots":["/x/","authz"]}`}, []string{"authz", "x"}},
		"of what it holds":    {map[string]string{"a.rego": allowRego, "b.rego": "package acme.roles", "data.json": `{"x":1,"y":{}}`, "p/q/data.yaml": "{}"}, []string{"acme/roles", "authz", "p/q", "x", "y"}},
		"all of data":         {map[string]string{"a.rego": allowRego, ".manifest": `{"roots":[""]}`}, []string{"authz"}},
		"none within another": {map[string]string{"a.rego": allowRego, "b.rego": "package authz.b", "authz/c/data.json": "1", "x.rego": "package authzb"}, []string{"authz", "authzb"}},
	} {
		if got := load(t, tree(c.files)).Roots(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestJoin(t *testing.T) {
	policy := named(t, "policy", map[string]string{"authz.rego": "package authz\n\nimport data.lib.x\n\ndecision if x.ok(data.acme.limit, data.acme.rate)\n", ".manifest": `{"revision":"3"}`})
	library := named(t, "library", map[string]string{"x.rego": "package lib.x\n\nok(a, b) if a < b\n", "acme/limit/data.json": "1"})
	data := named(t, "data", map[string]string{"acme/rate/data.json": "2", ".manifest": `{"revision":"4"}`})
	if _, err := policy.Compile(bundle.Options{}); err == nil {
		t.Error("the policy compiles without the library, so that joining them shows nothing")
	}
	joined, err := bundle.Join([]*bundle.Bundle{policy, library, data})
	must(t, err)
	if want := "3," + library.Revision() + ",4"; joined.Revision() != want || joined.Name() != "policy,library,data" {
		t.Errorf("got %q %q, want %q and the three names", joined.Revision(), joined.Name(), want)
	}
	if want := []string{"acme/limit", "acme/rate", "authz", "lib/x"}; !slices.Equal(joined.Roots(), want) {
		t.Errorf("got %q, want %q", joined.Roots(), want)
	}
	compiled, err := joined.Compile(bundle.Options{Decision: "authz/decision"})
	must(t, err)
	acme, _ := compiled.Data["acme"].(map[string]any)
	if len(acme) != 2 || len(compiled.Compiler.Modules) != 2 {
		t.Errorf("got data.acme %v and %d modules, want both", acme, len(compiled.Compiler.Modules))
	}
	if alone, err := bundle.Join([]*bundle.Bundle{policy}); alone != policy || err != nil {
		t.Errorf("got %v, %v, want a bundle alone to be itself", alone, err)
	}
	for _, b := range []*bundle.Bundle{library, data} {
		apart, err := b.Compile(bundle.Options{})
		must(t, err)
		if acme, _ := apart.Data["acme"].(map[string]any); len(acme) != 1 {
			t.Errorf("got data.acme %v in %s, want it as it was", acme, b.Name())
		}
	}
}

func TestJoinRefusesOverlaps(t *testing.T) {
	authz := named(t, "one", map[string]string{"a.rego": allowRego})
	for name, files := range map[string]map[string]string{
		"one package":      {"b.rego": allowRego},
		"a package below":  {"b.rego": "package authz.b"},
		"data of its name": {"data.json": `{"authz":{"x":1}}`},
		"data below":       {"authz/x/data.json": `1`},
		"a root above":     {"b.rego": "package b", ".manifest": `{"roots":["b","authz"]}`},
	} {
		_, err := bundle.Join([]*bundle.Bundle{authz, named(t, "other", map[string]string{"z.rego": "package z"}), named(t, "two", files)})
		if err == nil {
			t.Errorf("%s: got no error", name)
			continue
		}
		wantError(t, err, "one and two both claim data.authz", ".manifest")
	}
	_, err := bundle.Join(nil)
	wantError(t, err, "want at least one bundle")
	_, err = bundle.Join([]*bundle.Bundle{named(t, "same", map[string]string{"a.rego": "package a"}), named(t, "same", map[string]string{"a.rego": "package b"})})
	wantError(t, err, "same/a.rego", "two bundles")
}

func TestOlder(t *testing.T) {
	rising := [][]string{
		{"0", "1", "9", "10", "0011", "12", strings.Repeat("9", 40), "1" + strings.Repeat("0", 40)},
		{"0.9.9", "v1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "v1.0.1", "1.2.0+build.7", "1.10.0", "2.0.0"},
		{"2024-01-15T10:30:00+02:00", "2024-01-15T10:30:00Z", "2024-01-15T10:30:00.5Z", "2024-01-15T10:30:01Z"},
	}
	for i, list := range rising {
		for a := range list {
			for b := range list {
				if got := bundle.Older(list[a], list[b]); got != (a < b) {
					t.Errorf("Older(%q, %q) is %v", list[a], list[b], got)
				}
			}
			for _, other := range append(rising[(i+1)%3], "", "sha256:0123456789abcdef", "1,2", "-1", "1.0", "latest") {
				if bundle.Older(list[a], other) || bundle.Older(other, list[a]) {
					t.Errorf("%q and %q are compared", list[a], other)
				}
			}
		}
	}
	for _, same := range [][2]string{{"7", "007"}, {"1.0.0", "v1.0.0+x"}, {"2024-01-15T10:30:00Z", "2024-01-15T11:30:00+01:00"}, {"a", "b"}} {
		if bundle.Older(same[0], same[1]) || bundle.Older(same[1], same[0]) {
			t.Errorf("one of %q is older", same)
		}
	}
}
