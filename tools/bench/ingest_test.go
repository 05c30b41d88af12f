package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	lake "github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/webhook"
)

// fillCatalog makes a catalog in a directory of its own.
func fillCatalog(t *testing.T, c *catalog) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	if err := makeCatalog(context.Background(), dir, c.writeDump); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startReceiving runs the child's mode in this process.
func startReceiving(t *testing.T, c *catalog, commits string) *receiver {
	t.Helper()
	dir := fillCatalog(t, c)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(webhookSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := webhook.ParseKeys(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := &addressLog{found: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- receive(ctx, dir, file, commits, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	addr := <-log.found
	return &receiver{name: commits, server: &server{addr: addr}, syncAddr: addr, stream: newEventStream(keys, c)}
}

// addressLog finds in a log where the receiver listens.
type addressLog struct{ found chan string }

// Write takes a line.
func (l *addressLog) Write(line []byte) (int, error) {
	said := toldAddrs{wanted: []string{"authorize"}, addrs: map[string]string{}}
	if addr := said.complete(line); addr != "" {
		l.found <- addr
	}
	return len(line), nil
}

func TestEachEventOfTheStreamChangesTheCatalog(t *testing.T) {
	r := startReceiving(t, newCatalog(2*heldCount), commitOneByOne)
	before, err := revisionAt(context.Background(), r.syncAddr)
	if err != nil {
		t.Fatal(err)
	}
	const events = 10 * heldCount // each permission is updated more than once
	d, err := deliverAll(context.Background(), r.server.addr, r.stream.draw(events), 1, time.Minute)
	if err != nil || d.latencies.total != events {
		t.Fatalf("want %d acknowledged, got %d, error %v", events, d.latencies.total, err)
	}
	after, err := revisionAt(context.Background(), r.syncAddr)
	if err != nil || after-before != events {
		t.Errorf("want a commit for each of %d events, got %d, error %v", events, after-before, err)
	}
}

func TestALegOfSharedCommitsCountsEventsInACommit(t *testing.T) {
	r := startReceiving(t, newCatalog(2000), commitShared) // so that no two updates of one are in flight
	l, err := r.measure(context.Background(), 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if l.perSecond <= 0 || l.perCommit < 1 || l.p50 <= 0 || l.p99 < l.p50 {
		t.Errorf("want positive figures, got %+v", l)
	}
	if r.stream.next == 0 {
		t.Error("want the stream to go on behind what was sent")
	}
}

func TestARefusedDeliveryEndsTheRun(t *testing.T) {
	r := startReceiving(t, newCatalog(2*heldCount), commitShared)
	requests := r.stream.draw(1)
	requests[0][len(requests[0])-2] = ' ' // breaks the signature
	if _, err := deliverAll(context.Background(), r.server.addr, requests, 1, time.Minute); err == nil {
		t.Error("want an error for status 401")
	}
	repeated := r.stream.draw(1)
	repeated = append(repeated, repeated[0])
	if _, err := deliverAll(context.Background(), r.server.addr, repeated, 1, time.Minute); err == nil {
		t.Error("want an error for an event that changes nothing")
	}
}

func TestTheStreamAlternatesAndGoesForward(t *testing.T) {
	c := newCatalog(2 * heldCount)
	s := newEventStream(webhook.Keys{}, c)
	var last string
	for number := range 200 {
		var event struct {
			Type       string
			OccurredAt string `json:"occurred_at"`
			Data       struct{ ID, Name string }
		}
		if err := json.Unmarshal(s.body(number), &event); err != nil {
			t.Fatal(err)
		}
		want := []string{"permission.created", "permission.updated"}[number%2]
		if event.Type != want || event.OccurredAt <= last {
			t.Fatalf("event %d: want a later %s, got %+v behind %s", number, want, event, last)
		}
		if last = event.OccurredAt; number%2 == 1 && event.Data.ID != c.live[number/2%len(c.live)].ID {
			t.Fatalf("event %d: want an update of a known permission, got %+v", number, event)
		}
	}
}

func TestTheCatalogIsReadable(t *testing.T) {
	dir := fillCatalog(t, newCatalog(2*heldCount))
	c, err := lake.Open(context.Background(), lake.Options{Dir: dir, LRUSize: 1, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if at := c.Sync(); at.Count != 2*heldCount || !at.Complete {
		t.Errorf("got %+v", at)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
