// Package follow shows that a stock OPA, configured as docs/operations.md says, follows the
// catalog of the real binary, and decides by it with the built-in policy.
package follow

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	secret      = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	environment = "env_1234567890"

	// longPolled is less than most of the pauses that OPA makes between two polls.
	longPolled = 3 * time.Second

	token = "a-token-of-some-length"
)

// scene is a sidecar and the OPA that follows it.
type scene struct {
	*testing.T
	dir       string
	postern   string // the binary
	authorize string
	webhook   string
	opa       string // where it answers
	sidecar   *exec.Cmd
	events    int
}

func TestAStockOPAFollowsTheCatalog(t *testing.T) {
	s := &scene{T: t, dir: t.TempDir(), authorize: freeAddress(t), webhook: freeAddress(t)}
	s.write("token", token)
	s.postern = s.build("postern", "./sidecar")
	opa := s.build("opa", "-modfile=tools/opa/go.mod", "github.com/open-policy-agent/opa")
	s.startPostern()
	s.send("permission.created", "perm_1", "data:manage")
	s.startOPA(opa)
	s.await("data:manage", `{"decision":true,"reasons":["granted"]}`, time.Now())

	acknowledged := s.send("permission.deleted", "perm_1", "data:manage")
	took := s.await("data:manage", `{"decision":false,"reasons":["permission_deleted"]}`, acknowledged)
	if t.Logf("from the 201 to the deny of a stock OPA: %s", took); took > longPolled {
		t.Errorf("want less than %s: it doesn't wait at Postern, it polls", longPolled)
	}

	s.stopPostern()
	s.startPostern()
	s.send("permission.created", "perm_2", "data:read")
	s.await("data:read", `{"decision":true,"reasons":["granted"]}`, time.Now())
	s.await("data:manage", `{"decision":false,"reasons":["permission_deleted"]}`, time.Now())

	acknowledged = s.send("permission.deleted", "perm_2", "data:read")
	took = s.await("data:read", `{"decision":false,"reasons":["permission_deleted"]}`, acknowledged)
	t.Logf("and again, after a restart: %s", took)
}

// build builds a command of the repository and returns where it is.
func (s *scene) build(name string, args ...string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	command := exec.Command("go", append([]string{"build", "-o", path}, args...)...)
	command.Dir = filepath.Join("..", "..")
	if output, err := command.CombinedOutput(); err != nil {
		s.Fatalf("building %s: %v\n%s", name, err, output)
	}
	return path
}

func (s *scene) write(name, content string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
}

// start starts a command that ends with the test, and returns its log.
func (s *scene) start(path string, args ...string) (*exec.Cmd, io.Reader) {
	s.Helper()
	command := exec.Command(path, args...)
	command.Dir = filepath.Join("..", "..")
	command.Env = append(os.Environ(), "OPA_SKIP_VERSION_CHECK=1")
	logs, err := command.StderrPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := command.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = command.Process.Kill() })
	return command, logs
}

func (s *scene) startPostern() {
	s.Helper()
	command, logs := s.start(s.postern, "run", "--authorize-addr="+s.authorize, "--webhook-addr="+s.webhook, "--admin-addr=127.0.0.1:0",
		"--data-dir="+filepath.Join(s.dir, "data"), "--webhook-secret=whsec_"+secret, "--environment-id="+environment, "--api-token-file="+filepath.Join(s.dir, "token"))
	s.sidecar = command
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		if strings.Contains(lines.Text(), `"listening"`) && strings.Contains(lines.Text(), `"control"`) {
			go func() { _, _ = io.Copy(io.Discard, logs) }()
			return
		}
	}
	s.Fatal("the sidecar ended")
}

func (s *scene) stopPostern() {
	s.Helper()
	if err := s.sidecar.Process.Signal(os.Interrupt); err != nil {
		s.Fatal(err)
	}
	began := time.Now()
	if err := s.sidecar.Wait(); err != nil {
		s.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		s.Errorf("it took %s to stop while a follower waited", took)
	}
}

// startOPA runs the command of the documentation with its configuration. Only addresses and the
// path of the token are others.
func (s *scene) startOPA(opa string) {
	s.Helper()
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		s.Fatal(err)
	}
	section := regexp.MustCompile("(?s)## Following the catalog from a stock OPA.*?```yaml\n(.*?)```.*?```\nopa (run .*?)\n```").FindSubmatch(guide)
	if section == nil {
		s.Fatal("the guide doesn't tell how to follow the catalog")
	}
	s.opa = freeAddress(s.T)
	changed := strings.NewReplacer("127.0.0.1:8181", s.authorize, "/run/secrets/postern-token", filepath.Join(s.dir, "token"),
		"127.0.0.1:8383", s.opa, "opa.yaml", filepath.Join(s.dir, "opa.yaml"))
	s.write("opa.yaml", changed.Replace(string(section[1])))
	_, logs := s.start(opa, strings.Fields(changed.Replace(string(section[2])))...)
	go func() { _, _ = io.Copy(io.Discard, logs) }()
}

// send sends a signed event and returns when it was acknowledged.
func (s *scene) send(kind, id, name string) (acknowledged time.Time) {
	s.Helper()
	s.events++
	now := time.Now().UTC()
	body := fmt.Sprintf(`{"spec_version":"1","id":"evt_%d","type":%q,"environment_id":%q,"object":"Permission","occurred_at":%q,"data":{"id":%q,"name":%q,"description":""}}`,
		s.events, kind, environment, now.Format(time.RFC3339Nano), id, name)
	request, err := http.NewRequest(http.MethodPost, "http://"+s.webhook+"/webhooks/scalekit", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	messageID, timestamp := fmt.Sprint("msg_", s.events), fmt.Sprint(now.Unix())
	key, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		s.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(messageID + "." + timestamp + "." + body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("webhook-id", messageID)
	request.Header.Set("webhook-timestamp", timestamp)
	request.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.Fatal(err)
	}
	acknowledged = time.Now()
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusCreated {
		s.Fatalf("%s: %d %s %v", body, response.StatusCode, answer, err)
	}
	return acknowledged
}

// await asks the stock OPA until it decides so, and returns how long after since that was.
func (s *scene) await(name, decision string, since time.Time) time.Duration {
	s.Helper()
	question := fmt.Sprintf(`{"input":{"subject":{"type":"user","id":"usr_1","properties":{"permissions":[%q]}},"action":{"name":%q},"resource":{"type":"dataset","id":"ds_7"}}}`, name, name)
	var last string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		response, err := http.Post("http://"+s.opa+"/v1/data/authz/decision", "application/json", strings.NewReader(question))
		if err != nil {
			last = err.Error()
			continue // it hasn't started yet
		}
		var answer struct{ Result json.RawMessage }
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if last = fmt.Sprint(string(answer.Result), err); bytes.Equal(answer.Result, []byte(decision)) {
			return time.Since(since)
		}
	}
	s.Fatalf("%s: the stock OPA says %s, want %s", name, last, decision)
	return 0
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
