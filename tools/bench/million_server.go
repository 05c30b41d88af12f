package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const startLargeWithin = 2 * time.Minute

// startLarge starts Postern on a data directory and returns it with the time from its start
// until /readyz answers 200.
func (m *million) startLarge(ctx context.Context, data string, flags ...string) (*sidecar, time.Duration, error) {
	return m.startLargeAs(ctx, func(args []string) []string { return args }, data, flags...)
}

// startLargeAs lets within say how the command is run.
func (m *million) startLargeAs(ctx context.Context, within func(args []string) []string, data string, flags ...string) (*sidecar, time.Duration, error) {
	var addrs [3]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, 0, err
		}
		addrs[i] = addr
	}
	args := append([]string{
		m.path("postern"), "run", "--data-dir", data, "--authorize-addr", addrs[0], "--admin-addr", addrs[1],
		"--webhook-addr", addrs[2], "--webhook-secret-file", m.path("webhook-secret"), "--environment-id", environmentID,
	}, flags...)
	s := command(ctx, "postern", within(args)) // its log goes to the null device
	s.addr = addrs[0]
	took, err := m.startAndWait(ctx, s, "http://"+addrs[1]+"/readyz", startLargeWithin)
	return &sidecar{server: s, adminAddr: addrs[1], webhookAddr: addrs[2]}, took, err
}

// startAndWait starts a server and returns how long it took until the URL answered 200.
func (m *million) startAndWait(ctx context.Context, s *server, url string, patience time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := s.command.Start(); err != nil {
		return 0, fmt.Errorf("starting %s: %w", s.name, err)
	}
	m.running = append(m.running, s)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		if err := ready(ctx, client, url); err == nil {
			return time.Since(began), nil
		} else if ended(s.command.Process.Pid) || ctx.Err() != nil {
			return 0, fmt.Errorf("starting %s: it ended or wasn't ready in time: %w", s.name, err)
		}
		if err := rest(ctx, time.Millisecond); err != nil {
			return 0, fmt.Errorf("starting %s: %w", s.name, err)
		}
	}
}

func ready(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// ended reports whether a child process is over and waits to be asked for its status.
func ended(pid int) bool {
	state, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "State")
	return err != nil || strings.HasPrefix(state, "Z")
}

// statusBytes reads a size of a process, such as RssAnon (proc_pid_status(5)).
func statusBytes(pid int, key string) (int64, error) {
	kilobytes, err := procValue(fmt.Sprintf("/proc/%d/status", pid), key)
	if err != nil {
		return 0, fmt.Errorf("reading the memory: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(kilobytes, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the memory: %w", err)
	}
	return n << 10, nil
}

// askEach asks each question of the trace once, over so many connections.
func (t *target) askEach(ctx context.Context, connections int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var next atomic.Int64
	ended := make(chan error, connections)
	for range connections {
		go func() { ended <- t.askShare(ctx, &next) }()
	}
	var errs []error
	for range connections {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

func (t *target) askShare(ctx context.Context, next *atomic.Int64) (err error) {
	c, err := t.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.conn.Close()) }()
	for {
		i := int(next.Add(1)) - 1
		if i >= len(t.requests) {
			return nil
		}
		if err := c.ask(i); err != nil {
			return fmt.Errorf("asking question %d: %w", i, err)
		}
	}
}
