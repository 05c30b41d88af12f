package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseResponse(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct {
		text   string
		status int
		body   string
		fails  bool
	}{
		"length":             {text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", status: 200, body: "abc"},
		"length, other case": {text: "HTTP/1.1 503 Away\r\nX: 1\r\ncontent-length:0\r\n\r\n", status: 503},
		"chunks":             {text: chunked + "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", status: 200, body: "abc"},
		"no content":         {text: "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", status: 204},
		"no chunk":           {text: chunked + "0\r\n\r\n", status: 200},
		"no end":             {text: "HTTP/1.1 200 OK\r\n\r\n", fails: true},
		"hangs up":           {text: "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", fails: true},
		"negative length":    {text: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", fails: true},
		"bad chunk":          {text: chunked + "zz\r\nab\r\n", fails: true},
		"unclosed chunk":     {text: chunked + "1\r\nabc\r\n", fails: true},
		"another protocol":   {text: "SSH-2.0-x\r\nmore of it\r\n\r\n", fails: true},
		"no status":          {text: "HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var p responseParser
			status, body, size, err := p.parse([]byte(c.text + "behind"))
			if c.fails {
				if err == nil {
					t.Fatalf("want an error, got status %d and body %q", status, body)
				}
				return
			}
			if err != nil || status != c.status || string(body) != c.body || size != len(c.text) {
				t.Fatalf("got status %d, body %q, size %d of %d, error %v", status, body, size, len(c.text), err)
			}
			for cut := range len(c.text) {
				if _, _, size, err := p.parse([]byte(c.text[:cut])); size != 0 || err != nil {
					t.Fatalf("cut at %d: want it incomplete, got size %d, error %v", cut, size, err)
				}
			}
		})
	}
}

func TestHistogramPercentiles(t *testing.T) {
	var whole, other histogram
	random := rand.New(rand.NewPCG(1, 2))
	var values []time.Duration
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		values = append(values, d)
		if i%2 == 0 {
			whole.add(d)
		} else {
			other.add(d)
		}
	}
	whole.merge(&other)
	slices.Sort(values)
	for _, p := range []float64{1, 50, 99, 99.9, 100} {
		exact := values[int(p/100*float64(len(values)))-1]
		if got := whole.percentile(p); got < exact || float64(got) > 1.016*float64(exact)+1 {
			t.Errorf("p%g: want %v or up to 1.6 %% more, got %v", p, exact, got)
		}
	}
	if got := new(histogram).percentile(99); got != 0 {
		t.Errorf("want 0 of nothing, got %v", got)
	}
}

func TestHistogramBucketsMeet(t *testing.T) {
	for i := range buckets - 1 {
		if edge := upperEdge(i); bucketOf(edge) != i || bucketOf(edge+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which lies in %d, and the next value in %d", i, edge, bucketOf(edge), bucketOf(edge+1))
		}
	}
	if bucketOf(-1) != 0 || bucketOf(1<<62) != buckets-1 {
		t.Error("want what lies outside in the first and the last bucket")
	}
}

