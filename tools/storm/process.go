package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	secret        = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" //nolint:gosec // made up, of the bytes 0 to 31
	environmentID = "env_1234567890"

	hangsAfter = 20 * time.Second // a start, an answer or a verb that takes longer hangs
	keptLines  = 30               // of a log, for the account of a violation
)

// sidecar is one process of `postern run`.
type sidecar struct {
	command *exec.Cmd
	client  *client
	addrs   map[string]string // by listener; complete once ready is closed
	ready   chan struct{}
	exited  chan struct{}
	status  error       // of the exit; valid once exited is closed
	doomed  atomic.Bool // it was killed on purpose: what it answers no more is no violation

	mu    sync.Mutex
	log   []string
	trace string // the first line of a panic's trace
}

// launch starts the binary on a data directory and doesn't wait for it.
func launch(postern, dir string, flags ...string) (*sidecar, error) {
	args := append([]string{
		"run", "--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--data-dir=" + dir,
		"--webhook-secret=" + secret, "--environment-id=" + environmentID, "--evaluation-timeout=10s",
	}, flags...)
	s := &sidecar{
		command: exec.Command(postern, args...), client: newClient(), addrs: map[string]string{},
		ready: make(chan struct{}), exited: make(chan struct{}),
	}
	s.command.Env = withoutSettings(os.Environ())
	log, err := s.command.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("starting postern: %w", err)
	}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("starting postern: %w", err)
	}
	go func() {
		s.read(log)
		s.status = s.command.Wait()
		close(s.exited)
	}()
	return s, nil
}

// withoutSettings keeps what is set around from the binary.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, "POSTERN_") })
}

// read follows the log to its end.
func (s *sidecar) read(log io.Reader) {
	lines := bufio.NewReader(log)
	complete := false // addrs are, and others read them
	for {
		line, err := lines.ReadString('\n')
		s.keep(strings.TrimRight(line, "\n"))
		var said struct{ Msg, Listener, Addr string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "listening" && !complete {
			s.addrs[said.Listener] = said.Addr
			if complete = said.Listener == "admin"; complete { // the control socket may be missing
				close(s.ready)
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *sidecar) keep(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == "" {
		return
	}
	if s.trace == "" && isTrace(line) {
		s.trace = line
	}
	if s.log = append(s.log, line); len(s.log) > keptLines {
		s.log = s.log[1:]
	}
}

// isTrace recognizes what Go prints of a panic, at the start of a line or within a log's.
func isTrace(line string) bool {
	return strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "goroutine ")
}

// said returns the last lines of the log.
func (s *sidecar) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

func (s *sidecar) traced() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trace
}

// errHangs is a start that takes too long.
var errHangs = fmt.Errorf("postern neither listens nor exits within %s", hangsAfter)

// await returns when the sidecar listens. If it exits instead, the error tells its log.
func (s *sidecar) await(ctx context.Context) error {
	patience := time.NewTimer(hangsAfter)
	defer patience.Stop()
	select {
	case <-s.ready:
		return nil
	case <-s.exited:
		return fmt.Errorf("postern ended at its start (%w):\n%s", s.status, s.said())
	case <-patience.C:
		return errHangs
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the sidecar without giving it a chance.
func (s *sidecar) kill() {
	s.doomed.Store(true)
	_ = s.command.Process.Kill() // it may be over
	<-s.exited
	s.client.close()
}

// stop ends the sidecar as an orchestrator would.
func (s *sidecar) stop() error {
	s.doomed.Store(true)
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping postern: %w", err)
	}
	force := time.AfterFunc(hangsAfter, func() { _ = s.command.Process.Kill() }) // it may be over
	defer force.Stop()
	<-s.exited
	s.client.close()
	if s.status != nil {
		return fmt.Errorf("stopping postern: %w:\n%s", s.status, s.said())
	}
	return nil
}

// verb runs one of the binary's other verbs to its end.
func verb(ctx context.Context, postern string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, hangsAfter)
	defer cancel()
	var out, problems strings.Builder
	command := exec.CommandContext(ctx, postern, args...)
	command.Env = withoutSettings(os.Environ())
	command.Stdout, command.Stderr = &out, &problems
	err = command.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("postern %s doesn't end within %s: %w", strings.Join(args, " "), hangsAfter, ctx.Err())
	}
	return out.String(), problems.String(), err
}
