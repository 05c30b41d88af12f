package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what is told about a run.
type report struct {
	options                        options
	postern, opa, opaInfo, ceiling *contender
	asked                          int // permissions of the catalog that the trace asks for
	lruSize                        string
	machine                        string
	posternOPA, peerOPA            string // versions of OPA, the embedded one and the peer
	goVersion                      string
}

// report collects what is told, once the rounds are over.
func (f *field) report() (*report, error) {
	r := &report{
		options: f.options, postern: f.postern, opa: f.opa, opaInfo: f.opaInfo, ceiling: f.constant,
		asked: liveNames(f.trace), machine: machine(),
	}
	peer, err := buildinfo.ReadFile(f.path("opa"))
	if err != nil {
		return nil, fmt.Errorf("reading the version of OPA: %w", err)
	}
	own, err := buildinfo.ReadFile(f.path("postern"))
	if err != nil {
		return nil, fmt.Errorf("reading the version of Postern's OPA: %w", err)
	}
	r.peerOPA, r.goVersion = peer.Main.Version, own.GoVersion
	for _, module := range own.Deps {
		if module.Path == opaPackage {
			r.posternOPA = module.Version
		}
	}
	help, err := exec.Command(f.path("postern"), "help", "run").Output()
	if err != nil {
		return nil, fmt.Errorf("asking for the size of the LRU: %w", err)
	}
	r.lruSize, err = defaultOf("lru-size", string(help))
	return r, err
}

// defaultOf reads the default of a setting from the help, so that it isn't told twice.
func defaultOf(setting, help string) (string, error) {
	found := regexp.MustCompile(`--` + setting + `\n.*\(default (\S+)\)`).FindStringSubmatch(help)
	if found == nil {
		return "", fmt.Errorf("the help doesn't tell the default of --%s", setting)
	}
	return found[1], nil
}

func machine() string {
	cpu, err := procValue("/proc/cpuinfo", "model name")
	if err != nil {
		cpu = "unknown processor"
	}
	return fmt.Sprintf("%d cores, %s, %s/%s", runtime.NumCPU(), cpu, runtime.GOOS, runtime.GOARCH)
}

// markdown renders the section between the markers.
func (r *report) markdown() string {
	var b strings.Builder
	o := r.options
	fmt.Fprintf(&b, "Machine: %s, shared by servers and generator. Built with %s; OPA %s embedded in Postern, %s beside it.\n\n",
		r.machine, r.goVersion, r.posternOPA, r.peerOPA)
	fmt.Fprintf(&b, "Load: %d rounds of %g s for each server, %d connections, %d live permissions of which the trace asks for %d; Postern's LRU holds %s records.\n\n",
		o.rounds, o.seconds, o.connections, o.permissions, r.asked, r.lruSize)
	r.writeRatios(&b)
	r.writeServers(&b)
	return b.String()
}

func (r *report) writeRatios(b *strings.Builder) {
	perSecond := func(l leg) float64 { return l.perSecond }
	p99 := func(l leg) float64 { return float64(l.p99) }
	cpu := func(l leg) float64 { return float64(l.serverCPU) }
	b.WriteString("| ratio within a round | median | min | max |\n|---|--:|--:|--:|\n")
	for _, row := range []struct {
		name    string
		against *contender
		of      func(leg) float64
	}{
		{"**requests/s, Postern / OPA**", r.opa, perSecond},
		{"p99, Postern / OPA", r.opa, p99},
		{"server CPU per request, Postern / OPA", r.opa, cpu},
		{"requests/s, Postern / OPA with its shipped log level", r.opaInfo, perSecond},
		{"p99, Postern / OPA with its shipped log level", r.opaInfo, p99},
		{"requests/s, Postern / constant answer", r.ceiling, perSecond},
	} {
		ratios := make([]float64, r.options.rounds)
		for i := range ratios {
			ratios[i] = row.of(r.postern.legs[i]) / row.of(row.against.legs[i])
		}
		fmt.Fprintf(b, "| %s | %.2f | %.2f | %.2f |\n", row.name, median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
}

func (r *report) writeServers(b *strings.Builder) {
	b.WriteString("\n| server, medians of the rounds | requests/s | p50 | p99 | server CPU per request | generator CPU per request | resident memory |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range []struct {
		name string
		of   *contender
	}{
		{"Postern", r.postern},
		{"OPA, `--log-level error`", r.opa},
		{"OPA, shipped log level", r.opaInfo},
		{"net/http, constant answer", r.ceiling},
	} {
		fmt.Fprintf(b, "| %s | %.0f | %s | %s | %s | %s | %d MiB |\n", row.name,
			medianOf(row.of.legs, func(l leg) float64 { return l.perSecond }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.p50 }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.p99 }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.serverCPU }),
			medianTime(row.of.legs, func(l leg) time.Duration { return l.generatorCPU }),
			row.of.resident>>20)
	}
}

// liveNames counts the live permissions that a trace asks for.
func liveNames(trace []question) int {
	names := map[string]bool{}
	for _, q := range trace {
		if q.reason == "granted" || q.reason == "not_granted" {
			names[q.name] = true
		}
	}
	return len(names)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func medianOf(legs []leg, of func(leg) float64) float64 {
	values := make([]float64, len(legs))
	for i, l := range legs {
		values[i] = of(l)
	}
	return median(values)
}

func medianTime(legs []leg, of func(leg) time.Duration) string {
	m := time.Duration(medianOf(legs, func(l leg) float64 { return float64(of(l)) }))
	if m >= time.Millisecond {
		return fmt.Sprintf("%.2f ms", m.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f µs", m.Seconds()*1e6)
}

// The markers between which a file is rewritten.
const (
	beginMarker = "<!-- bench:begin, written by go -C tools/bench run . -out ../../docs/benchmarks.md -->\n"
	endMarker   = "<!-- bench:end -->\n"
)

// rewrite replaces what stands between the markers of a file.
func rewrite(path, section string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("rewriting the table: %w", err)
	}
	replaced, err := replaceSection(string(text), section)
	if err != nil {
		return fmt.Errorf("rewriting the table in %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(replaced), 0o600); err != nil {
		return fmt.Errorf("rewriting the table: %w", err)
	}
	return nil
}

func replaceSection(text, section string) (string, error) {
	before, rest, begins := strings.Cut(text, beginMarker)
	_, after, ends := strings.Cut(rest, endMarker)
	if !begins || !ends {
		return "", errors.New("want the line " + strings.TrimSpace(beginMarker) + " and behind it " + strings.TrimSpace(endMarker))
	}
	return before + beginMarker + section + endMarker + after, nil
}
