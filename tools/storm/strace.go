package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const attachesWithin = 10 * time.Second

// injected recognizes a call that strace made fail, on the catalog's file.
var injected = regexp.MustCompile(`(?m)(pwrite64|fdatasync)\(\d+<[^>]*catalog\.db>.*\(INJECTED\)$`)

// traceable tells why system calls can't be made to fail here.
func traceable(ctx context.Context) error {
	sleeper := exec.CommandContext(ctx, "sleep", "60")
	if err := sleeper.Start(); err != nil {
		return fmt.Errorf("starting a process to trace: %w", err)
	}
	defer func() {
		_ = sleeper.Process.Kill() // either may say that it was killed, as it should be
		_ = sleeper.Wait()
	}()
	dir, err := os.MkdirTemp("", "storm-strace-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	t, err := attach(ctx, sleeper.Process.Pid, filepath.Join(dir, "trace"), "fdatasync:error=EIO")
	if err == nil {
		_, err = t.detach()
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// tracer is strace, attached to a running process.
type tracer struct {
	command *exec.Cmd
	path    string // of the trace
	said    *strings.Builder
}

// attach lets system calls of a running process fail, as a fault of strace's -e inject says.
// It returns once every thread of the process is under its control.
func attach(ctx context.Context, pid int, path, fault string) (*tracer, error) {
	t := &tracer{
		command: exec.Command("strace", "-f", "-y", "-p", strconv.Itoa(pid), "-o", path, "-e", "trace=pwrite64,fdatasync", "-e", "inject="+fault),
		path:    path, said: &strings.Builder{},
	}
	t.command.Stderr = t.said
	if err := t.command.Start(); err != nil {
		return nil, fmt.Errorf("starting strace (apt-get install strace): %w", err)
	}
	if !within(ctx, attachesWithin, func() bool { return underControl(pid, t.command.Process.Pid) }) {
		_, err := t.detach()
		return nil, errors.Join(fmt.Errorf("strace doesn't attach: %s", t.said), err, ctx.Err())
	}
	return t, nil
}

// underControl tells whether a tracer has all threads of a process.
func underControl(pid, tracer int) bool {
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(statuses) == 0 {
		return false
	}
	for _, path := range statuses {
		status, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(status), fmt.Sprintf("\nTracerPid:\t%d\n", tracer)) {
			return false
		}
	}
	return true
}

// detach leaves the process to itself, and tells how many of its calls were made to fail.
func (t *tracer) detach() (failed int, err error) {
	if err := t.command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("stopping strace: %w", err)
	}
	force := time.AfterFunc(attachesWithin, func() { _ = t.command.Process.Kill() }) // it may be over
	defer force.Stop()
	var status *exec.ExitError
	if err := t.command.Wait(); err != nil && !errors.As(err, &status) { // ended by the signal
		return 0, fmt.Errorf("stopping strace: %w", err)
	}
	trace, err := os.ReadFile(t.path)
	if err != nil {
		return 0, fmt.Errorf("reading the trace: %w", err)
	}
	return len(injected.FindAll(trace, -1)), nil
}
