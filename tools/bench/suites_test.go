package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptionsTellTheCommand(t *testing.T) {
	o, err := readOptions([]string{"-suite", "calm,door", "-rounds", "3", "-out", "x.md"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.suites) != 2 || o.suites[0].name != "calm" || o.suites[1].name != "door" {
		t.Errorf("want the suites in the order of the flag, got %d", len(o.suites))
	}
	if got, want := o.command("door"), "go -C tools/bench run . -suite door -rounds 3 -out ../../docs/benchmarks.md"; got != want {
		t.Errorf("want %s, got %s", want, got)
	}
	for _, args := range [][]string{{"-suite", "doors"}, {"-suite", "door,"}, {"-rounds", "0"}, {"-calm-seconds", "0"}, {"-events", "-1"}, {"door"}} {
		if _, err := readOptions(args, io.Discard); err == nil {
			t.Errorf("want an error for %v", args)
		}
	}
	if all, err := readOptions(nil, io.Discard); err != nil || len(all.suites) != len(suites()) {
		t.Errorf("want all suites without the flag, got %d, error %v", len(all.suites), err)
	}
}

func TestASuiteWritesItsSectionBeforeTheNextOneRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	const page = "<!-- bench:first:begin -->\n<!-- bench:first:end -->\n"
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	first := func(context.Context, options, io.Writer) (section, error) {
		return section{markdown: "told\n", plots: map[string]string{"first.svg": "<svg/>"}}, nil
	}
	second := func(context.Context, options, io.Writer) (section, error) {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "-suite first -out") || !strings.HasSuffix(string(text), "told\n<!-- bench:first:end -->\n") {
			t.Errorf("want the first section, got %s, error %v", text, err)
		}
		return section{}, broken
	}
	var printed bytes.Buffer
	err := runSuites(context.Background(), options{out: path, suites: []suite{{"first", first}, {"second", second}}}, &printed, io.Discard)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "second") {
		t.Errorf("want the error of the second suite, got %v", err)
	}
	plot, err := os.ReadFile(filepath.Join(filepath.Dir(path), "plots", "first.svg"))
	if err != nil || string(plot) != "<svg/>" || !strings.HasSuffix(printed.String(), "told\n") {
		t.Errorf("want the plot and the text, got %q and %q, error %v", plot, printed.String(), err)
	}
}

// Each suite of the registry has a place in the page that it writes.
func TestThePageHasAPlaceForEachSuite(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range suites() {
		if _, err := replaceSection(string(text), s.name, ""); err != nil {
			t.Error(err)
		}
	}
}

func TestParseLookups(t *testing.T) {
	const text = `# TYPE postern_catalog_lookups_total counter
postern_catalog_lookups_total{kind="deleted",result="hit"} 5
postern_catalog_lookups_total{result="hit"} 90 1700000000000
postern_catalog_lookups_total{result="miss"} 1e+01
postern_catalog_lookups_total{result="missing"} 7
postern_catalog_lookups_total_other{result="miss"} 7
postern_catalog_revision 7
`
	got, err := parseLookups(text)
	if want := (lookups{95, 10}); err != nil || got != want {
		t.Errorf("want %v, got %v, error %v", want, got, err)
	}
	if got := got.since(lookups{5, 0}).ratio(); got != "90.00 % of 100 lookups" {
		t.Errorf("got %s", got)
	}
	if none, err := parseLookups("postern_catalog_revision 7\n"); err != nil || !strings.HasPrefix(none.ratio(), "not published") {
		t.Errorf("want the absence told, got %v, error %v", none, err)
	}
	if _, err := parseLookups(`postern_catalog_lookups_total{result="hit"} x`); err == nil {
		t.Error("want an error for what is no number")
	}
}

func TestCollectionsAddUp(t *testing.T) {
	var c collections
	for _, part := range []string{
		"gc 1 @0.1s 2%: 0.01+1.2+0.003 ms clock, 0.02+0.5/1.1/0.2+0.006 ms cpu, 7->8->4 MB, 9 MB goal, 0 MB stacks, 0 MB globals, 2 P\n",
		"{\"level\":\"error\"}\ngc 2 @0.2s 2%: 0+1+0 ms clock, 0+0/1/0+0 ms cpu, 9->1", "0->5 MB, 9 MB goal, 2 P\n",
		"gc 3 @0.3s 2%: 0+1+0 ms clock, 0+0/1/0+0 ms cpu, 12->12->6 MB, 13 MB goal, 2 P (forced)\nscvg: 1->2->3 MB\n",
	} {
		if n, err := c.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %d bytes, error %v", n, len(part), err)
		}
	}
	if allocated, number := c.sum(); allocated != 13<<20 || number != 2 {
		t.Errorf("want 6 and 7 MiB in two collections, got %d bytes in %d", allocated, number)
	}
	c.reset()
	if allocated, number := c.sum(); allocated != 0 || number != 0 {
		t.Errorf("want nothing after the reset, got %d bytes in %d", allocated, number)
	}
}

func TestAddressesAreToldOnceAllAreKnown(t *testing.T) {
	told := toldAddrs{wanted: []string{"authorize", "webhook"}, addrs: map[string]string{}}
	for _, line := range []string{
		"no JSON", `{"msg":"catalog loaded"}`, `{"msg":"listening","listener":"authorize","addr":"127.0.0.1:1"}`,
		`{"msg":"stopped","listener":"webhook","addr":"127.0.0.1:9"}`, `{"msg":"listening","listener":"admin","addr":"127.0.0.1:2"}`,
	} {
		if got := told.complete([]byte(line)); got != "" {
			t.Errorf("%s: want none yet, got %s", line, got)
		}
	}
	if got := told.complete([]byte(`{"msg":"listening","listener":"webhook","addr":"127.0.0.1:3"}`)); got != "127.0.0.1:1" || told.addrs["webhook"] != "127.0.0.1:3" {
		t.Errorf("want the decision API's address, got %q of %v", got, told.addrs)
	}
}

func TestRatiosAreThoseOfLegsOfOneAlternation(t *testing.T) {
	row := &calmRow{patient: &patient{title: "Postern", kinds: []kind{updating, unchanged}}, share: 0.5, pace: pace{100, time.Second}}
	for _, milliseconds := range []time.Duration{2, 6, 3} {
		row.sides[updating].legs = append(row.sides[updating].legs, calmLeg{p50: milliseconds, p99: milliseconds * 4})
		row.sides[unchanged].legs = append(row.sides[unchanged].legs, calmLeg{p50: 2, p99: milliseconds})
	}
	if got, want := row.ratio(updating, unchanged, p50Of), (spread{1.5, 1, 3}); got != want {
		t.Errorf("p50: want %v, got %v", want, got)
	}
	if got, want := row.ratio(updating, unchanged, p99Of), (spread{4, 4, 4}); got != want {
		t.Errorf("p99: want %v, got %v", want, got)
	}
	var b strings.Builder
	c := &calm{field: &field{}, rows: []*calmRow{row}}
	c.writeRatios(&b)
	if want := "| Postern, half: updates / control | 1.50 | 1.00 | 3.00 | 4.00 | 4.00 | 4.00 |\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("want %q at the end of %q", want, b.String())
	}
	if bars := c.ratioPlot().bars; len(bars) != 1 || bars[0].median != 4 {
		t.Errorf("want one bar of 4, got %v", bars)
	}
}
