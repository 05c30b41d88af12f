package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/simulator"
	"github.com/postern-authz/postern/sidecar/webhook"
)

const audience = "app_1"

// simulated is a simulated Scalekit, and where it is.
type simulated struct {
	*simulator.Simulator
	url string
}

// startScalekit serves one whose webhooks go to an address.
func startScalekit(t *testing.T, webhookAddr string) simulated {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	s, err := simulator.New(simulator.Config{
		URL: "http://" + server.Listener.Addr().String(), EnvironmentID: demoEnvironment, ClientID: "skc_1", ClientSecret: "simulated", Seed: 1,
		Webhooks: simulator.Webhooks{
			URL:  "http://" + webhookAddr + "/webhooks/scalekit",
			Sign: must(webhook.ParseKeys(testSecret)).Sign,
		},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = s
	server.Start()
	t.Cleanup(server.Close)
	go s.Run(t.Context())
	return simulated{s, "http://" + server.Listener.Addr().String()}
}

// tokenSidecar is a sidecar that verifies the tokens of a simulated Scalekit.
type tokenSidecar struct {
	*testing.T
	*child
	scalekit simulated
	start    func() *child
}

func newTokenSidecar(t *testing.T, flags ...string) *tokenSidecar {
	t.Helper()
	addr := freeAddress(t)
	s := startScalekit(t, addr)
	secret := filepath.Join(t.TempDir(), "client-secret")
	if err := os.WriteFile(secret, []byte("simulated"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags = append([]string{
		"--webhook-addr=" + addr, "--issuer=" + s.url, "--audience=" + audience,
		"--scalekit-url=" + s.url, "--scalekit-client-id=skc_1", "--scalekit-client-secret-file=" + secret,
	}, flags...)
	k := &tokenSidecar{T: t, scalekit: s, start: sidecarStarter(t, flags...)}
	k.child = k.start()
	return k
}

// token mints one of usr_1, in org_1 unless told otherwise.
func (k *tokenSidecar) token(r simulator.TokenRequest) string {
	k.Helper()
	r.Subject, r.OrganizationID = "usr_1", cmp.Or(r.OrganizationID, "org_1")
	if r.Audience == nil {
		r.Audience = []string{audience}
	}
	return must(k.scalekit.Mint(r))
}

// ask asks for data:manage in org_1 with a token, and waits for an answer that holds all of want.
func (k *tokenSidecar) ask(token string, want ...string) {
	k.Helper()
	const question = `{"subject":{"type":"user","id":"usr_1","properties":{"permissions":["data:manage"]}},"action":{"name":"data:manage"},"resource":{"type":"r","id":"1","properties":{"organization_id":"org_1"}}}`
	header := http.Header{}
	if token != "" {
		header.Set(authz.TokenHeader, token)
	}
	var answer httpAnswer
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if answer, err = deliver(context.Background(), "http://"+k.addr("authorize")+"/v1/authorize", []byte(question), header); err != nil {
			k.Fatal(err)
		}
		matches := true
		for _, w := range want {
			matches = matches && strings.Contains(fmt.Sprint(answer.status, answer.body), w)
		}
		if matches {
			return
		}
	}
	k.Errorf("got %d %s, want %q", answer.status, answer.body, want)
}

// The reason for all of this: a token keeps a permission that was deleted, and in vain.
func TestATokenAndADeletion(t *testing.T) {
	k := newTokenSidecar(t)
	created := must(k.scalekit.Create("data:manage", ""))
	held := k.token(simulator.TokenRequest{Permissions: []string{"data:manage"}})
	k.ask(held, `"decision":true,"context":{"reasons":["granted"]`, `"name":"data:manage","event_id":"evt_`)
	k.ask("", `"decision":false,"context":{"reasons":["token_required"]`)
	for code, r := range map[string]simulator.TokenRequest{
		"token_expired":        {Age: time.Hour},
		"token_not_yet_valid":  {Age: -time.Hour},
		"token_wrong_audience": {Audience: []string{"app_2"}},
		"token_wrong_issuer":   {Claims: map[string]any{"iss": k.scalekit.url + "/"}},
		"token_invalid":        {Key: simulator.Unpublished},
	} {
		k.ask(k.token(r), `"decision":false,"context":{"reasons":["`+code+`"]`)
	}
	must(k.scalekit.Delete(created.ID))
	k.ask(held, `"decision":false,"context":{"reasons":["permission_deleted"]`)
}

// A new key is asked for when a token names it; one that is taken out counts no more; and a
// start without the issuer has the keys of before.
func TestKeysThatRotate(t *testing.T) {
	k := newTokenSidecar(t)
	must(k.scalekit.Create("data:manage", ""))
	first := k.token(simulator.TokenRequest{Permissions: []string{"data:manage"}})
	k.ask(first, `"decision":true`)
	must(k.scalekit.RotateKeys(true))
	second := k.token(simulator.TokenRequest{Permissions: []string{"data:manage"}})
	k.ask(second, `"decision":true`)
	k.ask(first, `"decision":true`)
	must(k.scalekit.RotateKeys(false))
	if err := k.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	k.ask(second, `"decision":false`, "token_")
	third := k.token(simulator.TokenRequest{Permissions: []string{"data:manage"}})
	k.ask(third, `"decision":true`)
	if err := k.scalekit.SetFaults(must(allFaults("keys_unavailable", "error_503"))); err != nil {
		t.Fatal(err)
	}
	if err := k.kill(); err != nil {
		t.Fatal(err)
	}
	k.child = k.start()
	k.ask(third, `"decision":true`)
}

// allFaults are faults that always happen.
func allFaults(names ...string) (f simulator.Faults, err error) {
	f.Rules = map[simulator.Fault]simulator.Rule{}
	for _, name := range names {
		fault, rule, err := simulator.ParseFault(name + "=always")
		if err != nil {
			return f, err
		}
		f.Rules[fault] = rule
	}
	return f, nil
}

// The policy of the policy authors' guide that grants by roles, with the library copied beside it.
func TestDocumentedRoles(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "lib"), os.DirFS("../policies/lib")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(shownFile(t, "docs/policies.md", "by-role/authz.rego")), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newTokenSidecar(t, "--policy="+dir)
	created := must(k.scalekit.Create("data:manage", ""))
	member := k.token(simulator.TokenRequest{Roles: []string{"admin"}, Permissions: []string{}})
	k.ask(member, `"reasons":["not_granted"]`)
	must(k.scalekit.CreateRole(simulator.Role{Name: "admin", Permissions: []string{"data:manage"}}))
	k.ask(member, `"decision":true,"context":{"reasons":["granted_by_role"]`) // once the role events are quiet
	k.ask(k.token(simulator.TokenRequest{OrganizationID: "org_2", Roles: []string{"admin"}}), `"reasons":["not_granted"]`)
	must(k.scalekit.Delete(created.ID))
	k.ask(member, `"reasons":["not_granted"]`)
}
