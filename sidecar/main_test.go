package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/postern-authz/postern/sidecar/webhook"
)

// TestMain lets the scripts run the real main as `postern`, and a stand-in as `curl`, so
// that they need nothing but Go.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postern": main, "curl": curlMain})
}

// testSecret signs everything in the scripts; otherSecret signs forgeries and rotations.
const (
	testSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	otherSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SECRET", testSecret)
			e.Setenv("OTHER_SECRET", otherSecret)
			e.Setenv("ENVIRONMENT", demoEnvironment)
			e.Values[running{}] = new(*child)
			e.Values[simulating{}] = new(*simulation)
			return os.WriteFile(filepath.Join(e.WorkDir, "secret"), []byte(testSecret+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sidecar":  startSidecar,
			"scalekit": scalekitCommand,
			"end":      endSidecar,
			"http":     printing(httpRequest),
			"deliver":  printing(signedDelivery),
			"ask":      printing(askQuestion),
			"await":    awaitCommand,
		},
	})
}

// running is the key under which a script keeps its sidecar.
type running struct{}

// startSidecar: `sidecar [flags]` starts `postern run` on free loopback ports with the data
// directory $WORK/data, and sets $AUTHORIZE, $WEBHOOK and $ADMIN to where it listens.
func startSidecar(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("use `! exec postern run` for a start that fails")
	}
	executable, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "postern"))
	ts.Check(err)
	flags := withDefaults(args,
		"--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir="+ts.MkAbs("data"), "--webhook-secret-file="+ts.MkAbs("secret"), "--environment-id="+demoEnvironment,
	)
	c, err := startChild(context.Background(), executable, flags...)
	ts.Check(err)
	ts.Setenv("AUTHORIZE", c.addr("authorize"))
	ts.Setenv("WEBHOOK", c.addr("webhook"))
	ts.Setenv("ADMIN", c.addr("admin"))
	ts.Setenv("PID", strconv.Itoa(c.command.Process.Pid))
	ts.Defer(func() { _ = c.kill() })
	*ts.Value(running{}).(**child) = c
}

// withDefaults puts defaults in front of flags that don't say otherwise.
func withDefaults(flags []string, defaults ...string) []string {
	for _, flag := range flags {
		name, _, _ := strings.Cut(flag, "=")
		defaults = slices.DeleteFunc(defaults, func(d string) bool { return strings.HasPrefix(d, name+"=") })
	}
	return append(defaults, flags...)
}

// endSidecar: `end SIGNAL` ends the sidecar by KILL, TERM or INT; after the latter two its
// exit status must be 0.
func endSidecar(ts *testscript.TestScript, neg bool, args []string) {
	c := *ts.Value(running{}).(**child)
	if neg || len(args) != 1 || c == nil {
		ts.Fatalf("usage: end KILL|TERM|INT, after sidecar")
	}
	if args[0] == "KILL" {
		ts.Check(c.kill())
		return
	}
	ts.Check(c.command.Process.Signal(map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]))
	<-c.exited
	ts.Check(c.command.Wait())
}

// requester prepares a request, and the client to send it with, from a command's arguments.
type requester func(ts *testscript.TestScript, args []string) (*http.Client, *http.Request)

// printing makes a command of a requester: it prints status, headers and body of the
// answer. With ! it expects that no answer comes.
func printing(prepare requester) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		client, request := prepare(ts, args)
		answer, err := exchange(client, request)
		if neg {
			if err == nil {
				ts.Fatalf("an answer came: %s", answer)
			}
			return
		}
		ts.Check(err)
		fmt.Fprint(ts.Stdout(), answer)
	}
}

func exchange(client *http.Client, request *http.Request) (string, error) {
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	var b bytes.Buffer
	fmt.Fprintln(&b, response.StatusCode)
	err = errors.Join(err, response.Body.Close(), response.Header.Write(&b))
	return fmt.Sprintf("%s\n%s", strings.ReplaceAll(b.String(), "\r\n", "\n"), body), err
}

// awaitCommand: `await [-within TIME] REGEXP COMMAND [ARGUMENT]…` repeats http, deliver or ask
// until its output matches, for what takes effect within a second or two, and prints that
// output.
func awaitCommand(ts *testscript.TestScript, _ bool, args []string) {
	within := 20 * time.Second
	if args[0] == "-within" {
		within, args = must(time.ParseDuration(args[1])), args[2:]
	}
	want, prepare := regexp.MustCompile("(?m)"+args[0]), map[string]requester{"http": httpRequest, "deliver": signedDelivery, "ask": askQuestion}[args[1]]
	deadline := time.After(within)
	for {
		client, request := prepare(ts, args[2:])
		answer, err := exchange(client, request)
		if err == nil && want.MatchString(answer) {
			fmt.Fprint(ts.Stdout(), answer)
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%s doesn't come true: %s %v", args[0], answer, err)
		case <-time.After(followEvery / 10):
		}
	}
}

