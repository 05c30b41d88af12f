package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Across 200 reloads no question fails, and each is answered by one policy as a whole, rule and
// data, that was in use while it was in flight.
func TestNoQuestionNoticesAReload(t *testing.T) {
	const reloads, askers = 200, 4
	g := newGenerations(t)
	g.install(0)
	c := sidecarStarter(t, "--policy="+g.dir)()
	crowd := newCrowd(t, c, g)
	calm := crowd.during(askers, func() { time.Sleep(2 * time.Second) })
	began := time.Now()
	busy := crowd.during(askers, func() {
		for n := 1; n <= reloads; n++ {
			g.install(n)
			if err := c.command.Process.Signal(syscall.SIGHUP); err != nil {
				t.Error(err)
				return
			}
			if !crowd.until(n) {
				return
			}
		}
	})
	if len(busy) < reloads {
		t.Errorf("only %d questions were asked", len(busy))
	}
	t.Logf("%d reloads in %v; without reloads %s; with them %s", reloads, time.Since(began).Round(time.Millisecond), percentiles(calm), percentiles(busy))
}

func percentiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(part float64) time.Duration { return took[int(part*float64(len(took)-1))].Round(time.Microsecond) }
	return fmt.Sprintf("%d questions, p50 %v, p99 %v, most %v", len(took), at(0.5), at(0.99), at(1))
}

// generations are policies whose rule, data and revision tell one number, put in place as
// Kubernetes does.
type generations struct {
	t         *testing.T
	dir       string
	installed atomic.Int64 // the newest that is in place
	confirmed atomic.Int64 // the newest that has answered
}

func newGenerations(t *testing.T) *generations {
	g := &generations{t: t, dir: t.TempDir()}
	for _, name := range []string{"app.rego", "data.json", ".manifest"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(g.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g *generations) install(n int) {
	name := fmt.Sprintf("..%d", n)
	for file, content := range map[string]string{
		"app.rego":  fmt.Sprintf("package authz\n\ndecision := {\"decision\": true, \"rule\": %d, \"data\": data.n}\n", n),
		"data.json": fmt.Sprintf(`{"n": %d}`, n),
		".manifest": fmt.Sprintf(`{"revision": "%d"}`, n),
	} {
		path := filepath.Join(g.dir, name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			g.t.Error(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			g.t.Error(err)
		}
	}
	g.installed.Store(int64(n))
	link := filepath.Join(g.dir, "..data_tmp")
	if err := os.Symlink(name, link); err != nil {
		g.t.Error(err)
	}
	if err := os.Rename(link, filepath.Join(g.dir, "..data")); err != nil {
		g.t.Error(err)
	}
}

// crowd asks questions and checks what comes.
type crowd struct {
	t      *testing.T
	g      *generations
	client *http.Client
	url    string
}

func newCrowd(t *testing.T, c *child, g *generations) *crowd {
	return &crowd{t, g, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, "http://" + c.addr("authorize") + "/v1/authorize"}
}

// ask returns which generation answered.
func (c *crowd) ask() (int64, error) {
	const question = `{"subject":{"type":"user","id":"u"},"action":{"name":"a"},"resource":{"type":"r","id":"1"}}`
	least := c.g.confirmed.Load()
	response, err := c.client.Post(c.url, "application/json", strings.NewReader(question))
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	var answer struct {
		Decision bool
		Context  struct {
			Rule, Data int64
			Revision   int64 `json:"policy_revision,string"`
		}
	}
	if err := errors.Join(err, json.Unmarshal(body, &answer)); err != nil || response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("got %d %s: %w", response.StatusCode, body, err)
	}
	n, most := answer.Context.Revision, c.g.installed.Load()
	if !answer.Decision || answer.Context.Rule != n || answer.Context.Data != n || n < least || n > most {
		return 0, fmt.Errorf("while generations %d to %d could answer, got %s", least, most, body)
	}
	for { // whoever asks from now on is answered by this one or a later one
		before := c.g.confirmed.Load()
		if before >= n || c.g.confirmed.CompareAndSwap(before, n) {
			return n, nil
		}
	}
}

// during asks with so many askers while do works, and returns how long each answer took.
func (c *crowd) during(askers int, do func()) []time.Duration {
	ctx, stop := context.WithCancel(c.t.Context())
	all := make([][]time.Duration, askers)
	var running sync.WaitGroup
	for i := range askers {
		running.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				if _, err := c.ask(); err != nil {
					c.t.Error(err)
					return
				}
				all[i] = append(all[i], time.Since(began))
			}
		})
	}
	do()
	stop()
	running.Wait()
	return slices.Concat(all...)
}

// until asks until generation n answers.
func (c *crowd) until(n int) bool {
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); {
		got, err := c.ask()
		if err != nil {
			c.t.Error(err)
			return false
		}
		if got == int64(n) {
			return true
		}
	}
	c.t.Errorf("generation %d never answers", n)
	return false
}
