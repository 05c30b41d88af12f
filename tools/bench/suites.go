package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// suite is one table of docs/benchmarks.md: what makes it and where it stands.
type suite struct {
	name string // of the flag -suite and of the markers in the file
	run  func(ctx context.Context, o options, progress io.Writer) (section, error)
}

// section is what a suite tells: Markdown, and the plots that it links to.
type section struct {
	markdown string
	plots    map[string]string // file name below docs/plots/, SVG
}

// suites is the registry, in the order in which all of them run.
func suites() []suite {
	return []suite{
		{"door", runDoor},
		{"token", runTokens},
		{"calm", runCalm},
		{"ingest", runIngest},
		{"million", runMillion},
		{"lru", runLRU},
	}
}

// chooseSuites finds suites by their names, comma-separated; without a name it is all.
func chooseSuites(names string) ([]suite, error) {
	if names == "" {
		return suites(), nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(names, ",") {
		s, err := suiteNamed(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}

func suiteNamed(name string) (suite, error) {
	var known []string
	for _, s := range suites() {
		if s.name == name {
			return s, nil
		}
		known = append(known, s.name)
	}
	return suite{}, fmt.Errorf("unknown suite %q; there are %s", name, strings.Join(known, ", "))
}

// runSuites runs the chosen suites one after the other. What one told is printed and
// written before the next one starts, so that a failure costs only itself.
func runSuites(ctx context.Context, o options, stdout, progress io.Writer) error {
	for _, s := range o.suites {
		fmt.Fprintf(progress, "suite %s\n", s.name)
		told, err := s.run(ctx, o, progress)
		if err != nil {
			return fmt.Errorf("suite %s: %w", s.name, err)
		}
		told.markdown = o.origin(s.name) + told.markdown
		if _, err := io.WriteString(stdout, told.markdown); err != nil {
			return err
		}
		if o.out == "" {
			continue
		}
		if err := told.write(s.name, o.out); err != nil {
			return err
		}
	}
	return nil
}

// origin is what every section begins with: the command that made it, and where.
func (o options) origin(name string) string {
	return fmt.Sprintf("Made by `%s` on this machine: %s.\n\n", o.command(name), machine())
}

// command returns what makes a section again. Flags that were not given keep their
// defaults, so they aren't told.
func (o options) command(name string) string {
	words := append([]string{"go -C tools/bench run . -suite", name}, o.given...)
	return strings.Join(append(words, "-out ../../docs/benchmarks.md"), " ")
}
