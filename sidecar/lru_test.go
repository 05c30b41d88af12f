package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

// With three records in memory and a hundred permissions on disk, delivered by eight
// senders at once, every decision is right, before and after a kill -9.
func TestEveryDecisionIsRightWithASmallLRU(t *testing.T) {
	const permissions = 100
	start := sidecarStarter(t, "--lru-size=3")
	c := start()
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for i := sender; i < permissions; i += 8 {
				sendNumbered(t, c, "permission.created", i, 0)
				if i%3 == 0 {
					sendNumbered(t, c, "permission.deleted", i, 1)
				}
			}
		})
	}
	senders.Wait()
	askNumbered(t, c, permissions)
	if err := c.kill(); err != nil {
		t.Fatal(err)
	}
	askNumbered(t, start(), permissions)
}

// sidecarStarter returns what starts the real binary, each time on the same directory.
func sidecarStarter(t *testing.T, flags ...string) func() *child {
	t.Helper()
	executable, err := exec.LookPath("postern")
	if err != nil {
		t.Fatal(err)
	}
	flags = withDefaults(flags,
		"--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir="+filepath.Join(t.TempDir(), "data"), "--webhook-secret="+testSecret, "--environment-id="+demoEnvironment,
	)
	return func() *child {
		c, err := startChild(context.Background(), executable, flags...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.kill() })
		return c
	}
}

func sendNumbered(t *testing.T, c *child, kind string, i, minute int) {
	t.Helper()
	body := must(wireEvent{
		ID: fmt.Sprintf("evt_%d_%d", i, minute), Type: kind, EnvironmentID: demoEnvironment, OccurredAt: fmt.Sprintf("2024-01-15T10:%02d:00Z", minute),
		Permission: wirePermission{ID: fmt.Sprint("perm_", i), Name: fmt.Sprint("name:", i)},
	}.body())
	header := must(webhook.ParseKeys(testSecret)).Sign(fmt.Sprint("msg_", i, "_", minute), time.Now(), body)
	answer, err := deliver(context.Background(), "http://"+c.addr("webhook")+"/webhooks/scalekit", body, header)
	if err != nil || answer.status != http.StatusCreated {
		t.Errorf("event %d: %v %v", i, answer, err)
	}
}

func askNumbered(t *testing.T, c *child, permissions int) {
	t.Helper()
	for i := range permissions + 10 {
		name := fmt.Sprint("name:", i)
		question := fmt.Sprintf(`{"subject":{"type":"user","id":"u","properties":{"permissions":[%q]}},"action":{"name":%q},"resource":{"type":"r","id":"1"}}`, name, name)
		answer, err := deliver(context.Background(), "http://"+c.addr("authorize")+"/v1/authorize", []byte(question), http.Header{})
		if err != nil {
			t.Fatal(err)
		}
		var got demoAnswer
		if err := json.Unmarshal([]byte(answer.body), &got); err != nil {
			t.Fatalf("%s: %v", answer.body, err)
		}
		want := "granted"
		switch {
		case i >= permissions:
			want = "catalog_incomplete"
		case i%3 == 0:
			want = "permission_deleted"
		}
		if got.Decision != (want == "granted") || len(got.Context.Reasons) != 1 || got.Context.Reasons[0] != want {
			t.Errorf("%s: got %s, want %s", name, answer.body, want)
		}
	}
}
