package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
			return os.WriteFile(filepath.Join(e.WorkDir, "secret"), []byte(testSecret+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sidecar": startSidecar,
			"end":     endSidecar,
			"http":    httpCommand,
			"deliver": deliverCommand,
			"ask":     askCommand,
			"retry":   retryCommand,
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
	defaults := []string{
		"--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir=" + ts.MkAbs("data"), "--webhook-secret-file=" + ts.MkAbs("secret"), "--environment-id=" + demoEnvironment,
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		for i, d := range defaults {
			if strings.HasPrefix(d, name+"=") {
				defaults = append(defaults[:i], defaults[i+1:]...)
				break
			}
		}
	}
	c, err := startChild(context.Background(), executable, append(defaults, args...)...)
	ts.Check(err)
	ts.Setenv("AUTHORIZE", c.addr("authorize"))
	ts.Setenv("WEBHOOK", c.addr("webhook"))
	ts.Setenv("ADMIN", c.addr("admin"))
	ts.Setenv("PID", strconv.Itoa(c.command.Process.Pid))
	ts.Defer(func() { _ = c.kill() })
	*ts.Value(running{}).(**child) = c
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

// httpCommand: `http METHOD URL [-h 'Name: value']… [-d BODY | -f FILE] [-u SOCKET]` prints
// status, headers and body of the answer. With ! it expects that no answer comes.
func httpCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: http METHOD URL [-h 'Name: value']… [-d BODY | -f FILE] [-u SOCKET]")
	}
	request, err := http.NewRequest(args[0], args[1], nil)
	ts.Check(err)
	client := http.Client{Timeout: 20 * time.Second}
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
	printAnswer(ts, neg, &client, request)
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

// printAnswer sends the request, prints what comes back and returns its status.
func printAnswer(ts *testscript.TestScript, neg bool, client *http.Client, request *http.Request) int {
	response, err := client.Do(request)
	if neg {
		if err == nil {
			ts.Fatalf("an answer came: %s", response.Status)
		}
		return 0
	}
	ts.Check(err)
	body, err := io.ReadAll(response.Body)
	ts.Check(err)
	ts.Check(response.Body.Close())
	var b bytes.Buffer
	fmt.Fprintln(&b, response.StatusCode)
	ts.Check(response.Header.Write(&b))
	fmt.Fprintf(ts.Stdout(), "%s\n%s", bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n")), body)
	return response.StatusCode
}

// deliverCommand: `deliver [-secret S] [-age SECONDS] [-drop HEADER] [-h 'Name: value'] FILE`
// signs the file's content and posts it to $WEBHOOK as Scalekit does. OCCURRED_IN_FUTURE in
// the file becomes a time in an hour.
func deliverCommand(ts *testscript.TestScript, neg bool, args []string) {
	deliverOnce(ts, neg, args)
}

func deliverOnce(ts *testscript.TestScript, neg bool, args []string) int {
	secret, at := testSecret, time.Now()
	var change []func(http.Header)
	for len(args) > 1 {
		value := args[1]
		switch args[0] {
		case "-secret":
			secret = value
		case "-age":
			seconds, err := strconv.Atoi(value)
			ts.Check(err)
			at = at.Add(-time.Duration(seconds) * time.Second)
		case "-drop":
			change = append(change, func(h http.Header) { h.Del(value) })
		case "-h":
			name, text, _ := strings.Cut(value, ": ")
			change = append(change, func(h http.Header) { h.Set(name, text) })
		}
		args = args[2:]
	}
	keys, err := webhook.ParseKeys(secret)
	ts.Check(err)
	body := strings.ReplaceAll(strings.TrimSpace(ts.ReadFile(args[0])), "OCCURRED_IN_FUTURE", time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	request, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("WEBHOOK")+"/webhooks/scalekit", nil)
	ts.Check(err)
	request.Header = keys.Sign("msg_script", at, []byte(body))
	for _, do := range change {
		do(request.Header)
	}
	setBody(request, []byte(body))
	return printAnswer(ts, neg, http.DefaultClient, request)
}

// askCommand: `ask PERMISSION [HELD]…` asks whether somebody who holds the permissions HELD
// may do PERMISSION, and prints the answer.
func askCommand(ts *testscript.TestScript, neg bool, args []string) {
	held := "[]"
	if len(args) > 1 {
		held = `["` + strings.Join(args[1:], `","`) + `"]`
	}
	body := fmt.Sprintf(`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":%s}},"action":{"name":%q},"resource":{"type":"dataset","id":"ds_7"}}`, held, args[0])
	request, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("AUTHORIZE")+"/v1/authorize", nil)
	ts.Check(err)
	request.Header.Set("Content-Type", "application/json")
	setBody(request, []byte(body))
	printAnswer(ts, neg, http.DefaultClient, request)
}

// retryCommand: `retry STATUS deliver …` repeats a delivery until it is answered with
// STATUS, for what takes effect within a second or two.
func retryCommand(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.After(20 * time.Second)
	for deliverOnce(ts, false, args[2:]) != must(strconv.Atoi(args[0])) {
		select {
		case <-deadline:
			ts.Fatalf("never answered %s", args[0])
		case <-time.After(followEvery / 10):
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// curlMain understands as much of curl as README uses.
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
		case "-H":
			name, value, _ := strings.Cut(args[1], ": ")
			request.Header.Add(name, value)
			args = args[1:]
		case "-d":
			request.Method = http.MethodPost
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
