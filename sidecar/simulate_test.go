package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/simulator"
)

// simulation is `postern simulate` in a process of its own.
type simulation struct {
	command *exec.Cmd
	url     string
}

func startSimulation(executable string, args ...string) (*simulation, error) {
	s := &simulation{command: exec.CommandContext(context.Background(), executable, append([]string{"simulate"}, args...)...)}
	s.command.Env = withoutSettings(os.Environ())
	output, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var logs bytes.Buffer
	s.command.Stderr = &logs
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err != nil {
		return nil, errors.Join(err, s.command.Wait(), errors.New(logs.String()))
	}
	var told struct{ Msg, Listener, URL string }
	if err := json.Unmarshal(line, &told); err != nil || told.Msg != "listening" || told.Listener != "simulator" {
		return nil, errors.Join(err, s.kill(), errors.New(string(line)))
	}
	s.url = told.URL
	return s, nil
}

func (s *simulation) kill() error {
	return errors.Join(s.command.Process.Kill(), s.command.Wait())
}

// simulating is the key under which a script keeps its simulation.
type simulating struct{}

// scalekitCommand: `scalekit [flags]` starts `postern simulate` on a free loopback port, and
// sets $SCALEKIT to its URL. `scalekit end` ends it by SIGTERM; its exit status must be 0.
func scalekitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("use `! exec postern simulate` for a start that fails")
	}
	at := ts.Value(simulating{}).(**simulation)
	if slices.Equal(args, []string{"end"}) {
		ts.Check((*at).command.Process.Signal(syscall.SIGTERM))
		ts.Check((*at).command.Wait())
		return
	}
	executable, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "postern"))
	ts.Check(err)
	for i, arg := range args {
		if name, file, ok := strings.Cut(arg, "-file="); ok {
			args[i] = name + "-file=" + ts.MkAbs(file)
		}
	}
	s, err := startSimulation(executable, append([]string{"--addr=127.0.0.1:0"}, args...)...)
	ts.Check(err)
	ts.Defer(func() { _ = s.kill() })
	ts.Setenv("SCALEKIT", s.url)
	*at = s
}

func TestSimulateSettings(t *testing.T) {
	fixture := filepath.Join(t.TempDir(), "fixture.yaml")
	if err := os.WriteFile(fixture, []byte("permissions: [{name: a b}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--addr=0.0.0.0:0":                               "--addr: 0.0.0.0:0 can be reached from other machines; use a loopback address, or set --allow-remote",
		"--addr=0.0.0.0:0 --allow-remote":                "--allow-remote: want --environment-url with it, got none",
		"--addr=unix:///tmp/x":                           `--addr: want host:port, got "unix:///tmp/x"`,
		"--webhook-url=http://127.0.0.1:1/x":             "--webhook-url: want --webhook-secret-file with it, got none",
		"--webhook-url=127.0.0.1:1":                      "--webhook-url: want a URL without credentials",
		"--environment-url=http://x/":                    "--environment-url: want scheme and host alone",
		"--fixture=x --permissions=1":                    "--fixture, --permissions: want one of them, got both",
		"--fixture=/nonexistent":                         "--fixture: open /nonexistent",
		"--fixture=" + fixture + " --addr=127.0.0.1:0":   `fixture: permissions[0]: invalid: name: want 1 to 64 of a-z, A-Z, 0-9, _ and :, got "a b"`,
		"--scalekit-client-secret-file=/nonexistent":     "--scalekit-client-secret-file: open /nonexistent",
		"--webhook-url=http://x --webhook-secret=whsec_": "--webhook-secret, --webhook-secret-file: signing secret 1: want a key of 24 to 64 bytes, got 0",
		"--fault=webhook_drop":                           "--fault: want NAME=RULE such as webhook_drop=5%, where NAME is one of webhook_drop, ",
		"--fault=webhook_drop=often":                     `--fault: webhook_drop: want a part such as 5%, a number of times such as 3, always or never, got "webhook_drop=often"`,
		"--fault=webhook_drop=101%":                      "--fault: webhook_drop: want a part such as 5%",
		"--seed=0":                                       "--seed: want a whole number from 1 to 9007199254740991",
		"--sede=1":                                       "unknown flag --sede; did you mean --seed?",
		"--retry-attempts=0":                             "--retry-attempts: want a whole number from 1",
	} {
		err := run(t.Context(), append([]string{"simulate"}, strings.Fields(args)...), nil, streams{nil, new(bytes.Buffer), new(bytes.Buffer)})
		var usage *usageError
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", args, err, want)
		}
	}
}

// A request that hangs on purpose doesn't hold up the end.
func TestSimulateEndsWhileARequestHangs(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"simulate", "--addr=127.0.0.1:0", "--fault=hang=always", "--fault-hang=1h"}, nil, streams{nil, writer, io.Discard})
	}()
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var told struct{ Addr string }
	if err := json.Unmarshal(line, &told); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", told.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /api/v1/roles HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	stop()
	began := time.Now()
	if err := <-ended; err != nil || time.Since(began) > drainWithin/2 {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
	if got, _ := io.ReadAll(conn); len(got) != 0 {
		t.Errorf("an answer came: %s", got)
	}
}

// What `catalog restore` takes for a whole listing of Scalekit's API, the simulator serves,
// and what has a page missing, it refuses.
func TestSimulatedListingsAreScalekits(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	simulated, err := simulator.New(simulator.Config{
		URL: "http://" + server.Listener.Addr().String(), EnvironmentID: demoEnvironment, ClientID: "skc_1", ClientSecret: "secret",
		Fixture: simulator.Numbered(250), Seed: 1, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = simulated
	server.Start()
	defer server.Close()
	if _, err := catalog.ReadListing(strings.NewReader(simulatedPages(t, server.URL))); err != nil {
		t.Error(err)
	}
	if err := simulated.SetFaults(simulator.Faults{Rules: map[simulator.Fault]simulator.Rule{simulator.LostPage: {Count: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.ReadListing(strings.NewReader(simulatedPages(t, server.URL))); !errors.Is(err, catalog.ErrListing) {
		t.Errorf("a page is missing: got %v", err)
	}
}

// simulatedPages fetches a listing as docs/operations.md says.
func simulatedPages(t *testing.T, url string) string {
	t.Helper()
	fetch := func(method, path, body, bearer string, into any) []byte {
		request := must(http.NewRequest(method, url+path, strings.NewReader(body)))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Authorization", "Bearer "+bearer)
		response := must(http.DefaultClient.Do(request))
		defer response.Body.Close()
		text := must(io.ReadAll(response.Body))
		if err := json.Unmarshal(text, into); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", path, response.StatusCode, text, err)
		}
		return text
	}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	fetch(http.MethodPost, "/oauth/token", "grant_type=client_credentials&client_id=skc_1&client_secret=secret", "", &token)
	var all strings.Builder
	for next := "first"; next != ""; {
		var page struct {
			Next string `json:"next_page_token"`
		}
		all.Write(fetch(http.MethodGet, "/api/v1/permissions?type=ENVIRONMENT&page_size=100&page_token="+strings.TrimPrefix(next, "first"), "", token.AccessToken, &page))
		next = page.Next
	}
	return all.String()
}
