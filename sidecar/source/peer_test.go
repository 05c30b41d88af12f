package source_test

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/postern-authz/postern/sidecar/source"
)

// A file server that we didn't write, and that knows neither entity tags nor long polling,
// will do.
func TestDownloadsFromAStockFileServer(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 here")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "b.tar.gz")
	write(t, path, string(policy(t, "1")))
	command := exec.CommandContext(t.Context(), python, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, "0")
	said, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Skipf("it doesn't start: %v", err)
	}
	defer func() { _ = command.Process.Kill(); _ = command.Wait() }()
	line, err := bufio.NewReader(said).ReadString('\n')
	at := regexp.MustCompile(`http://127\.0\.0\.1:\d+/`).FindString(line)
	if at == "" {
		t.Skipf("it says %q, %v", line, err)
	}
	s := newScene(t, source.Config{}, at+"b.tar.gz").start()
	s.round()
	s.wantUsed("1")
	s.again()
	s.wantUsed("1") // the same bytes
	write(t, path, string(policy(t, "2")))
	s.again()
	s.wantUsed("1", "2")
}
