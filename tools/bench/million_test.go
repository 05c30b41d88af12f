package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

func TestTheLargeCatalogIsWhatBothServersTake(t *testing.T) {
	large := largeCatalog{live: 50, deleted: 3}
	dir := filepath.Join(t.TempDir(), "data")
	if err := makeCatalog(context.Background(), dir, large.writeDump); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := large.writeData(&text); err != nil {
		t.Fatal(err)
	}
	var data struct {
		Scalekit struct {
			Permissions map[string]record
			Deleted     map[string]map[string]string
			Sync        struct{ Complete bool }
		}
		Postern struct{ Settings map[string]string }
	}
	if err := json.Unmarshal(text.Bytes(), &data); err != nil {
		t.Fatalf("%v in %s", err, text.Bytes())
	}
	if len(data.Scalekit.Permissions) != 50 || len(data.Scalekit.Deleted) != 3 || !data.Scalekit.Sync.Complete || data.Postern.Settings["on_incomplete"] != "deny" {
		t.Errorf("got %d permissions, %d deletions, %+v", len(data.Scalekit.Permissions), len(data.Scalekit.Deleted), data.Postern)
	}
	if r := data.Scalekit.Permissions[large.name(49)]; r != madeUp(49, large.name(49)) {
		t.Errorf("got %+v", r)
	}
}

func TestEachRankHasAPermissionOfItsOwn(t *testing.T) {
	large := largeCatalog{live: 10_000}
	seen := map[string]bool{}
	for rank := range large.live {
		seen[large.name(large.ranked(rank))] = true
	}
	if len(seen) != large.live {
		t.Errorf("want %d names, got %d", large.live, len(seen))
	}
}

func TestTheLargeTraceIsTheSameEachTimeAndRight(t *testing.T) {
	large := largeCatalog{live: 1000, deleted: 10}
	live := map[string]bool{}
	for i := range large.live {
		live[large.name(i)] = true
	}
	again := large.trace(2000)
	reasons := map[string]int{}
	for i, q := range large.trace(2000) {
		if !bytes.Equal(q.body, again[i].body) {
			t.Fatalf("question %d differs: %s and %s", i, q.body, again[i].body)
		}
		checkQuestion(t, q, live)
		reasons[q.reason]++
	}
	if granted := reasons["granted"]; granted < 1500 || granted > 1700 || len(reasons) != 4 {
		t.Errorf("want four reasons and about 80 %% granted, got %v", reasons)
	}
	for i, q := range large.granted([]int{7, 7}) {
		checkQuestion(t, q, live)
		if q.name != large.name(7) || !q.allow {
			t.Errorf("question %d: got %+v", i, q)
		}
	}
}

func TestUpdatesOfTheLargeCatalogFindTheirPermission(t *testing.T) {
	large := largeCatalog{live: 1000}
	s := large.events(webhook.Keys{})
	var event struct{ Data struct{ ID, Name string } }
	if err := json.Unmarshal(s.body(5), &event); err != nil {
		t.Fatal(err)
	}
	want := large.ranked(2)
	if r := madeUp(want, large.name(want)); event.Data.ID != r.ID || event.Data.Name != r.Name {
		t.Errorf("want %s and %s, got %+v", r.ID, r.Name, event.Data)
	}
}

func TestMemoryHierarchy(t *testing.T) {
	const (
		one  = "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
		two  = "40 30 0:37 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
		disk = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
	)
	for name, c := range map[string]struct {
		mounts, root string
		v2, fails    bool
	}{
		"version 1": {mounts: disk + one, root: "/sys/fs/cgroup/memory"},
		"version 2": {mounts: disk + two, root: "/sys/fs/cgroup", v2: true},
		"both":      {mounts: two + one, root: "/sys/fs/cgroup/memory"},
		"none":      {mounts: disk, fails: true},
	} {
		root, v2, err := memoryHierarchy(c.mounts)
		if root != c.root || v2 != c.v2 || (err != nil) != c.fails {
			t.Errorf("%s: got %q, %t, %v", name, root, v2, err)
		}
	}
}

func TestPressureOfBothVersions(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		v2    bool
	}{
		"version 1": {files: map[string]string{
			"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "memory.failcnt": "7\n", "memory.max_usage_in_bytes": "4096\n",
		}},
		"version 2": {v2: true, files: map[string]string{"memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n", "memory.peak": "4096\n"}},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := &memoryGroup{path: dir, v2: c.v2}
		if got, err := g.pressure(); err != nil || got != (pressure{kills: 2, atLimit: 7, peak: 4096}) {
			t.Errorf("%s: got %+v, error %v", name, got, err)
		}
		if err := g.limit(1 << 20); err != nil {
			t.Error(err)
		}
	}
}

func TestTrickleDeliversAtItsRate(t *testing.T) {
	r := startReceiving(t, newCatalog(2000), commitShared)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	got := trickle(ctx, r.server.addr, r.stream)
	if got.err != nil || got.acknowledged == 0 || got.acknowledged != int64(r.stream.next) || got.acknowledged > 2*trickleRate {
		t.Errorf("want what became due acknowledged, %d, got %+v", r.stream.next, got)
	}
}

func TestStatusBytes(t *testing.T) {
	if bytes, err := statusBytes(os.Getpid(), "RssAnon"); err != nil || bytes < 1<<20 {
		t.Errorf("want some memory of this process, got %d, error %v", bytes, err)
	}
	if _, err := statusBytes(os.Getpid(), "RssOfNothing"); err == nil {
		t.Error("want an error for an unknown key")
	}
}
