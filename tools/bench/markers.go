package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plotsDirectory stands beside the file that links to the plots.
const plotsDirectory = "plots"

// write replaces what stands between the markers of a suite in a file, and writes the
// plots beside it.
func (s section) write(name, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("rewriting a section: %w", err)
	}
	replaced, err := replaceSection(string(text), name, s.markdown)
	if err != nil {
		return fmt.Errorf("rewriting %s: %w", path, err)
	}
	if err := s.writePlots(filepath.Join(filepath.Dir(path), plotsDirectory)); err != nil {
		return fmt.Errorf("writing the plots of %s: %w", name, err)
	}
	if err := os.WriteFile(path, []byte(replaced), 0o600); err != nil { // an existing file keeps its mode
		return fmt.Errorf("rewriting a section: %w", err)
	}
	return nil
}

func (s section) writePlots(directory string) error {
	if len(s.plots) == 0 {
		return nil
	}
	if err := os.MkdirAll(directory, 0o750); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.plots)) {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(s.plots[name]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// replaceSection replaces the lines between the line that begins with the one marker and
// the line that is the other one.
func replaceSection(text, name, markdown string) (string, error) {
	begin, end := "<!-- bench:"+name+":begin", "<!-- bench:"+name+":end -->\n"
	before, rest, begins := strings.Cut(text, begin)
	comment, rest, closes := strings.Cut(rest, "-->\n")
	_, after, ends := strings.Cut(rest, end)
	if !begins || !closes || !ends || strings.Contains(comment, "\n") {
		return "", fmt.Errorf("want a line %s … --> and behind it the line %s", begin, strings.TrimSpace(end))
	}
	return before + begin + comment + "-->\n" + markdown + end + after, nil
}
