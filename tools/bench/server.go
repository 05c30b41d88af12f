package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	startWithin = 30 * time.Second
	stopWithin  = 10 * time.Second
)

// server is a server under measurement, in a process of its own.
type server struct {
	name    string
	command *exec.Cmd
	addr    string
	// collections is what the collector did, of a server started with [traceCollector].
	collections *collections
}

// startServer starts the command of a server that says where it listens. It hands its
// log, line by line, to ready, until that returns an address; the rest is thrown away. Its
// environment is as shipped but for what is given, such as GOGC=100.
func startServer(ctx context.Context, name string, args []string, ready func(line []byte) string, environment ...string) (*server, error) {
	s := command(ctx, name, args, environment...)
	log, err := s.command.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("reading the log of %s: %w", name, err)
	}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	found := make(chan string, 1)
	var said bytes.Buffer
	go watch(log, &said, ready, found, s.restOfLog())
	select {
	case s.addr = <-found:
	case <-time.After(startWithin):
		return nil, errors.Join(fmt.Errorf("starting %s: it didn't listen in time", name), s.stop())
	}
	if s.addr == "" {
		return nil, errors.Join(fmt.Errorf("starting %s: it ended:\n%s", name, said.String()), s.stop())
	}
	return s, nil
}

// restOfLog takes what a server writes once it listens.
func (s *server) restOfLog() io.Writer {
	if s.collections != nil {
		return s.collections
	}
	return io.Discard
}

// watch reads a log to its end. Found gets the address, or is closed without one; rest
// gets what comes then.
func watch(log io.Reader, said *bytes.Buffer, ready func(line []byte) string, found chan<- string, rest io.Writer) {
	defer close(found)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if addr := ready(lines.Bytes()); addr != "" {
			found <- addr
			_, _ = io.Copy(rest, log) // so that the server never waits for its log
			return
		}
		said.Write(append(lines.Bytes(), '\n'))
	}
}

// startServerAt starts a server that is told where to listen, and throws its log away. It
// returns when the server takes connections.
func startServerAt(ctx context.Context, name, addr string, args []string, environment ...string) (*server, error) {
	s := command(ctx, name, args, environment...)
	s.addr = addr
	if s.collections != nil {
		s.command.Stderr = s.collections
	}
	if err := s.command.Start(); err != nil { // without Stderr its log goes to the null device
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			if err := conn.Close(); err != nil {
				return nil, errors.Join(fmt.Errorf("connecting to %s: %w", name, err), s.stop())
			}
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), s.stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func command(ctx context.Context, name string, args []string, environment ...string) *server {
	s := &server{name: name, command: exec.CommandContext(ctx, args[0], args[1:]...)}
	s.command.Env = append(withoutTuning(os.Environ()), environment...)
	s.command.Cancel = func() error { return s.command.Process.Signal(os.Interrupt) }
	s.command.WaitDelay = stopWithin
	if slices.Contains(environment, traceCollector) {
		s.collections = &collections{}
	}
	return s
}

// withoutTuning leaves the servers with their shipped defaults, whatever is set around.
func withoutTuning(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		for _, prefix := range []string{"POSTERN_", "OPA_", "OTEL_"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"}, name)
	})
}

// stop ends the server, by force if need be. That it was told to end is no error.
func (s *server) stop() error {
	if err := s.command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	force := time.AfterFunc(stopWithin, func() { _ = s.command.Process.Kill() }) // it may be over
	defer force.Stop()
	err := s.command.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// freeAddr returns a loopback address that was free a moment ago, for a server that
// doesn't say which port the kernel chose.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
