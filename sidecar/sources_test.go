package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bundleHost serves one bundle with an ETag, to whoever has the token.
type bundleHost struct {
	*httptest.Server
	mu      sync.Mutex
	content []byte
	away    bool
	asked   int
}

const hostToken = "hush-hush-hush-hush"

func newBundleHost(t *testing.T) *bundleHost {
	h := &bundleHost{}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *bundleHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	tag := fmt.Sprintf("\"%x\"", sha256.Sum256(h.content))
	switch {
	case h.away:
		w.WriteHeader(http.StatusBadGateway)
	case r.Header.Get("Authorization") != "Bearer "+hostToken:
		w.WriteHeader(http.StatusUnauthorized)
	case r.Header.Get("If-None-Match") == tag:
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("ETag", tag)
		_, _ = w.Write(h.content)
	}
}

func (h *bundleHost) set(content []byte, away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.content, h.away = content, away
}

// buildSigned is `postern bundle build` and `sign` over one rule.
func buildSigned(t *testing.T, keyFile, revision string) []byte {
	t.Helper()
	dir := t.TempDir()
	rule := fmt.Sprintf("package authz\n\ndecision := {\"decision\": true, \"reasons\": [\"revision %s\"]}\n", revision)
	if err := os.WriteFile(filepath.Join(dir, "app.rego"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	for _, args := range [][]string{
		{"bundle", "build", "--revision", revision, "--output", file, dir},
		{"bundle", "sign", "--signing-key", keyFile, "--signing-alg", "HS256", file},
	} {
		if said, err := exec.Command("postern", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, said)
		}
	}
	return must(os.ReadFile(file))
}

// fetchUntil asks for a page until it has the text.
func fetchUntil(t *testing.T, method, url, body, want string) string {
	t.Helper()
	for deadline := time.Now().Add(startWithin); ; {
		request := must(http.NewRequest(method, url, strings.NewReader(body)))
		request.Header.Set("Content-Type", "application/json")
		response := must(http.DefaultClient.Do(request))
		got := string(must(io.ReadAll(response.Body)))
		_ = response.Body.Close()
		if strings.Contains(got, want) {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never says %q, but %s", url, want, got)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A bundle is downloaded, with a token and verified, and kept: the sidecar starts without the
// server, and what was refused stays refused over a restart.
func TestBundleURLOfTheWholeBinary(t *testing.T) {
	const question = `{"subject":{"type":"user","id":"u"},"action":{"name":"a"},"resource":{"type":"r","id":"1"}}`
	dir := t.TempDir()
	keyFile, tokenFile, opaConfig := filepath.Join(dir, "key"), filepath.Join(dir, "token"), filepath.Join(dir, "opa.yaml")
	host := newBundleHost(t)
	for path, content := range map[string]string{
		keyFile: strings.Repeat("k", 32), tokenFile: "wrong",
		opaConfig: fmt.Sprintf(`{"services":{"a":{"url":%q,"credentials":{"bearer":{"token_path":%q}}}},"keys":{"k":{"algorithm":"HS256","key":%q}},
			"bundles":{"authz":{"resource":"b.tar.gz","signing":{"keyid":"k"},"polling":{"min_delay_seconds":1,"max_delay_seconds":1}}}}`, host.URL, tokenFile, strings.Repeat("k", 32)),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host.set(buildSigned(t, keyFile, "1"), false)
	for name, flags := range map[string][]string{
		"policy":     {"--policy=" + host.URL + "/b.tar.gz", "--policy-token-file=" + tokenFile, "--bundle-verification-key=" + keyFile, "--policy-interval=200ms"},
		"opa-config": {"--opa-config=" + opaConfig},
	} {
		t.Run(name, func(t *testing.T) {
			host.set(buildSigned(t, keyFile, "1"), false)
			must(0, os.WriteFile(tokenFile, []byte("wrong"), 0o600))
			start := sidecarStarter(t, flags...)
			c := start()
			ready := func(c *child) string { return "http://" + c.addr("admin") + "/readyz?verbose" }
			ask := func(c *child, want string) {
				t.Helper()
				fetchUntil(t, http.MethodPost, "http://"+c.addr("authorize")+"/v1/authorize", question, want)
			}
			fetchUntil(t, http.MethodGet, ready(c), "", "awaited, FAILING: ")
			ask(c, "not_ready")
			must(0, os.WriteFile(tokenFile, []byte(hostToken+"\n"), 0o600)) // its change is followed
			ask(c, `"reasons":["revision 1"],`)
			host.set(buildSigned(t, keyFile, "2"), false)
			ask(c, `"policy_revision":"2"`)
			host.set(append(buildSigned(t, keyFile, "3"), 'x'), false) // tampered
			fetchUntil(t, http.MethodGet, ready(c), "", "FAILED, the previous policy stays")
			must(0, c.kill())
			host.set(nil, true)

			c = start()
			ask(c, `"policy_revision":"2"`)
			fetchUntil(t, http.MethodGet, ready(c), "", "revision 2, KEPT from an earlier run")
			host.set(buildSigned(t, keyFile, "1"), false)
			fetchUntil(t, http.MethodGet, ready(c), "", `revision "1" is older than the revision in use, "2"`)
			host.set(buildSigned(t, keyFile, "4"), false)
			ask(c, `"policy_revision":"4"`)
			if log := fetchUntil(t, http.MethodGet, ready(c), "", "the last load succeeded"); strings.Contains(log, "hush") {
				t.Errorf("the token is told: %s", log)
			}
		})
	}
}
