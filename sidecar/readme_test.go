package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-authz/postern/policies/policiestest"
)

// fence finds a fenced block, the name of the file that it is, if the line before says one, and
// its language.
var fence = regexp.MustCompile("(?ms)(?:^`([^`\n]+)`:\n\n)?^```([a-z]*)\n(.*?)^```$")

// blocks returns the fenced blocks of one language in a file of the repository.
func blocks(t *testing.T, file, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range fence.FindAllStringSubmatch(string(text), -1) {
		if match[2] == language {
			found = append(found, match[3])
		}
	}
	return found
}

// shownFile returns the block of a document that is the file of this name.
func shownFile(t *testing.T, document, name string) string {
	t.Helper()
	for _, match := range fence.FindAllStringSubmatch(read(t, document), -1) {
		if match[1] == name {
			return match[3]
		}
	}
	t.Fatalf("%s shows no %s", document, name)
	return ""
}

// README's first commands are the ones that CI runs, on a fresh clone.
func TestReadmeCommandsAreWhatCIRuns(t *testing.T) {
	ci, err := os.ReadFile(filepath.Join("..", ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	for command := range strings.Lines(blocks(t, "README.md", "sh")[0]) {
		if !strings.Contains(string(ci), " "+command) {
			t.Errorf("CI doesn't run %q", command)
		}
	}
}

// The five-minute paths do what the documents say that they do, command for command.
func TestReadmePath(t *testing.T) {
	followDocument(t, "README.md")
}

func TestDevelopmentPath(t *testing.T) {
	followDocument(t, "docs/development.md", struct{ pattern, with string }{`"perm_[^"]+"`, `"perm_…"`})
}

// The policy authors' guide, from the first rule to CI, with a stock opa.
func TestPoliciesPath(t *testing.T) {
	t.Setenv("PATH", policiestest.StockOPA(t, "..")+":"+os.Getenv("PATH"))
	followDocument(t, "docs/policies.md")
}

// scriptOf makes one script of a document: its commands, and the files that it shows, written
// where it shows them.
func scriptOf(t *testing.T, document string) string {
	t.Helper()
	var script strings.Builder
	for _, match := range fence.FindAllStringSubmatch(read(t, document), -1) {
		name, language, block := match[1], match[2], match[3]
		switch {
		case name != "":
			fmt.Fprintf(&script, "mkdir -p %s\ncat > %s <<'END OF FILE'\n%sEND OF FILE\n", filepath.Dir(name), name, block)
		case language == "sh" && !strings.HasPrefix(block, "go "): // what CI runs, and how the binary of this test was built
			script.WriteString(block)
		}
	}
	return script.String()
}

// followDocument runs the commands of a document, beside the policies of this repository, and
// compares the decisions that come out with those that it shows. Only the ports are others, in
// case somebody listens on the usual ones.
func followDocument(t *testing.T, file string, vary ...struct{ pattern, with string }) {
	t.Helper()
	text := scriptOf(t, file)
	environ := os.Environ()
	for port, variable := range map[string]string{"8181": "AUTHORIZE_ADDR", "8480": "WEBHOOK_ADDR", "8282": "ADMIN_ADDR", "8580": "ADDR"} {
		address := freeAddress(t)
		text = strings.ReplaceAll(text, "127.0.0.1:"+port, address)
		environ = append(environ, "POSTERN_"+variable+"="+address)
		if variable == "WEBHOOK_ADDR" {
			environ = append(environ, "POSTERN_URL=http://"+address+"/webhooks/scalekit")
		}
	}
	command := exec.Command("sh", "-e", "-c", text)
	command.Dir, command.Env = t.TempDir(), environ
	shipped, err := filepath.Abs("../policies")
	if err == nil {
		err = os.Symlink(shipped, filepath.Join(command.Dir, "policies"))
	}
	if err != nil {
		t.Fatal(err)
	}
	// What it leaves in the background ends with its group.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var output, logs bytes.Buffer
	command.Stdout, command.Stderr = &output, &logs
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	// A sidecar that doesn't start would be waited for without end.
	late := time.AfterFunc(3*time.Minute, func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) })
	state, err := command.Process.Wait()
	late.Stop()
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	_ = command.Wait() // the process is gone; this waits for the pipes
	if err != nil || !state.Success() {
		t.Fatalf("%v %v\n%s\n%s", state, err, output.Bytes(), logs.Bytes())
	}
	var answers []string
	for line := range strings.Lines(output.String()) {
		if strings.HasPrefix(line, `{"decision"`) {
			answers = append(answers, generalized(line, vary...))
		}
	}
	if want := blocks(t, file, "json"); !slices.Equal(answers, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(answers, ""), strings.Join(want, ""))
	}
}

// generalized replaces what is new each time, as the documents do.
func generalized(answer string, vary ...struct{ pattern, with string }) string {
	for _, r := range append(vary, []struct{ pattern, with string }{
		{`"decision_id":"[^"]+"`, `"decision_id":"…"`},
		{`"evt_[^"]+"`, `"evt_…"`},
		{`"as_of":"[^"]+"`, `"as_of":"…"`},
		{`"sha256:[^"]+"`, `"sha256:…"`},
	}...) {
		answer = regexp.MustCompile(r.pattern).ReplaceAllString(answer, r.with)
	}
	return answer
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