// httpRequest: `http METHOD URL [-h 'Name: value']… [-d BODY | -f FILE] [-u SOCKET]`.
func httpRequest(ts *testscript.TestScript, args []string) (*http.Client, *http.Request) {
	if len(args) < 2 {
		ts.Fatalf("usage: http METHOD URL [-h 'Name: value']… [-d BODY | -f FILE] [-u SOCKET]")
	}
	request, err := http.NewRequest(args[0], args[1], nil)
	ts.Check(err)
	client := &http.Client{Timeout: 20 * time.Second}
	for i := 2; i+1 < len(args); i += 2 {
		switch value := args[i+1]; args[i] {
		case "-h":
			name, text, _ := strings.Cut(value, ": ")
			if name == "Host" {
				request.Host = text
			}
			request.Header.Add(name, text)
		case "-d":
			setBody(request, []byte(value))
		case "-f":
			setBody(request, []byte(ts.ReadFile(value)))
		case "-u":
			client.Transport = overSocket(value)
		default:
			ts.Fatalf("unknown option %s", args[i])
		}
	}
	return client, request
}

func setBody(request *http.Request, body []byte) {
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength = int64(len(body))
}

func overSocket(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// signedDelivery: `deliver [-secret S] [-age SECONDS] [-drop HEADER] [-h 'Name: value'] FILE`
// signs the file's content and posts it to $WEBHOOK as Scalekit does. OCCURRED_IN_FUTURE in
// the file becomes a time in an hour.
func signedDelivery(ts *testscript.TestScript, args []string) (*http.Client, *http.Request) {
	secret, at := testSecret, time.Now()
	var change []func(http.Header)
	for ; len(args) > 1; args = args[2:] {
		value := args[1]
		switch args[0] {
		case "-secret":
			secret = value
		case "-age":
			at = at.Add(-time.Duration(must(strconv.Atoi(value))) * time.Second)
		case "-drop":
			change = append(change, func(h http.Header) { h.Del(value) })
		case "-h":
			name, text, _ := strings.Cut(value, ": ")
			change = append(change, func(h http.Header) { h.Set(name, text) })
		default:
			ts.Fatalf("unknown option %s", args[0])
		}
	}
	body := strings.ReplaceAll(strings.TrimSpace(ts.ReadFile(args[0])), "OCCURRED_IN_FUTURE", time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	request, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("WEBHOOK")+"/webhooks/scalekit", nil)
	ts.Check(err)
	request.Header = must(webhook.ParseKeys(secret)).Sign("msg_script", at, []byte(body))
	for _, do := range change {
		do(request.Header)
	}
	setBody(request, []byte(body))
	return http.DefaultClient, request
}

// askQuestion: `ask PERMISSION [HELD]…` asks whether somebody who holds the permissions
// HELD may do PERMISSION.
func askQuestion(ts *testscript.TestScript, args []string) (*http.Client, *http.Request) {
	held := "[]"
	if len(args) > 1 {
		held = `["` + strings.Join(args[1:], `","`) + `"]`
	}
	body := fmt.Sprintf(`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":%s}},"action":{"name":%q},"resource":{"type":"dataset","id":"ds_7"}}`, held, args[0])
	request, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("AUTHORIZE")+"/v1/authorize", nil)
	ts.Check(err)
	request.Header.Set("Content-Type", "application/json")
	setBody(request, []byte(body))
	return http.DefaultClient, request
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// curlMain understands as much of curl as README and docs use.
func curlMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "", nil)
	if err != nil {
		panic(err)
	}
	for args := os.Args[1:]; len(args) > 0; args = args[1:] {
		switch args[0] {
		case "-s":
		case "-X":
			request.Method = args[1]
			args = args[1:]
		case "-H":
			name, value, _ := strings.Cut(args[1], ": ")
			request.Header.Add(name, value)
			args = args[1:]
		case "-d":
			if request.Method == http.MethodGet {
				request.Method = http.MethodPost
			}
			setBody(request, []byte(args[1]))
			args = args[1:]
		default:
			if request.URL, err = request.URL.Parse(args[0]); err != nil {
				panic(err)
			}
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(7)
	}
	_, _ = io.Copy(os.Stdout, response.Body)
}
