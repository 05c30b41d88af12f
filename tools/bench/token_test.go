package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
)

// smallTraces are those of the suite with five new tokens, and the keys to their tokens.
func smallTraces(t *testing.T, c *catalog) (traces tokenTraces, keys []byte) {
	t.Helper()
	m, err := newMint(c.firstHeld())
	if err != nil {
		t.Fatal(err)
	}
	if traces, err = m.traces(3, 2); err != nil {
		t.Fatal(err)
	}
	if keys, err = m.keySet(); err != nil {
		t.Fatal(err)
	}
	return traces, keys
}

// carried takes the token out of a question, and returns both.
func carried(t *testing.T, q question) (rest, signed string) {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(q.body, &body); err != nil {
		t.Fatal(err)
	}
	within := body["context"].(map[string]any)
	signed, _ = within[accessToken].(string)
	delete(within, accessToken)
	delete(within, unreadToken)
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), signed
}

func TestTheQuestionsDifferInTheTokenAlone(t *testing.T) {
	traces, _ := smallTraces(t, newCatalog(2*heldCount))
	var seen [tokenKinds]map[string]int
	for kind := range tokenKinds {
		seen[kind] = map[string]int{}
		for _, trace := range [][]question{traces.loaded[kind], traces.alone[kind]} {
			for i, q := range trace {
				rest, signed := carried(t, q)
				if want, _ := carried(t, traces.loaded[withoutToken][i]); rest != want {
					t.Errorf("%s, question %d: want %s, got %s", kind, i, want, rest)
				}
				seen[kind][signed]++
			}
		}
	}
	if seen[withoutToken][""] != 2*heldCount {
		t.Error("without a token: got some")
	}
	if len(seen[repeatedToken]) != 1 || seen[repeatedToken][""] > 0 || len(seen[newToken]) != 5 || seen[newToken][""] > 0 {
		t.Errorf("want one that is repeated and five that are new, got %d and %d", len(seen[repeatedToken]), len(seen[newToken]))
	}
	unread, repeated := traces.alone[withoutToken][0].body, traces.alone[repeatedToken][0].body
	if len(unread) != len(repeated) || len(traces.loaded[withoutToken][0].body) >= len(unread)-1000 {
		t.Errorf("want a token that is there and isn't read, got %s", unread)
	}
	for signed := range seen[repeatedToken] {
		if seen[newToken][signed] > 0 {
			t.Error("the one that is repeated is also among the new ones")
		}
	}
}

