package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
	"github.com/postern-authz/postern/sidecar/author"
)

// withStockOPA is the environment with a real opa and without settings of Postern.
func withStockOPA(t *testing.T) []string {
	t.Helper()
	return append(withoutSettings(os.Environ()), "PATH="+policiestest.StockOPA(t, "..")+string(os.PathListSeparator)+os.Getenv("PATH"))
}

var took = regexp.MustCompile(`\([0-9.]+[µmn]?s\)`)

// The authors' guide is followed block by block: a block of commands succeeds, or prints what
// the block behind it shows.
func TestAuthoringPath(t *testing.T) {
	text := read(t, "docs", "authoring.md")
	environ, top := withStockOPA(t), t.TempDir()
	at := top
	all := fencedBlocks(text)
	followed, shown := 0, 0
	for i, block := range all {
		if block.language != "sh" {
			continue
		}
		followed++
		var output, failure bytes.Buffer
		command := exec.CommandContext(t.Context(), "sh", "-e", "-c", block.text)
		command.Dir, command.Env, command.Stdout, command.Stderr = at, environ, &output, &failure
		err := command.Run()
		if strings.Contains(block.text, "\ncd acme\n") {
			at = filepath.Join(top, "acme")
		}
		if i+1 < len(all) && all[i+1].language == "text" {
			shown++
			if got := took.ReplaceAllString(output.String(), "(…)"); got != all[i+1].text {
				t.Errorf("%s\ngot\n%s%s\nwant\n%s", block.text, got, failure.String(), all[i+1].text)
			}
		} else if err != nil {
			t.Errorf("%s\n%v\n%s%s", block.text, err, output.String(), failure.String())
		}
	}
	if followed < 7 || shown < 3 {
		t.Errorf("%d blocks were followed, %d of them with what they print", followed, shown)
	}
}

// What the README of a new tree says is done, in a new tree: its commands, and that the sidecar
// answers by its policies and catalog.
func TestTheReadmeOfANewTree(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "policies")
	if err := author.Init(directory, policies.FS()); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(directory, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	environ := withStockOPA(t)
	var ran []string
	for _, block := range fencedBlocks(string(readme)) {
		for line := range strings.Lines(block.text) {
			ran = append(ran, strings.TrimSpace(line))
		}
	}
	if len(ran) < 9 {
		t.Fatalf("the README has %q", ran)
	}
	start := sidecarStarter(t, "--policy="+filepath.Join(directory, "policies"), "--data-dir="+filepath.Join(directory, "postern-data"))
	for _, line := range ran {
		if strings.HasPrefix(line, "postern run") {
			continue // it doesn't end; it is started below, and asked
		}
		if strings.Contains(line, "127.0.0.1:8181") || strings.Contains(line, "mine.ndjson") {
			continue // what a running sidecar is asked, below
		}
		command := exec.CommandContext(t.Context(), "sh", "-c", line)
		command.Dir, command.Env = directory, environ
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, output)
		}
	}
	c := start()
	address := c.addr("authorize")
	answer, err := deliver(t.Context(), "http://"+address+"/v1/authorize",
		[]byte(`{"subject":{"type":"user","id":"u","properties":{"permissions":["invoices:delete"]}},"action":{"name":"invoices:delete"},"resource":{"type":"r","id":"1"}}`), http.Header{})
	if err != nil || !strings.Contains(answer.body, `"reasons":["permission_deleted"]`) {
		t.Errorf("got %v, %v", answer, err)
	}
	for _, line := range ran {
		if !strings.Contains(line, "127.0.0.1:8181") && !strings.Contains(line, "mine.ndjson") {
			continue
		}
		line, _, _ = strings.Cut(line, "||")
		command := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "127.0.0.1:8181", address))
		command.Dir, command.Env = directory, environ
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, output)
		}
	}
}

// The catalog of a new tree is the same in both forms. Epoch and revision are a sidecar's own.
func TestTheFixturesOfANewTreeAgree(t *testing.T) {
	directory := filepath.Join("author", "starter")
	opened, err := openCatalogFile(t.Context(), filepath.Join(directory, "catalog.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	content, err := os.ReadFile(filepath.Join(directory, "fixtures", "scalekit", "data.json"))
	if err != nil {
		t.Fatal(err)
	}
	document := func(text string) ast.Value {
		var value map[string]any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		delete(value["sync"].(map[string]any), "epoch")
		delete(value["sync"].(map[string]any), "revision")
		return ast.MustInterfaceToValue(value)
	}
	if got, want := document(string(content)), document(seen(t, opened.document(inmem.New()), "/scalekit")); got.Compare(want) != 0 {
		t.Errorf("data.json says\n%s\nthe catalog says\n%s", got, want)
	}
}
