package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

const healthcheckWithin = 2 * time.Second

// healthConfig is what `postern healthcheck` runs with.
type healthConfig struct{ adminAddr listener.Address }

func (c *healthConfig) settings() []setting {
	return []setting{
		configSetting(),
		{
			name: "admin-addr", initial: "0.0.0.0:8282", set: address(&c.adminAddr),
			help: "the sidecar's admin listener; 0.0.0.0 is asked on 127.0.0.1",
		},
	}
}

// run asks /readyz once.
func (c *healthConfig) run(ctx context.Context, _ []string, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckWithin)
	defer cancel()
	host, port, err := net.SplitHostPort(c.adminAddr.Address)
	if err != nil {
		return usagef("--admin-addr: want host:port, got %q", c.adminAddr)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking whether Postern is ready: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // was only read
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("asking whether Postern is ready: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(answer)))
	}
	_, err = fmt.Fprintln(std.stdout, "ready")
	return err
}
