package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// versions says what was built, as the binaries tell it.
func (f *field) versions() (string, error) {
	own, err := buildinfo.ReadFile(f.path("postern"))
	if err != nil {
		return "", fmt.Errorf("reading the version of Postern's OPA: %w", err)
	}
	peer, err := buildinfo.ReadFile(f.path("opa"))
	if err != nil {
		return "", fmt.Errorf("reading the version of OPA: %w", err)
	}
	embedded := "unknown"
	for _, module := range own.Deps {
		if module.Path == opaPackage {
			embedded = module.Version
		}
	}
	return fmt.Sprintf("Built with %s; OPA %s embedded in Postern, %s beside it.", own.GoVersion, embedded, peer.Main.Version), nil
}

// shippedDefault asks Postern for the default of a setting, so that it isn't told twice.
func (f *field) shippedDefault(ctx context.Context, setting string) (string, error) {
	help, err := exec.CommandContext(ctx, f.path("postern"), "help", "run").Output()
	if err != nil {
		return "", fmt.Errorf("asking for the settings: %w", err)
	}
	return defaultOf(setting, string(help))
}

// defaultOf reads the default of a setting from the help.
func defaultOf(setting, help string) (string, error) {
	found := regexp.MustCompile(`--` + setting + `\n.*\(default (\S+)\)`).FindStringSubmatch(help)
	if found == nil {
		return "", fmt.Errorf("the help doesn't tell the default of --%s", setting)
	}
	return found[1], nil
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

// spread is what is told of a number that was measured several times.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

// row renders it as the last cells of a row of a table.
func (s spread) row() string { return fmt.Sprintf("%.2f | %.2f | %.2f |", s.median, s.least, s.most) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// timeText renders a time with three or four digits.
func timeText(d time.Duration) string {
	if d >= time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f µs", d.Seconds()*1e6)
}

// table writes the head of a Markdown table: the first column is text, the others are
// numbers.
func table(b *strings.Builder, columns ...string) {
	fmt.Fprintf(b, "| %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("--:|", len(columns)-1))
}