func TestTraceIsTheSameEachTimeAndOfTheSaidMix(t *testing.T) {
	c := newCatalog(1000)
	trace, err := newTrace(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newTrace(newCatalog(1000))
	if err != nil {
		t.Fatal(err)
	}
	live := map[string]bool{}
	for _, r := range c.live {
		live[r.Name] = true
	}
	allowed, asked := 0, map[string]int{}
	for i, q := range trace {
		if !bytes.Equal(q.body, again[i].body) {
			t.Fatalf("question %d differs: %s and %s", i, q.body, again[i].body)
		}
		checkQuestion(t, q, live)
		asked[q.name]++
		if q.allow {
			allowed++
		}
	}
	if percent := 100 * allowed / len(trace); percent < 77 || percent > 83 {
		t.Errorf("want about 80 %% allowed, got %d %%", percent)
	}
	if most := asked[c.live[0].Name]; most < len(trace)/20 {
		t.Errorf("want the most frequent name in at least each twentieth question, got it %d times", most)
	}
}

// checkQuestion judges a question by itself.
func checkQuestion(t *testing.T, q question, live map[string]bool) {
	t.Helper()
	var asked struct {
		Subject struct {
			Properties struct{ Permissions []string }
		}
		Action struct{ Name string }
	}
	if err := json.Unmarshal(q.body, &asked); err != nil {
		t.Fatal(err)
	}
	held := asked.Subject.Properties.Permissions
	if allow := live[asked.Action.Name] && slices.Contains(held, asked.Action.Name); allow != q.allow || len(held) != heldCount {
		t.Fatalf("want decision %t and %d permissions in %s", q.allow, heldCount, q.body)
	}
}

func TestTargetsTakeTheRightAnswerAlone(t *testing.T) {
	trace := []question{{allow: true, reason: "granted"}, {reason: "not_granted"}}
	for name, c := range map[string]struct {
		target *target
		wrap   func(answer string) string
	}{
		"postern": {posternTarget("", trace), func(answer string) string { return answer }},
		"opa":     {opaTarget("", trace), func(answer string) string { return `{"result":` + answer + `}` }},
	} {
		t.Run(name, func(t *testing.T) {
			granted := map[string]string{
				"postern": `{"decision":true,"context":{"reasons":["granted"],"decision_id":"x"}}`,
				"opa":     `{"decision":true,"reasons":["granted"]}`,
			}[name]
			spaced := strings.ReplaceAll(granted, ":", ": ")
			for _, right := range []string{granted, spaced} {
				if err := c.target.check(0, []byte(c.wrap(right))); err != nil {
					t.Errorf("the right answer: %v", err)
				}
			}
			other := strings.Replace(granted, `"granted"`, `"deferred"`, 1)
			for _, wrong := range []string{`{}`, `[`, other, strings.Replace(granted, "true", "false", 1)} {
				if c.target.check(0, []byte(c.wrap(wrong))) == nil {
					t.Errorf("want an error for %s", wrong)
				}
			}
			if c.target.check(1, []byte(c.wrap(granted))) == nil {
				t.Error("want an error for an allow where a deny is right")
			}
		})
	}
}

func TestDriveCountsWhatTheServerAnswered(t *testing.T) {
	answered := make(chan struct{}, 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answered <- struct{}{}
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	bodies := []string{"first", "second", "third"}
	echo := &target{addr: server.Listener.Addr().String(), check: func(i int, body []byte) error {
		if string(body) != bodies[i] {
			t.Errorf("question %d: got %q", i, body)
		}
		return nil
	}}
	for _, body := range bodies {
		echo.requests = append(echo.requests, render("/", []byte(body)))
	}
	l, err := echo.drive(context.Background(), 2, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if counted := int(l.latencies.total); counted == 0 || counted != len(answered) {
		t.Errorf("want what the server counted, %d, got %d", len(answered), counted)
	}
}

func TestDriveFailsOnAWrongAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"decision":true}`)
	}))
	defer server.Close()
	wrong := posternTarget(server.Listener.Addr().String(), []question{{body: []byte("{}"), reason: "not_granted"}})
	if _, err := wrong.drive(context.Background(), 1, time.Minute); err == nil || !strings.Contains(err.Error(), "want decision false") {
		t.Errorf("want the wrong answer as an error, got %v", err)
	}
}

func TestConstantEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	said := newLine()
	ended := make(chan error, 1)
	go func() { ended <- serveConstant(ctx, said) }()
	addr := strings.TrimSpace(<-said.text)
	l, err := constantTarget(addr, []question{{body: []byte("{}")}}).drive(ctx, 1, 10*time.Millisecond)
	if err != nil || l.latencies.total == 0 {
		t.Errorf("want answers, got %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		t.Error("want nobody to listen any more", conn.Close())
	}
}

// line is a writer that hands on what is written.
type line struct{ text chan string }

func newLine() line { return line{make(chan string, 1)} }

// Write hands p on.
func (l line) Write(p []byte) (int, error) {
	l.text <- string(p)
	return len(p), nil
}

func TestReplaceSection(t *testing.T) {
	page := func(door string) string {
		return "before\n<!-- bench:calm:begin, by hand -->\nkept\n<!-- bench:calm:end -->\n" +
			"<!-- bench:door:begin, by hand -->\n" + door + "<!-- bench:door:end -->\nafter\n"
	}
	got, err := replaceSection(page("old\n"), "door", "new\n")
	if want := page("new\n"); err != nil || got != want {
		t.Errorf("got %q, error %v", got, err)
	}
	for name, text := range map[string]string{
		"no markers":    "text\n",
		"another suite": "<!-- bench:doorway:begin -->\n<!-- bench:doorway:end -->\n",
		"open comment":  "<!-- bench:door:begin\n-->\n<!-- bench:door:end -->\n",
		"no end":        "<!-- bench:door:begin -->\n",
		"end before it": "<!-- bench:door:end -->\n<!-- bench:door:begin -->\n",
	} {
		if _, err := replaceSection(text, "door", "new\n"); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0")
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("want %v, got %v, error %v", want, got, err)
	}
	if _, err := parseStat("7 (x) S 1"); err == nil {
		t.Error("want an error for too few fields")
	}
}

func TestDefaultOf(t *testing.T) {
	help := "  --lru-size\n        hot records (default 10000)\n  --other\n        (default 1)\n"
	if got, err := defaultOf("lru-size", help); err != nil || got != "10000" {
		t.Errorf("want 10000, got %q, error %v", got, err)
	}
	if _, err := defaultOf("lru", help); err == nil {
		t.Error("want an error for a setting that the help doesn't know")
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("want 2, got %g", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("want 2.5, got %g", got)
	}
}
