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
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
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
	b := newBar(std.stderr, "dumping")
	defer b.end()
	if running {
		body, err := ask(ctx, client, http.MethodGet, controlDump, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(&countingLines{to: std.stdout, progress: b.progress}, body)
		return errors.Join(err, body.Close())
	}
	opened, err := c.open(ctx, "", true)
	if err != nil {
		return err
	}
	return errors.Join(opened.Dump(ctx, std.stdout, b.progress), opened.Close())
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
	report, err := maintain(ctx, c, std.stderr, task[restored]{
		what: "restoring", method: http.MethodPost, path: controlRestore, body: source,
		stopped: func(progress catalog.Progress) (restored, error) {
			return c.restoreStopped(ctx, source, progress)
		},
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(std.stdout).Encode(report)
}

func (c *catalogConfig) restoreStopped(ctx context.Context, source io.Reader, progress catalog.Progress) (report restored, err error) {
	from, err := catalog.ReadRestorable(source)
	if err != nil {
		return report, err
	}
	// A new catalog becomes one of the dump's environment; a listing doesn't tell its own.
	opened, err := c.open(ctx, from.EnvironmentID, false)
	if err != nil {
		return report, err
	}
	report, err = restoreInto(ctx, opened, from, progress)
	return report, errors.Join(err, opened.Close())
}

// errUnsound ends `catalog verify` of a catalog with problems, which it printed.
var errUnsound = errors.New("the catalog is not sound; restore a dump into another --data-dir, or start with --rebuild, which moves the file aside and begins empty")

func (c *catalogConfig) verify(ctx context.Context, _ []string, std streams) error {
	report, err := maintain(ctx, c, std.stderr, task[catalog.Report]{
		what: "verifying", method: http.MethodGet, path: controlVerify,
		stopped: func(progress catalog.Progress) (report catalog.Report, err error) {
			opened, err := c.open(ctx, "", true)
			if err != nil {
				return report, err
			}
			report, err = opened.Verify(ctx, progress)
			return report, errors.Join(err, opened.Close())
		},
	})
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

func (c *catalogConfig) compact(ctx context.Context, _ []string, std streams) error {
	report, err := maintain(ctx, c, std.stderr, task[catalog.CompactReport]{
		what: "compacting", method: http.MethodPost, path: controlCompact,
		stopped: func(progress catalog.Progress) (report catalog.CompactReport, err error) {
			if _, err := os.Stat(filepath.Join(c.dataDir, catalog.FileName)); err != nil {
				return report, fmt.Errorf("looking for the catalog: %w", err) // opening would make a new one
			}
			opened, err := c.open(ctx, "", false)
			if err != nil {
				return report, err
			}
			report, err = opened.Compact(ctx, progress)
			return report, errors.Join(err, opened.Close())
		},
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(std.stdout).Encode(report)
}

// reconcile compares the catalog of a running sidecar with Scalekit's list, and repairs it.
func (c *catalogConfig) reconcile(ctx context.Context, _ []string, std streams) error {
	return c.tellTruth(ctx, std, task[reconcileAnswer]{what: "reconciling", method: http.MethodPost, path: controlReconcile})
}

// accept lets a listing be applied that was held back.
func (c *catalogConfig) accept(ctx context.Context, args []string, std streams) error {
	if _, err := permission.ParseDigest(args[0]); err != nil {
		return usagef("catalog accept: %v, which GET /v1/sync and the log tell, got %.80q", err, args[0])
	}
	return c.tellTruth(ctx, std, task[reconcileAnswer]{
		what: "reconciling", method: http.MethodPost, path: controlAccept, body: strings.NewReader(`{"digest":"` + args[0] + `"}`),
	})
}

func (c *catalogConfig) tellTruth(ctx context.Context, std streams, t task[reconcileAnswer]) error {
	t.stopped = func(catalog.Progress) (reconcileAnswer, error) {
		return reconcileAnswer{}, errors.New("no sidecar runs here; it is the one that has the credentials for Scalekit's API")
	}
	answer, err := maintain(ctx, c, std.stderr, t)
	if err != nil {
		return err
	}
	printed := json.NewEncoder(std.stdout)
	printed.SetIndent("", "  ")
	return printed.Encode(answer)
}

// task is a long piece of work on the catalog: of a running sidecar by a request to its
// control socket, of a stopped one by a function.
type task[T any] struct {
	what, method, path string
	body               io.Reader
	stopped            func(catalog.Progress) (T, error)
}

// maintain does a task, with a bar on the screen if it takes its time.
func maintain[T any](ctx context.Context, c *catalogConfig, screen io.Writer, t task[T]) (result T, err error) {
	client, running, err := c.control(ctx)
	if err != nil {
		return result, err
	}
	b := newBar(screen, t.what)
	defer b.end()
	if !running {
		return t.stopped(b.progress)
	}
	answer, err := ask(ctx, client, t.method, t.path, t.body)
	if err != nil {
		return result, err
	}
	err = errors.Join(followWork(answer, b.progress, &result), answer.Close())
	return result, err
}
