package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// memoryGroup is a cgroup of our own that bounds memory, of either version.
type memoryGroup struct {
	path string
	v2   bool
}

// newMemoryGroup makes a cgroup below the root of the hierarchy. The error says what
// keeps it from being made; that takes root, as a rule.
func newMemoryGroup(name string, limit int64) (*memoryGroup, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding the cgroups: %w", err)
	}
	root, v2, err := memoryHierarchy(string(mounts))
	if err != nil {
		return nil, err
	}
	g := &memoryGroup{path: filepath.Join(root, name), v2: v2}
	if v2 {
		if err := delegateMemory(root); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(g.path, 0o750); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	if err := g.limit(limit); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

// memoryHierarchy reads mountinfo (proc_pid_mountinfo(5)): where memory is bounded, and
// by which version of cgroups. Where both are mounted, version 1 has it.
func memoryHierarchy(mounts string) (root string, v2 bool, err error) {
	for line := range strings.Lines(mounts) {
		before, after, found := strings.Cut(line, " - ")
		about, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(about) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			return about[4], false, nil
		case kind[0] == "cgroup2":
			root, v2 = about[4], true
		}
	}
	if root == "" {
		return "", false, errors.New("finding the cgroups: none are mounted")
	}
	return root, v2, nil
}

// delegateMemory lets cgroups below the root bound memory. Mostly they may already.
func delegateMemory(root string) error {
	control := filepath.Join(root, "cgroup.subtree_control")
	text, err := os.ReadFile(control)
	if err != nil {
		return fmt.Errorf("looking at the cgroups: %w", err)
	}
	if slices.Contains(strings.Fields(string(text)), "memory") {
		return nil
	}
	if err := os.WriteFile(control, []byte("+memory"), 0o600); err != nil {
		return fmt.Errorf("letting cgroups bound memory: %w", err)
	}
	return nil
}

// limit bounds memory, and keeps what is beyond it from going to a swap instead.
func (g *memoryGroup) limit(bytes int64) error {
	text := strconv.FormatInt(bytes, 10)
	most, swap, swapText := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", text
	if g.v2 {
		most, swap, swapText = "memory.max", "memory.swap.max", "0"
	}
	if err := g.write(most, text); err != nil {
		return err
	}
	if err := g.write(swap, swapText); err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel that doesn't account swap
		return err
	}
	return nil
}

func (g *memoryGroup) write(file, text string) error {
	if err := os.WriteFile(filepath.Join(g.path, file), []byte(text), 0o600); err != nil {
		return fmt.Errorf("bounding memory: %w", err)
	}
	return nil
}

// enter returns a command that begins inside: a page that it maps is charged to the cgroup
// from the start.
func (g *memoryGroup) enter(args []string) []string {
	return append([]string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, g.path}, args...)
}

// pressure is what the kernel tells of a cgroup.
type pressure struct {
	kills   int64 // for want of memory
	atLimit int64 // how often pages had to be given back first
	peak    int64 // bytes, the pages of files included
}

func (g *memoryGroup) pressure() (p pressure, err error) {
	kills, atLimit, peak := "memory.oom_control", "memory.failcnt", "memory.max_usage_in_bytes"
	killsKey, limitKey := "oom_kill", ""
	if g.v2 {
		kills, atLimit, peak = "memory.events", "memory.events", "memory.peak"
		limitKey = "max"
	}
	if p.kills, err = g.read(kills, killsKey); err != nil {
		return p, err
	}
	if p.atLimit, err = g.read(atLimit, limitKey); err != nil {
		return p, err
	}
	p.peak, err = g.read(peak, "")
	if errors.Is(err, fs.ErrNotExist) { // memory.peak came with Linux 5.19
		return p, nil
	}
	return p, err
}

// read returns the number behind a key of a file, or the file's only one.
func (g *memoryGroup) read(file, key string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(g.path, file))
	if err != nil {
		return 0, fmt.Errorf("reading the cgroup: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if key == "" && len(fields) == 1 || key != "" && len(fields) == 2 && fields[0] == key {
			return strconv.ParseInt(fields[len(fields)-1], 10, 64)
		}
	}
	return 0, fmt.Errorf("reading the cgroup: %s has no number %s", file, key)
}

// remove removes the cgroup once nothing runs in it.
func (g *memoryGroup) remove() error {
	if err := os.Remove(g.path); err != nil {
		return fmt.Errorf("removing the cgroup: %w", err)
	}
	return nil
}
