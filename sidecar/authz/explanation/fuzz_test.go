package explanation_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/postern-authz/postern/sidecar/authz/explanation"
)

// What a person sees is bounded, valid UTF-8, and free of what a terminal would obey, whatever
// the policy and the question are.
func FuzzExplain(f *testing.F) {
	for _, seed := range [][2]string{
		{`decision := {"decision": false} if input.x == "\u001b[31m"`, `{"x":"\u001b[31mred\u202e"}`},
		{"default decision := false\ndecision if { some x in input.xs; every y in x { y > 1 } }", `{"xs":[[1,2],[3]]}`},
		{"decision contains {a: b} if { some a, b in input; not f(a) }\nf(x) := x if x != `\x1b]0;title\x07`", `{"k":"v"}`},
		{"decision[x].y := {z | z := input.a[_]} if some x in input.a", `{"a":["é\u0000",null,1e300]}`},
		{"decision := x if { x := data.scalekit.permissions[input.n] } else := y if { y := [1 | input.q with input as {\"q\": 1}] }", `{"n":"live"}`},
		{"decision if { a.b.c[input.x] }\na.b.c[x] := y if { some x, y in {\"k\": 1} }\na.b.d contains 1", `{"x":"k"}`},
		{"# \xff\ndecision := object.get(input, [\"a\", 1], {\"\xc3\x28\": `x\ny`}) == startswith(1, 2)", `{"a":{"b":[]}}`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, policy, question string) {
		module, err := ast.ParseModule("fuzz\x1b.rego", "package test\n"+policy)
		if err != nil {
			return
		}
		compiler := ast.NewCompiler().WithCapabilities(pure())
		if compiler.Compile(map[string]*ast.Module{"fuzz.rego": module}); compiler.Failed() {
			return
		}
		var native any
		if json.Unmarshal([]byte(question), &native) != nil {
			return
		}
		input, err := ast.InterfaceToValue(native)
		if err != nil {
			return
		}
		ctx, stop := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer stop()
		store := inmem.NewFromObject(map[string]any{"scalekit": map[string]any{"permissions": map[string]any{"live": map[string]any{"id": "\x1b"}}}})
		txn, err := store.NewTransaction(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel := topdown.NewCancel()
		context.AfterFunc(ctx, cancel.Cancel)
		x := explanation.Explain(ctx, explanation.Evaluation{
			Compiler: compiler, Store: store, Txn: txn, Decision: ast.MustParseRef("data.test.decision"), Input: input, Cancel: cancel,
			Verdict: explanation.Verdict{Reasons: []string{question}, Message: policy},
		})
		check(t, x)
	})
}

// pure leaves out what reaches beyond the evaluation.
func pure() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	kept := c.Builtins[:0]
	for _, b := range c.Builtins {
		if b.Name != "http.send" && b.Name != "net.lookup_ip_addr" && b.Name != "opa.runtime" {
			kept = append(kept, b)
		}
	}
	c.Builtins = kept
	return c
}

func check(t *testing.T, x *explanation.Explanation) {
	t.Helper()
	encoded, err := json.Marshal(x)
	if err != nil || len(encoded) > 512<<10 || len(x.Text) > 65<<10 {
		t.Errorf("%d bytes of JSON, %d of text, %v", len(encoded), len(x.Text), err)
	}
	if !strings.HasSuffix(x.Text, "\n") {
		t.Errorf("the text ends in the middle of a line: %q", x.Text[max(0, len(x.Text)-80):])
	}
	texts := []string{x.Text, x.Note}
	for _, c := range x.Failed {
		texts = append(texts, c.At, c.Rule, c.Text, c.Outcome)
		for _, v := range c.Values {
			texts = append(texts, v.Name, v.Value)
		}
	}
	for _, r := range x.Reads {
		texts = append(texts, r.Path, r.Value)
	}
	for i, text := range append(texts, x.Errors...) {
		if !utf8.ValidString(text) {
			t.Errorf("not UTF-8: %q", text)
		}
		if at := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && (r != '\n' || i > 0) }); at >= 0 {
			t.Errorf("can't be printed, at byte %d: %q", at, text)
		}
		for line := range strings.Lines(text) {
			if len(line) > 4096 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	}
}
