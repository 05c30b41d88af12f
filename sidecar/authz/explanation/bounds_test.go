package explanation

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// A tracer remembers a bounded part of an evaluation that loops.
func TestATracerIsBounded(t *testing.T) {
	module := ast.MustParseModule("package test\ndecision if { some i in numbers.range(1, 9000); f(i, sprintf(\"%0200d\", [i])) }\nf(x, y) if { z := x + 1; contains(y, \"a\") }")
	compiler := ast.NewCompiler()
	if compiler.Compile(map[string]*ast.Module{"test.rego": module}); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	traced := newTracer(compiler, newRecorder(inmem.New()), ast.MustParseRef("data.test.decision"))
	_, err := rego.New(rego.Query("data.test.decision"), rego.Compiler(compiler), rego.QueryTracer(traced)).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(traced.order) != maxFrames || !traced.cutOff || traced.steps > maxSteps || traced.held > maxHeld+2*maxValue {
		t.Errorf("%d frames, %d steps, %d bytes, cut off %v", len(traced.order), traced.steps, traced.held, traced.cutOff)
	}
	for _, f := range traced.order {
		for _, s := range f.steps {
			if s != nil && (len(s.children) > maxChildren || len(s.failures) > maxFailures) {
				t.Fatalf("%d children, %d failures", len(s.children), len(s.failures))
			}
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain":              "plain",
		"  a\n\tb  ":         "a b",
		"\x1b[31mred":        `\x1b[31mred`,
		"\u202eevil":         `\u202eevil`,
		"\xff\xfe":           `\xff\xfe`,
		"é\u00a0ü":           `é\u00a0ü`,
		"zero\x00":           `zero\x00`,
		"0123456789abcdefgh": "0123456789abcdef…",
		"éééééééééé":         "éééééééé…",
	} {
		if got := printable(text, 16); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestShow(t *testing.T) {
	for rego, want := range map[string]string{
		`{"a": [1, null, true], "b": set()}`: `{"a": [1, null, true], "b": set()}`,
		`{3, 1}`:                             `{1, 3}`,
		`"a\"b\n"`:                           `"a\"b\n"`,
	} {
		if got := show(ast.MustParseTerm(rego).Value); got != want {
			t.Errorf("%s: got %s", rego, got)
		}
	}
	for _, value := range []ast.Value{
		ast.String(strings.Repeat("é", 1000)), ast.String(strings.Repeat("\x1b", 1000)),
		ast.NewArray(ast.StringTerm(strings.Repeat("x", 100)), ast.StringTerm(strings.Repeat("y", 100))), ast.Number(strings.Repeat("9", 500)),
	} {
		if got := show(value); len(got) > maxValue+8 || !strings.HasSuffix(got, "…") {
			t.Errorf("got %d bytes: %s", len(got), got)
		}
	}
}
