package bundle_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies/policiestest"
)

// stockOPA is the real opa, of the version that this project embeds.
type stockOPA string

func (o stockOPA) command(ctx context.Context, directory string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, string(o), args...)
	command.Dir = directory
	command.Env = append(os.Environ(), "OPA_SKIP_VERSION_CHECK=1")
	return command
}

// run wants opa to succeed, and returns what it printed.
func (o stockOPA) run(t *testing.T, directory string, args ...string) string {
	t.Helper()
	output, err := o.command(t.Context(), directory, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("opa %q: %v\n%s", args, err, output)
	}
	return string(output)
}

// serve starts `opa run --server`, asks it for a document and returns the answer, or what
// opa printed before it gave up.
func (o stockOPA) serve(t *testing.T, directory, document string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	socket := filepath.Join(t.TempDir(), "s")
	command := o.command(ctx, directory, append([]string{"run", "--server", "--addr", "unix://" + socket}, args...)...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	must(t, command.Start())
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-exited:
			return output.String()
		case <-ticker.C:
			if answer, ok := get(ctx, client, "http://opa/v1/data/"+document); ok {
				cancel()
				<-exited
				return answer
			}
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) (string, bool) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error(), true
	}
	response, err := client.Do(request)
	if err != nil {
		return "", false // not yet
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return string(body), err == nil
}