// The policies as they are for OPA decide all questions as the traces say, the one without a
// token included.
func TestOPADecidesTheSameByItsBuiltin(t *testing.T) {
	c := newCatalog(2 * heldCount)
	traces, keys := smallTraces(t, c)
	dir := t.TempDir()
	if err := copyPolicies("../../policies", filepath.Join(dir, "policies")); err != nil {
		t.Fatal(err)
	}
	if err := judgeTokensIn(filepath.Join(dir, "policies"), keys); err != nil {
		t.Fatal(err)
	}
	if err := judgeTokensIn(filepath.Join(dir, "policies"), keys); err == nil {
		t.Error("want an error where input.token isn't read")
	}
	if err := writeFile(filepath.Join(dir, "data.json"), c.writeData); err != nil {
		t.Fatal(err)
	}
	query, err := rego.New(rego.Query("decision := data.authz.decision"), rego.Load([]string{filepath.Join(dir, "policies"), filepath.Join(dir, "data.json")}, nil)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := traces.forged
	for kind := range tokenKinds {
		asked = append(append(asked, traces.loaded[kind]...), traces.alone[kind]...)
	}
	for i, q := range asked {
		var input any
		if err := json.Unmarshal(q.body, &input); err != nil {
			t.Fatal(err)
		}
		results, err := query.Eval(t.Context(), rego.EvalInput(input))
		if err != nil || len(results) != 1 {
			t.Fatalf("question %d: %v, error %v", i, results, err)
		}
		answer, err := json.Marshal(map[string]any{"result": results[0].Bindings["decision"]})
		if err != nil {
			t.Fatal(err)
		}
		if err := opaTarget("", asked).check(i, answer); err != nil {
			t.Error(err)
		}
	}
}

func TestRunsGoOnInTheTrace(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		asked[string(body)]++
		mu.Unlock()
		_, _ = w.Write(body)
	}))
	defer server.Close()
	long := &target{addr: server.Listener.Addr().String(), check: func(int, []byte) error { return nil }}
	for i := range 200_000 {
		long.requests = append(long.requests, render("/", fmt.Appendf(nil, "%d", i)))
	}
	for range 3 {
		if _, err := long.drive(context.Background(), 3, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	for question, times := range asked {
		if times != 1 {
			t.Fatalf("question %s was asked %d times", question, times)
		}
	}
}

func TestTokensAreCountedAsWhatTheyShouldBe(t *testing.T) {
	const text = `postern_token_verifications_total{outcome="verified"} 5
postern_token_verifications_total{outcome="remembered"} 90
postern_token_verifications_total{outcome="token_invalid"} 7
`
	got, err := parseVerifications(text)
	if err != nil || got != (verifications{5, 90}) || got.since(verifications{5, 40}) != (verifications{0, 50}) {
		t.Errorf("got %v, error %v", got, err)
	}
	if _, err := parseVerifications(`postern_token_verifications_total{outcome="remembered"} x`); err == nil {
		t.Error("want an error for what is no number")
	}
	for _, test := range []struct {
		counted verifications
		right   []tokenKind
	}{
		{verifications{0, 0}, []tokenKind{withoutToken}},
		{verifications{0, 9}, []tokenKind{repeatedToken}},
		{verifications{9, 0}, []tokenKind{newToken}},
		{verifications{9, 9}, nil},
	} {
		var right []tokenKind
		for kind := range tokenKinds {
			if test.counted.check(kind) == nil {
				right = append(right, kind)
			}
		}
		if fmt.Sprint(right) != fmt.Sprint(test.right) {
			t.Errorf("%v: right for %v, want %v", test.counted, right, test.right)
		}
	}
}

func TestWhatATokenAddsIsComparedRoundByRound(t *testing.T) {
	suite := &tokens{alone: map[*contender]*lone{}}
	at := func(microseconds ...float64) *contender {
		c := &contender{}
		for _, n := range microseconds {
			c.legs = append(c.legs, leg{perSecond: 1e6 / n})
		}
		suite.alone[c] = &lone{medians: microseconds}
		return c
	}
	suite.postern = [tokenKinds]*contender{at(100, 200, 300), at(105, 206, 302), at(200, 280, 400)}
	suite.opa = [tokenKinds]*contender{at(150, 250, 350), at(250, 370, 430), at(200, 330, 550)}
	suite.opaRemembering = at(170, 280, 400)
	costs := suite.costs()
	if got, want := costs.posternRepeated.over(costs.posternNew), (spread{0.05, 0.02, 0.075}); got != want {
		t.Errorf("want %v, got %v", want, got)
	}
	var b strings.Builder
	costs.write(&b)
	suite.writeRatios(&b)
	for _, want := range []string{
		"| **Postern: a repeated token / a new one** | 0.05 | 0.02 | 0.07 |\n",
		"| **a repeated token: Postern / OPA's `io.jwt.decode_verify`, as shipped** | 0.05 | 0.03 | 0.05 |\n",
		"| a repeated token: Postern / OPA with its cache of tokens on | 0.20 | 0.04 | 0.25 |\n",
		"| a new token: Postern / OPA | 1.00 | 0.50 | 2.00 |\n",
		"| OPA with its cache, a repeated token, adds | 30.00 | 20.00 | 50.00 |\n",
		"| OPA, the question with an unread token | 250.00 | 150.00 | 350.00 |\n",
		"| Postern: a new token / without one | 0.71 | 0.50 | 0.75 |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in %s", want, b.String())
		}
	}
	if bars := costs.plot().bars; len(bars) != 5 || bars[1].median != 100 {
		t.Errorf("want five bars, the second one of 100, got %v", bars)
	}
}
