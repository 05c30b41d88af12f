package authz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/authz"
)

var update = flag.Bool("update", false, "write the golden files of explanations anew")

// scene is a question and what it is asked of.
type scene struct {
	policy   string // files in the policies of this repository, or in testdata/explain
	data     string
	question string
	claims   string // of a good token
	token    string // what is wrong with one
	options  authz.Options
}

const (
	complete   = `{"scalekit":{"permissions":{"data:manage":{"id":"perm_1","name":"data:manage","event_id":"evt_1"}},"deleted":{"data:old":{"id":"perm_2","event_id":"evt_2"}},"sync":{"revision":7,"complete":true,"state":"fresh"}},"postern":{"settings":{"on_incomplete":"deny"}}}`
	incomplete = `{"scalekit":{"permissions":{},"deleted":{},"sync":{"revision":0,"complete":false,"state":"stale"}},"postern":{"settings":{"on_incomplete":"deny"}}}`
)

var deferring = strings.Replace(incomplete, `"deny"`, `"defer"`, 1)

func ask(permission, subject, resource string) string {
	name, err := json.Marshal(permission)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return fmt.Sprintf(`{"subject":{"type":"user","id":"usr_1","properties":%s},"action":{"name":%s},"resource":{"type":"dataset","id":"ds_7","properties":%s}}`, subject, name, resource)
}

const (
	builtin  = "../../policies"
	customer = "testdata/explain/customer.rego"
)

