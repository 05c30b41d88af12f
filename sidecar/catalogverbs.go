package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/postern-authz/postern/sidecar/catalog"
)

// catalogConfig is what the catalog's verbs run with.
type catalogConfig struct {
	dataDir       string
	controlSocket string
}

func (c *catalogConfig) settings() []setting {
	return []setting{configSetting(), dataDirSetting(&c.dataDir), controlSocketSetting(&c.controlSocket)}
}

// control returns a client of the running sidecar's control socket, or false when no
// sidecar runs: the verb then opens the catalog itself.
func (c *catalogConfig) control(ctx context.Context) (*http.Client, bool, error) {
	if c.controlSocket == "" {
		c.controlSocket = controlSocketIn(c.dataDir)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.controlSocket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("asking the running sidecar: %w", err)
	}
	if err := conn.Close(); err != nil {
		return nil, false, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", c.controlSocket)
	}}}, true, nil
}

// open opens the catalog of a stopped sidecar.
func (c *catalogConfig) open(ctx context.Context, environmentID string, readOnly bool) (*catalog.Catalog, error) {
	return catalog.Open(ctx, catalog.Options{Dir: c.dataDir, EnvironmentID: environmentID, LRUSize: 1, ReadOnly: readOnly})
}

// ask sends one request to the running sidecar; the caller closes the body.
func ask(ctx context.Context, client *http.Client, method, path string, body io.Reader) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://control"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the running sidecar: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(readRefusal(response)), response.Body.Close())
	}
	return response.Body, nil
}

// readRefusal returns the message of an answer that isn't a success.
func readRefusal(response *http.Response) string {
	var refusal struct {
		Error struct{ Code, Message string }
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&refusal); err != nil || refusal.Error.Code == "" {
		return response.Status
	}
	return refusal.Error.Code + ": " + refusal.Error.Message
}

func (c *catalogConfig) dump(ctx context.Context, _ []string, std streams) (err error) {
	client, running, err := c.control(ctx)
	if err != nil {
		return err
	}
	if running {
		body, err := ask(ctx, client, http.MethodGet, controlDump, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(std.stdout, body)
		return errors.Join(err, body.Close())
	}
	opened, err := c.open(ctx, "", true)
	if err != nil {
		return err
	}
	return errors.Join(opened.Dump(ctx, std.stdout), opened.Close())
}

func (c *catalogConfig) restore(ctx context.Context, args []string, std streams) (err error) {
	source := std.stdin
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		source = f
	}
	client, running, err := c.control(ctx)
	if err != nil {
		return err
	}
	if running {
		body, err := ask(ctx, client, http.MethodPost, controlRestore, source)
		if err != nil {
			return err
		}
		_, err = io.Copy(std.stdout, body)
		return errors.Join(err, body.Close())
	}
	return c.restoreStopped(ctx, source, std.stdout)
}

func (c *catalogConfig) restoreStopped(ctx context.Context, source io.Reader, stdout io.Writer) error {
	from, err := catalog.ReadRestorable(source)
	if err != nil {
		return err
	}
	// A new catalog becomes one of the dump's environment; a listing doesn't tell its own.
	opened, err := c.open(ctx, from.EnvironmentID, false)
	if err != nil {
		return err
	}
	report, err := restoreInto(ctx, opened, from)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(report)
	}
	return errors.Join(err, opened.Close())
}

// errUnsound ends `catalog verify` of a catalog with problems, which it printed.
var errUnsound = errors.New("the catalog is not sound; restore it from a dump, or move it away to start empty")

func (c *catalogConfig) verify(ctx context.Context, _ []string, std streams) error {
	report, err := c.report(ctx)
	if err != nil {
		return err
	}
	printed := json.NewEncoder(std.stdout)
	printed.SetIndent("", "  ")
	if err := printed.Encode(report); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return errUnsound
	}
	return nil
}

func (c *catalogConfig) report(ctx context.Context) (report catalog.Report, err error) {
	client, running, err := c.control(ctx)
	if err != nil {
		return report, err
	}
	if running {
		body, err := ask(ctx, client, http.MethodGet, controlVerify, nil)
		if err != nil {
			return report, err
		}
		return report, errors.Join(json.NewDecoder(body).Decode(&report), body.Close())
	}
	opened, err := c.open(ctx, "", true)
	if err != nil {
		return report, err
	}
	report, err = opened.Verify(ctx)
	return report, errors.Join(err, opened.Close())
}