// place writes files into a directory of their own.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	directory := t.TempDir()
	for name, content := range files {
		path := filepath.Join(directory, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return directory
}

// tamper changes a file of an archive, and leaves its signature.
func tamper(t *testing.T, archive []byte) []byte {
	t.Helper()
	files, names := unpacked(t, archive)
	var entries []entry
	for _, name := range names {
		content := files[name]
		if strings.HasSuffix(name, "authz.rego") {
			content = strings.Replace(content, "true", "false", 1)
		}
		entries = append(entries, entry{name: name, content: content})
	}
	changed := pack(t, entries...)
	if bytes.Equal(changed, archive) || !strings.Contains(strings.Join(names, " "), "authz.rego") {
		t.Fatalf("nothing of %q was changed", names)
	}
	return changed
}

// What we build and sign, the stock opa loads; what it builds and signs, we load; and each
// refuses what was changed.
func TestStockOPA(t *testing.T) {
	if testing.Short() {
		t.Skip("builds opa")
	}
	opa := stockOPA(filepath.Join(policiestest.StockOPA(t, ".."), "opa"))
	rsaPair, ecPair := pairOf(t, rsaKey(t, 2048)), pairOf(t, ecKey(t, elliptic.P256()))
	t.Run("loads what we build", opa.loadsOurs)
	t.Run("we load what it builds", opa.buildsForUs)
	for algorithm, pair := range map[string]keyPair{"RS256": rsaPair, "PS384": rsaPair, "ES256": ecPair, "HS512": secret()} {
		t.Run(algorithm+" by us", func(t *testing.T) { opa.verifiesOurs(t, algorithm, pair) })
		t.Run(algorithm+" by it", func(t *testing.T) { opa.signsForUs(t, algorithm, pair) })
		t.Run(algorithm+" of a directory", func(t *testing.T) { opa.signsDirectories(t, algorithm, pair) })
	}
}

func interopFiles() map[string]string {
	return map[string]string{
		"authz/authz.rego": "package authz\n\ndecision := {\"allow\": true, \"limit\": data.x.limit}\n", "authz/authz_test.rego": "package authz_test\n\nimport data.authz\n\ntest_x if authz.decision\n",
		"x/data.json": `{"limit": 1.50, "é": ["<&>", null]}`, "x/y/data.yaml": "z: 2\n",
	}
}

func (o stockOPA) loadsOurs(t *testing.T) {
	var archive bytes.Buffer
	_, err := bundle.Build(t.Context(), &archive, []bundle.Source{{Name: "p", FS: tree(interopFiles())}}, bundle.BuildOptions{Revision: "7"})
	must(t, err)
	directory := place(t, map[string]string{"b.tar.gz": archive.String()})
	if got := o.run(t, directory, "eval", "-b", "b.tar.gz", "--format", "raw", "[data.authz.decision.limit, data.x.y.z]"); strings.TrimSpace(got) != "[1.50,2]" {
		t.Errorf("opa eval: got %s", got)
	}
	if got := o.run(t, directory, "inspect", "b.tar.gz"); !strings.Contains(got, "│ Revision     │ 7") || !strings.Contains(got, "authz/authz.rego") {
		t.Errorf("opa inspect: got %s", got)
	}
	if got := o.serve(t, directory, "authz/decision", "-b", "b.tar.gz"); !strings.Contains(got, `"allow":true`) {
		t.Errorf("opa run: got %s", got)
	}
}

func (o stockOPA) buildsForUs(t *testing.T) {
	directory := place(t, interopFiles())
	for _, args := range [][]string{{"-b", "."}, {"-b", directory}, {"."}} {
		o.run(t, directory, append([]string{"build", "--revision", "7", "-o", "../b.tar.gz"}, args...)...)
		archive, err := os.ReadFile(filepath.Join(directory, "../b.tar.gz"))
		must(t, err)
		b, err := loadArchive(t, archive, bundle.LoadOptions{})
		must(t, err)
		policy, err := b.Compile(bundle.Options{Decision: "authz/decision"})
		if err != nil || policy.Revision != "7" || policy.Data["x"] == nil {
			t.Errorf("opa build %q: got %v, %v", args, policy, err)
		}
	}
	o.run(t, directory, "build", "-t", "wasm", "-e", "authz/decision", "-o", "../b.tar.gz", "-b", ".")
	archive, err := os.ReadFile(filepath.Join(directory, "../b.tar.gz"))
	must(t, err)
	_, err = loadArchive(t, archive, bundle.LoadOptions{})
	wantError(t, err, "WebAssembly")
}

func (o stockOPA) verifiesOurs(t *testing.T, algorithm string, pair keyPair) {
	archive := signedArchive(t, interopFiles(), bundle.SigningKey{ID: "k", Algorithm: algorithm, Content: pair.private, Scope: "s"})
	directory := place(t, map[string]string{"b.tar.gz": string(archive), "changed.tar.gz": string(tamper(t, archive)), "key": string(pair.public)})
	flags := []string{"--verification-key", "key", "--verification-key-id", "k", "--signing-alg", algorithm, "--scope", "s", "-b"}
	if got := o.serve(t, directory, "authz/decision", append(flags, "b.tar.gz")...); !strings.Contains(got, `"allow":true`) {
		t.Errorf("got %s", got)
	}
	if got := o.serve(t, directory, "authz/decision", append(flags, "changed.tar.gz")...); !strings.Contains(got, "digest mismatch") {
		t.Errorf("changed: got %s", got)
	}
	flags[7] = "other"
	if got := o.serve(t, directory, "authz/decision", append(flags, "b.tar.gz")...); !strings.Contains(got, "scope mismatch") {
		t.Errorf("another scope: got %s", got)
	}
}

func (o stockOPA) signsForUs(t *testing.T, algorithm string, pair keyPair) {
	directory := place(t, interopFiles())
	beside := place(t, map[string]string{"key": string(pair.private), "claims": `{"scope":"s","keyid":"k"}`})
	built, claims := filepath.Join(beside, "b.tar.gz"), filepath.Join(beside, "claims")
	o.run(t, directory, "build", "-b", ".", "-o", built, "--signing-key", filepath.Join(beside, "key"), "--signing-alg", algorithm, "--claims-file", claims)
	archive, err := os.ReadFile(built)
	must(t, err)
	key := bundle.VerificationKey{ID: "k", Algorithm: algorithm, Content: pair.public}
	good := bundle.LoadOptions{Verification: verification(t, "s", key)}
	if _, err := loadArchive(t, archive, good); err != nil {
		t.Error(err)
	}
	_, err = loadArchive(t, tamper(t, archive), good)
	wantError(t, err, "authz/authz.rego isn't what was signed")
	_, err = loadArchive(t, archive, bundle.LoadOptions{Verification: verification(t, "other", key)})
	wantError(t, err, `want a signature with the scope "other" (--bundle-verification-scope), got "s"`)
	key.ID = "another"
	_, err = loadArchive(t, archive, bundle.LoadOptions{Verification: verification(t, "s", key)})
	wantError(t, err, `by the key "k", and --bundle-verification-key knows another`)
}

// A directory is signed from within, so that names are relative to it, and packed. (Of a
// directory that isn't packed opa run wants names with the path that it was called by.)
func (o stockOPA) signsDirectories(t *testing.T, algorithm string, pair keyPair) {
	directory := place(t, interopFiles())
	beside := place(t, map[string]string{"private": string(pair.private), "public": string(pair.public)})
	o.run(t, directory, "sign", "-b", ".", "--signing-key", filepath.Join(beside, "private"), "--signing-alg", algorithm)
	good := bundle.LoadOptions{Verification: verification(t, "", bundle.VerificationKey{Content: pair.public})}
	if _, err := bundle.Load(t.Context(), os.DirFS(directory), good); err != nil {
		t.Error(err)
	}
	signatures, err := bundle.Sign(t.Context(), bundle.Source{FS: os.DirFS(directory)}, bundle.SigningKey{Algorithm: algorithm, Content: pair.private}, bundle.LoadOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(directory, ".signatures.json"), signatures, 0o600))
	if _, err := bundle.Load(t.Context(), os.DirFS(directory), good); err != nil {
		t.Error(err)
	}
	files := interopFiles()
	files[".signatures.json"] = string(signatures)
	must(t, os.WriteFile(filepath.Join(beside, "b.tar.gz"), pack(t, entriesOf(files)...), 0o600))
	if got := o.serve(t, beside, "authz/decision", "--verification-key", "public", "--signing-alg", algorithm, "-b", "b.tar.gz"); !strings.Contains(got, `"allow":true`) {
		t.Errorf("got %s", got)
	}
	must(t, os.WriteFile(filepath.Join(directory, "authz/authz.rego"), []byte(allowRego), 0o600))
	_, err = bundle.Load(t.Context(), os.DirFS(directory), good)
	wantError(t, err, "authz/authz.rego isn't what was signed")
}