// scenes has one for each reason of the built-in policy and of the floors below it, and a
// policy with the rest of Rego's constructs. Each is a golden file.
func scenes() map[string]scene {
	holding := `{"permissions":["data:manage","data:old","data:new"]}`
	mine := `{"sub":"usr_1","oid":"org_1","permissions":["data:manage"]}`
	return map[string]scene{
		"granted":               {policy: builtin, data: complete, question: ask("data:manage", holding, `{}`)},
		"granted_by_token":      {policy: builtin, data: complete, question: ask("data:manage", `{}`, `{"organization_id":"org_1"}`), claims: mine},
		"permission_deleted":    {policy: builtin, data: complete, question: ask("data:old", holding, `{}`)},
		"permission_unknown":    {policy: builtin, data: complete, question: ask("data:new", holding, `{}`)},
		"not_granted":           {policy: builtin, data: complete, question: ask("data:manage", `{"permissions":["data:read"]}`, `{}`)},
		"organization_mismatch": {policy: builtin, data: complete, question: ask("data:manage", `{"permissions":["data:manage"],"organization_id":"org_1"}`, `{"organization_id":"org_2"}`)},
		"organization_missing":  {policy: builtin, data: complete, question: ask("data:manage", holding, `{"organization_id":"org_2"}`)},
		"subject_mismatch":      {policy: builtin, data: complete, question: ask("data:manage", `{}`, `{}`), claims: `{"sub":"usr_2","permissions":["data:manage"]}`},
		"catalog_incomplete":    {policy: builtin, data: incomplete, question: ask("data:new", holding, `{}`)},
		"deferred":              {policy: builtin, data: deferring, question: ask("data:new", holding, `{}`)},
		"token_expired":         {policy: builtin, data: complete, question: ask("data:manage", holding, `{}`), token: "token_expired"},
		"floor_token_required":  {policy: builtin, data: complete, question: ask("data:manage", holding, `{}`), options: authz.Options{RequireToken: true}},
		"floor_token_expired":   {policy: builtin, data: complete, question: ask("data:manage", holding, `{}`), token: "token_expired", options: authz.Options{RequireToken: true}},
		"floor_catalog_stale":   {policy: builtin, data: incomplete, question: ask("data:manage", holding, `{}`), options: authz.Options{DenyStale: true}},

		"customer_allow":      {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:read","org":"org_1"},{"name":"data:manage","org":"any"}],"teams":["blue","red"]}`, `{"organization_id":"org_1","tags":["a","b"],"size":3}`)},
		"customer_every":      {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_1"}],"teams":["blue"]}`, `{"organization_id":"org_1","tags":["a","secret"],"size":3}`)},
		"customer_some":       {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:read","org":"org_1"},{"name":"data:write","org":"org_1"}],"teams":["blue"]}`, `{"organization_id":"org_1","tags":[],"size":3}`)},
		"customer_function":   {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_2"}],"teams":["blue"]}`, `{"organization_id":"org_1","tags":[],"size":3}`)},
		"customer_collection": {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_1"}],"teams":["grey","red"]}`, `{"organization_id":"org_1","tags":[],"size":3}`)},
		"customer_else":       {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_1"}],"teams":["blue"]}`, `{"organization_id":"org_1","tags":[],"size":500}`)},
		"customer_not":        {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_1"}],"teams":["blue"]}`, `{"organization_id":"org_1","tags":[],"size":3,"state":"archived"}`)},
		"customer_type":       {policy: customer, data: complete, question: ask("data:manage", `{"grants":[{"name":"data:manage","org":"org_1"}],"teams":[7]}`, `{"organization_id":"org_1","tags":[],"size":3}`)},
		"literal":             {policy: "testdata/explain/literal.rego", data: complete, question: ask("data:manage", `{"permissions":["data:manage"]}`, `{}`)},
		"either":              {policy: "testdata/explain/either.rego", data: complete, question: ask("data:manage", `{}`, `{}`)},
		"undefined_decision":  {policy: "testdata/explain/undefined.rego", data: complete, question: ask("data:manage", `{}`, `{}`)},
		"evaluation_error":    {policy: "testdata/explain/conflict.rego", data: complete, question: ask("data:manage", `{}`, `{}`)},
	}
}

// judge is a verifier that finds what it is told to.
type judge struct {
	claims ast.Value
	code   string
}

func (j judge) Verify(context.Context, string) (ast.Value, string) { return j.claims, j.code }

// modules are the policy's, and for the built-in one those of the library.
func (s scene) modules(t testing.TB) map[string]*ast.Module {
	t.Helper()
	modules := map[string]*ast.Module{}
	err := filepath.WalkDir(s.policy, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".rego") || strings.HasSuffix(path, "_test.rego") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, builtin+"/"), "testdata/")
		modules[name], err = ast.ParseModuleWithOpts(name, string(source), ast.ParserOptions{ProcessAnnotation: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return modules
}

func (s scene) engine(t testing.TB) (e *authz.Engine, token string) {
	t.Helper()
	compiler := ast.NewCompiler().WithStrict(true)
	if compiler.Compile(s.modules(t)); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	o := s.options
	o.Timeout, o.MaxInFlight, o.AllowExplain = 10*time.Second, 2, true
	switch {
	case s.claims != "":
		claims, err := authz.ParseClaims([]byte(s.claims))
		if err != nil {
			t.Fatal(err)
		}
		o.Tokens, token = judge{claims: claims}, secretToken
	case s.token != "":
		o.Tokens, token = judge{code: s.token}, secretToken
	}
	var data map[string]any
	if err := json.Unmarshal([]byte(s.data), &data); err != nil {
		t.Fatal(err)
	}
	e = authz.NewEngine(o)
	err := e.Use(context.Background(), authz.Policy{
		Compiler: compiler, Store: inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true)),
		Decision: ast.MustParseRef("data.authz.decision"), Revision: "r1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, token
}

const secretToken = "eyJ.this-is-the-secret-token.xyz"

// Each reason is explained as the golden file of its name shows; the decision is the one that
// is given without an explanation, and the token is nowhere.
func TestExplanations(t *testing.T) {
	for name, s := range scenes() {
		t.Run(name, func(t *testing.T) {
			e, token := s.engine(t)
			explained, err := e.Explain(context.Background(), []byte(s.question), token)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := e.Decide(context.Background(), []byte(s.question), token)
			if err != nil {
				t.Fatal(err)
			}
			if plain.Explanation != nil {
				t.Error("a question that wasn't to be explained is")
			}
			same(t, plain, explained)
			if token != "" { // in the question, it is as secret
				question := strings.Replace(s.question, "{", `{"context":{"access_token":"`+token+`"},`, 1)
				if explained, err = e.Explain(context.Background(), []byte(question), ""); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(explained.Explanation.Text, "secret-token") {
					t.Error("the token is told")
				}
				explained, err = e.Explain(context.Background(), []byte(s.question), token)
			}
			if err != nil {
				t.Fatal(err)
			}
			answer, err := explained.AppendJSON(nil)
			if err != nil || !json.Valid(answer) || bytes.Contains(answer, []byte("secret-token")) {
				t.Errorf("got %s, %v", answer, err)
			}
			golden(t, filepath.Join("testdata", "explain", name+".txt"), explained.Explanation.Text)
		})
	}
}

// same compares two answers but for their ids and the explanation.
func same(t testing.TB, plain, explained authz.Decision) {
	t.Helper()
	plain.ID, explained.ID, explained.Explanation = "", "", nil
	want, err := plain.AppendJSON(nil)
	got, otherErr := explained.AppendJSON(nil)
	if err != nil || otherErr != nil || !bytes.Equal(want, got) {
		t.Errorf("explained %s, not explained %s, %v, %v", got, want, err, otherErr)
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%v; got\n%s\nwant\n%s", err, got, want)
	}
}

// The members tell what the text does: who decided, what failed with which values, what was
// read.
func TestExplanationIsStructured(t *testing.T) {
	s := scenes()["not_granted"]
	e, _ := s.engine(t)
	d, err := e.Explain(context.Background(), []byte(s.question), "")
	if err != nil {
		t.Fatal(err)
	}
	x := d.Explanation
	if x.Decided == nil || x.Decided.Rule != "data.authz.decision" || !strings.HasPrefix(x.Decided.At, "authz/authz.rego:") || !strings.Contains(x.Decided.Value, `"not_granted"`) {
		t.Errorf("decided: %+v", x.Decided)
	}
	found := false
	for _, c := range x.Failed {
		if c.Text == "input.action.name in _held" {
			found = c.Outcome == "false" && c.Rule == "data.authz._granted" && fmt.Sprint(c.Values) == `[{input.action.name "data:manage"} {_held ["data:read"]}]`
		}
	}
	if !found {
		t.Errorf("failed: %+v", x.Failed)
	}
	if len(x.Reads) == 0 || x.Reads[0].Path != `data.scalekit.permissions["data:manage"]` || !strings.Contains(x.Reads[0].Value, "perm_1") {
		t.Errorf("reads: %+v", x.Reads)
	}
	if x.CutOff || x.Note != "" {
		t.Errorf("cut off %v, note %q", x.CutOff, x.Note)
	}
}

// An explained question is decided as one that isn't, whatever it is.
func TestExplainingChangesNoDecision(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 11))
	for _, policy := range []string{builtin, customer, rolesPolicy(t)} {
		for _, data := range []string{complete, incomplete, deferring, roles} {
			for _, kind := range []scene{{}, {claims: `{"sub":"usr_1","oid":"org_1","permissions":["data:manage"],"roles":["editor"]}`}, {claims: `{"sub":7,"roles":"editor"}`}, {token: "token_expired"}} {
				kind.policy, kind.data = policy, data
				e, token := kind.engine(t)
				for range 12 {
					question := []byte(randomQuestion(random))
					plain, err := e.Decide(context.Background(), question, token)
					if err != nil {
						t.Fatal(err)
					}
					explained, err := e.Explain(context.Background(), question, token)
					if err != nil {
						t.Fatal(err)
					}
					same(t, plain, explained)
					if explained.Explanation.Note != "" || explained.Explanation.CutOff {
						t.Errorf("%s: %q, cut off %v", question, explained.Explanation.Note, explained.Explanation.CutOff)
					}
					if t.Failed() {
						t.Fatalf("policy %s, data %s, question %s", policy, data, question)
					}
				}
			}
		}
	}
}

const roles = `{"scalekit":{"permissions":{"data:manage":{"id":"perm_1"}},"deleted":{},"roles":{"editor":{"id":"role_1","name":"editor","permissions":["data:manage","data:old"]}},"sync":{"revision":1,"complete":true}},"postern":{"settings":{"on_incomplete":"deny"}}}`

// rolesPolicy is a policy that answers by the library of roles.
func rolesPolicy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "lib"), os.DirFS(filepath.Join(builtin, "lib"))); err != nil {
		t.Fatal(err)
	}
	policy := "package authz\n\ndefault decision := false\n\ndecision if data.lib.roles.holds(input.action.name)\n"
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func randomQuestion(random *rand.Rand) string {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	return ask(pick("data:manage", "data:old", "data:new", "\u202e\x1b[31m"),
		pick(`{}`, `{"permissions":["data:manage","data:new"],"organization_id":"org_1"}`, `{"permissions":{"x":"data:manage"}}`, `{"permissions":["data:old"]}`,
			`{"grants":[{"name":"data:manage","org":"any"},{"name":"data:manage","org":"org_2"}],"teams":["blue","red"]}`, `{"grants":7,"teams":null}`),
		pick(`{}`, `{"organization_id":"org_1","tags":["a"],"size":1}`, `{"organization_id":"org_2","tags":["secret"],"size":500}`, `{"organization_id":null}`, `{"organization_id":"org_1","state":"archived","tags":{},"size":"x"}`))
}

// What a policy takes from elsewhere may be another the second time, and that is told.
func TestAnExplanationThatDiffersSaysSo(t *testing.T) {
	e := engineThatExplains(t, document(), `decision := {"decision": true, "n": uuid.rfc4122("x")}`, time.Second)
	if d, err := e.Explain(context.Background(), []byte(body("live")), ""); err != nil || !d.Allow || !strings.Contains(d.Explanation.Note, "another answer") {
		t.Errorf("got %+v, %v", d.Explanation, err)
	}
}

func engineThatExplains(t testing.TB, store storage.Store, rego string, timeout time.Duration) *authz.Engine {
	t.Helper()
	e := authz.NewEngine(authz.Options{Timeout: timeout, MaxInFlight: 8, AllowExplain: true})
	if err := e.Use(context.Background(), policy(t, store, rego)); err != nil {
		t.Fatal(err)
	}
	return e
}

// A policy that loops fills neither memory nor the answer, and ends with the timeout of any
// question.
func TestAnExplanationIsBounded(t *testing.T) {
	for name, rego := range map[string]string{
		"a loop":                `decision if { some i in numbers.range(1, 120); some j in numbers.range(1, 120); i * j == -1 }`,
		"a loop over functions": "decision if { some i in numbers.range(1, 5000); f(i) }\nf(x) if { y := x + 1; y == g(x) }\ng(x) := x * 2 if x < 0",
		"large values":          `decision if { x := [i | some i in numbers.range(1, 20000)]; x[_] == -1 }`,
		"many rules":            manyRules(3000),
		"a chain":               chain(300),
	} {
		t.Run(name, func(t *testing.T) {
			e := engineThatExplains(t, document(), rego, 30*time.Second)
			d, err := e.Explain(context.Background(), []byte(body("live")), "")
			if err != nil {
				t.Fatal(err)
			}
			answer, err := d.AppendJSON(nil)
			if err != nil || len(answer) > 256<<10 || len(d.Explanation.Text) > 66<<10 {
				t.Errorf("%d bytes, %d of text, %v", len(answer), len(d.Explanation.Text), err)
			}
		})
	}
	e := engineThatExplains(t, document(), `decision := true if { some i in numbers.range(1, 1); i == 1 } else := x if { x := [i | some i in numbers.range(1, 100000000)] }`, 200*time.Millisecond)
	if d, err := e.Explain(context.Background(), []byte(body("live")), ""); err != nil || !d.Allow {
		t.Errorf("got %+v, %v", d, err)
	}
	e = engineThatExplains(t, document(), `decision if { some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == -1 }`, 100*time.Millisecond)
	d, err := e.Explain(context.Background(), []byte(body("live")), "")
	if err != nil || d.Allow || d.Reasons[0] != authz.ReasonEvaluationTimeout || d.Explanation.Note == "" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("decision if { count(r) > 100000 }\n")
	for i := range n {
		fmt.Fprintf(&b, "r contains %d if { input.subject.id == \"%d\" }\n", i, i)
	}
	return b.String()
}

func chain(n int) string {
	var b strings.Builder
	b.WriteString("decision if r0\n")
	for i := range n {
		fmt.Fprintf(&b, "r%d if r%d\n", i, i+1)
	}
	return b.String() + fmt.Sprintf("r%d if false", n)
}

// A catalog that can't be read is a deny that isn't the policy's, and is explained as such.
func TestAFailedReadIsExplained(t *testing.T) {
	for _, rego := range []string{`decision if { not data.scalekit.permissions[input.action.name] }`, `decision := true`} {
		e := engineThatExplains(t, failingRead{document()}, rego, time.Second)
		d, err := e.Explain(context.Background(), []byte(body("broken")), "")
		if err != nil || d.Allow || d.Reasons[0] != authz.ReasonCatalogUnavailable || d.Explanation.Decided != nil || !strings.HasPrefix(d.Explanation.Text, "deny  catalog_unavailable\n") || strings.Contains(d.Explanation.Text, "sda1") {
			t.Errorf("%s: got %+v, %+v, %v", rego, d, d.Explanation, err)
		}
	}
}

// A policy's own member of that name doesn't get through, explained or not.
func TestExplanationIsReserved(t *testing.T) {
	e := engineThatExplains(t, document(), `decision := {"decision": true, "explanation": "mine", "ttl": 5}`, time.Second)
	for _, ask := range []func(context.Context, []byte, string) (authz.Decision, error){e.Decide, e.Explain} {
		d, err := ask(context.Background(), []byte(body("live")), "")
		if err != nil {
			t.Fatal(err)
		}
		answer, err := d.AppendJSON(nil)
		if err != nil || bytes.Contains(answer, []byte(`"explanation":"mine"`)) || !bytes.Contains(answer, []byte(`"ttl":5`)) {
			t.Errorf("got %s, %v", answer, err)
		}
	}
}

// Few questions are explained at once; others are decided meanwhile.
func TestExplainedAtOnce(t *testing.T) {
	store := blocking{document(), make(chan struct{}), make(chan struct{})}
	e := engineThatExplains(t, store, `decision if { not data.scalekit.permissions[input.action.name] }`, 2*time.Second)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = e.Explain(context.Background(), []byte(body("wait")), "") })
		<-store.entered
	}
	if d := decide(t, e, "other"); !d.Allow {
		t.Errorf("one that isn't explained: %+v", d)
	}
	ctx, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	d, err := e.Explain(ctx, []byte(body("other")), "")
	if err != nil || d.Allow || d.Reasons[0] != authz.ReasonEvaluationTimeout || d.Explanation == nil {
		t.Errorf("a third one: %+v, %v", d, err)
	}
	go func() {
		for range store.entered { // what is read afterwards
		}
	}()
	close(store.release)
	wg.Wait()
}

// Questions are explained while others are decided and policies replaced.
func TestExplainingBesideDeciding(t *testing.T) {
	s := scenes()["customer_else"]
	e, _ := s.engine(t)
	compiler := ast.NewCompiler().WithStrict(true)
	if compiler.Compile(s.modules(t)); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	question := []byte(s.question)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 10 {
				ask := e.Decide
				if i < 3 {
					ask = e.Explain
				}
				if d, err := ask(context.Background(), question, ""); err != nil || d.Allow || d.Reasons[0] != "no_grant" {
					t.Errorf("got %+v, %v", d, err)
				}
			}
		})
	}
	for range 5 {
		next := authz.Policy{Compiler: compiler, Store: document(), Decision: ast.MustParseRef("data.authz.decision"), Revision: "r2"}
		if err := e.Use(context.Background(), next); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
