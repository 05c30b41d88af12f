package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/simulator"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var settingRow = regexp.MustCompile("(?m)^\\| `--.*$")

// The guides tell the settings of the tables, row for row.
func TestDocumentedSettingsAreTheTable(t *testing.T) {
	for guide, table := range map[string][]setting{
		"operations.md": new(config).settings(), "development.md": new(simulateConfig).settings(),
		"authoring.md": slices.Concat(new(checkConfig).settings(), new(testConfig).settings()),
	} {
		var want []string
		for _, s := range table {
			initial := ""
			if s.initial != "" {
				initial = "`" + s.initial + "`"
			}
			want = append(want, fmt.Sprintf("| `--%s` | %s | %s |", s.name, initial, s.help))
		}
		if got := settingRow.FindAllString(read(t, "docs", guide), -1); !slices.Equal(got, want) {
			t.Errorf("docs/%s should say\n%s", guide, strings.Join(want, "\n"))
		}
	}
}

// The developers' guide tells every fault, and its fixture can be read.
func TestDocumentedSimulator(t *testing.T) {
	guide := read(t, "docs", "development.md")
	fixture, err := simulator.ReadFixture([]byte(blocks(t, "docs/development.md", "yaml")[0]))
	if err != nil || len(fixture.Permissions) != 2 || len(fixture.Roles) != 2 {
		t.Errorf("got %+v, %v", fixture, err)
	}
	for _, fault := range simulator.AllFaults() {
		if !strings.Contains(guide, "`"+string(fault)+"`") {
			t.Errorf("the fault %q isn't documented", fault)
		}
	}
}

// Every setting, verb and error code that a user can meet stands in a guide.
func TestDocumentedNames(t *testing.T) {
	guide := read(t, "docs", "operations.md") + read(t, "docs", "development.md") + read(t, "docs", "authoring.md") + read(t, "README.md")
	for _, v := range allVerbs() {
		if !strings.Contains(guide, v.name) && v.name != "version" {
			t.Errorf("the verb %q isn't documented", v.name)
		}
	}
	for _, code := range errorCodes(t) {
		if !strings.Contains(guide, "`"+code+"`") {
			t.Errorf("the code %q isn't documented", code)
		}
	}
}

var (
	sourceCode = regexp.MustCompile(`(?:Code: |http\.Status[A-Za-z]+, )"([a-z_]+)"[,}]`)
	withCodes  = []string{".", "authz", "listener", "simulator", "webhook"}
)

// errorCodes finds the codes of errors where they are written down, in the source.
func errorCodes(t *testing.T) (codes []string) {
	t.Helper()
	for _, room := range withCodes {
		files, err := filepath.Glob(filepath.Join(room, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, match := range sourceCode.FindAllStringSubmatch(read(t, "sidecar", file), -1) {
				codes = append(codes, match[1])
			}
		}
	}
	if len(codes) < 15 {
		t.Fatalf("only %d codes were found: %v", len(codes), codes)
	}
	return codes
}

// The example of the policy authors' guide compiles and answers.
func TestDocumentedPolicy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(shownFile(t, "docs/policies.md", "my-policy/authz.rego")), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sidecarStarter(t, "--policy="+dir)()
	sendNumbered(t, c, "permission.created", 0, 0)
	for question, want := range map[string]string{
		`{"subject":{"type":"user","id":"u","properties":{"permissions":["name:0"]}},"action":{"name":"name:0"},"resource":{"type":"r","id":"1"}}`:                                   `"decision":true,"context":{"reasons":["granted"]`,
		`{"subject":{"type":"user","id":"u","properties":{"permissions":["name:0"]}},"action":{"name":"name:0"},"resource":{"type":"r","id":"1","properties":{"state":"archived"}}}`: `"decision":false,"context":{"reasons":["archived"]`,
		`{"subject":{"type":"user","id":"u"},"action":{"name":"name:0"},"resource":{"type":"r","id":"1"}}`:                                                                           `"decision":false,"context":{"reasons":["policy_denied"]`,
	} {
		answer, err := deliver(t.Context(), "http://"+c.addr("authorize")+"/v1/authorize", []byte(question), http.Header{})
		if err != nil || !strings.Contains(answer.body, want) {
			t.Errorf("%s: got %v, %v", question, answer, err)
		}
	}
}

// The guide's example of an explanation is what the verb prints.
func TestDocumentedExplanation(t *testing.T) {
	command := exec.Command("sh", "-e", "-c", blocks(t, "docs/explain.md", "sh")[0])
	command.Dir = t.TempDir()
	got, err := command.CombinedOutput()
	if want := blocks(t, "docs/explain.md", "text")[0]; err != nil || string(got) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

// The commands of the guide to bundles build, sign and verify the built-in policies.
func TestDocumentedBundle(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl makes the keys")
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "policies"), policies.FS()); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "sh", "-e", "-c", blocks(t, "docs/bundles.md", "sh")[0])
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "bundle.tar.gz: good\n") || !strings.Contains(string(output), "authz/decision") {
		t.Errorf("got %v\n%s", err, output)
	}
}
