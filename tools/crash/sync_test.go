// Package crash shows what kill -9 can't: that an event is on the disk, and not only in
// the page cache, before it is acknowledged. It watches the system calls of the real
// binary, for which it needs strace.
package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	secret      = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	environment = "env_1234567890"
)

func TestAnEventIsSyncedBeforeItIsAcknowledged(t *testing.T) {
	dir := t.TempDir()
	postern := filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-o", postern, "./sidecar")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, output)
	}
	trace := filepath.Join(dir, "trace")
	address, stop := runTraced(t, postern, trace, filepath.Join(dir, "data"))
	for i := range 5 {
		send := exec.Command(postern, "event", "send", "--url", "http://"+address+"/webhooks/scalekit",
			"--webhook-secret", secret, "--environment-id", environment, "--permission-id", fmt.Sprint("perm_", i), "--name", fmt.Sprint("name:", i))
		if output, err := send.CombinedOutput(); err != nil {
			t.Fatalf("sending: %v\n%s", err, output)
		}
	}
	stop()
	recorded, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if !newFileSynced.MatchString(string(recorded)) {
		t.Error("the directory of a new catalog isn't synced: a power cut could take the file away")
	}
	acknowledged, err := acknowledgedAfterSync(string(recorded))
	if err != nil || acknowledged != 5 {
		t.Errorf("%d events acknowledged: %v", acknowledged, err)
	}
}

// runTraced starts the sidecar under strace and returns where it takes webhooks.
func runTraced(t *testing.T, postern, trace, data string) (address string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, "strace", "-f", "-y", "-s", "40", "-e", "trace=pwrite64,fdatasync,fsync,write,rename,renameat,renameat2", "-o", trace,
		postern, "run", "--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir="+data, "--webhook-secret="+secret, "--environment-id="+environment)
	logs, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("starting strace (apt-get install strace): %v", err)
	}
	for lines := bufio.NewScanner(logs); address == "" && lines.Scan(); {
		var line struct{ Msg, Listener, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" && line.Listener == "webhook" {
			address = line.Addr
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	return address, func() {
		// strace blocks signals while it traces, and ends with the sidecar.
		children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", command.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		sidecar, err := strconv.Atoi(strings.TrimSpace(string(children)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(sidecar, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var status *exec.ExitError
		if err := command.Wait(); err != nil && !errors.As(err, &status) {
			t.Fatal(err)
		}
	}
}

var (
	written       = regexp.MustCompile(`pwrite64\(\d+<[^>]*catalog\.db>`)
	synced        = regexp.MustCompile(`fdatasync\(\d+<[^>]*catalog\.db>\)? *(= 0|<unfinished)?`)
	resumed       = regexp.MustCompile(`fdatasync resumed>.*= 0`)
	newFileSynced = regexp.MustCompile(`(?s)rename[a-z0-9]*\([^\n]*catalog\.db\.new[^\n]*= 0.*fsync\(\d+<[^>]*/data>\) *= 0`)
	created       = regexp.MustCompile(`write\(\d+<(TCP|socket)[^>]*>, "HTTP/1\.1 201`)
)

// acknowledgedAfterSync reads a trace and counts the 201s. It returns an error if one was
// written while something written to the catalog had not been synced, or if nothing was
// written before it at all.
func acknowledgedAfterSync(trace string) (acknowledged int, err error) {
	writes, unsynced := 0, 0
	for line := range strings.Lines(trace) {
		switch {
		case written.MatchString(line):
			writes++
			unsynced++
		case resumed.MatchString(line), synced.MatchString(line) && strings.Contains(line, "= 0"):
			unsynced = 0
		case created.MatchString(line):
			if writes == 0 || unsynced > 0 {
				return acknowledged, fmt.Errorf("acknowledged with %d of %d writes not synced: %s", unsynced, writes, line)
			}
			acknowledged++
			writes = 0
		}
	}
	return acknowledged, nil
}

// The check itself fails where the sync is missing, comes too late or fails.
func TestTheCheckNoticesAMissingSync(t *testing.T) {
	const (
		write  = "7 pwrite64(5</d/catalog.db>, \"...\"..., 4096, 8192) = 4096\n"
		sync   = "7 fdatasync(5</d/catalog.db>)        = 0\n"
		failed = "7 fdatasync(5</d/catalog.db>)        = -1 EIO (Input/output error)\n"
		begun  = "7 fdatasync(5</d/catalog.db> <unfinished ...>\n"
		done   = "7 <... fdatasync resumed>)           = 0\n"
		answer = "8 write(9<TCP:[1]>, \"HTTP/1.1 201 Created\\r\\n\"..., 170) = 170\n"
	)
	for trace, ok := range map[string]bool{
		write + sync + write + sync + answer:          true,
		write + begun + done + write + sync + answer:  true,
		write + sync + answer + write + sync + answer: true,
		write + answer:                        false,
		write + sync + write + answer:         false,
		write + sync + write + begun + answer: false,
		write + failed + answer:               false,
		write + answer + sync:                 false,
		answer:                                false,
		write + sync + answer + answer:        false,
	} {
		if _, err := acknowledgedAfterSync(trace); (err == nil) != ok {
			t.Errorf("got %v for\n%s", err, trace)
		}
	}
}
