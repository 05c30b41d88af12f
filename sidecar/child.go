package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const startWithin = 30 * time.Second

// child is a sidecar in a process of its own, started from this same binary.
type child struct {
	command *exec.Cmd
	addrs   map[string]string // of its listeners, by name
	exited  chan struct{}
}

// startChild starts `postern run args…` from executable, and waits until each listener has
// said where it listens: that is how ports that the kernel chose become known.
func startChild(ctx context.Context, executable string, args ...string) (*child, error) {
	command := exec.CommandContext(ctx, executable, append([]string{"run"}, args...)...)
	c := &child{command: command, addrs: map[string]string{}, exited: make(chan struct{})}
	c.command.Env = withoutSettings(os.Environ())
	c.command.Cancel = func() error { return c.command.Process.Signal(os.Interrupt) }
	c.command.WaitDelay = drainWithin
	logs, err := c.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	started := make(chan error, 1)
	go c.watch(logs, started)
	select {
	case err = <-started:
	case <-time.After(startWithin):
		err = errors.New("it didn't listen in time")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the sidecar: %w", err), c.kill())
	}
	return c, nil
}

// withoutSettings keeps the story independent of what is configured around it.
func withoutSettings(environ []string) (kept []string) {
	for _, entry := range environ {
		if !strings.HasPrefix(entry, envPrefix) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// watch reads the sidecar's log to its end, which is the end of the process.
func (c *child) watch(logs io.Reader, started chan<- error) {
	defer close(c.exited)
	var said bytes.Buffer
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		var line struct{ Msg, Listener, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "listening" {
			said.Write(append(lines.Bytes(), '\n'))
			continue
		}
		if c.addrs[line.Listener] == "" { // of several addresses the first
			c.addrs[line.Listener] = line.Addr
		}
		if line.Listener == lastListener {
			started <- nil
			_, _ = io.Copy(io.Discard, logs) // so that the sidecar never waits for its log
			return
		}
	}
	started <- fmt.Errorf("it ended:\n%s", said.String())
}

func (c *child) addr(listener string) string { return c.addrs[listener] }

// kill ends the process as kill -9 does.
func (c *child) kill() error {
	if err := c.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return c.reap()
}

// stop ends the process as Kubernetes does.
func (c *child) stop() error {
	if err := c.command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return c.reap()
}

func (c *child) reap() error {
	<-c.exited
	err := c.command.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) || errors.Is(err, context.Canceled) {
		return nil // it was told to end
	}
	return err
}
