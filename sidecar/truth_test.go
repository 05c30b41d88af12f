package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

// stormChanges are made at Scalekit while webhooks get lost and the sidecar is killed. The long
// form is `go test ./sidecar -run TestTheTruthAfterAStorm -storm-changes 10000`.
var stormChanges = flag.Int("storm-changes", 400, "changes at Scalekit in TestTheTruthAfterAStorm")

// storm is a Scalekit that goes wrong, and a sidecar that is killed.
type storm struct {
	*testing.T
	scalekit simulated
	start    func() *child
	mu       sync.Mutex // guards what follows
	sidecar  *child
	gone     []string // names whose deletion the sidecar acknowledged
}

// observe notes the deletions that were acknowledged.
func (s *storm) observe(d simulator.Delivery) {
	if d.Type != "permission.deleted" || d.Kind != simulator.Original || d.State != simulator.Delivered {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, d.Name)
}

func (s *storm) look() (sidecar *child, gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sidecar, slices.Clone(s.gone)
}

// restart kills the sidecar and starts it on the same data.
func (s *storm) restart() {
	old, _ := s.look()
	if err := old.kill(); err != nil {
		s.Error(err)
	}
	started := s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sidecar = started
}

// allowed asks for a name, and reports false when the sidecar was killed meanwhile.
func (s *storm) allowed(name string) (allowed, answered bool) {
	sidecar, _ := s.look()
	question := fmt.Sprintf(`{"subject":{"type":"user","id":"u","properties":{"permissions":[%q]}},"action":{"name":%q},"resource":{"type":"r","id":"1"}}`, name, name)
	answer, err := deliver(context.Background(), "http://"+sidecar.addr("authorize")+"/v1/authorize", []byte(question), http.Header{})
	return strings.Contains(answer.body, `"decision":true`), err == nil && answer.status == http.StatusOK
}

// judge asks about acknowledged deletions until done is closed. No name is ever used again, so
// that each of them has to be denied for good.
func (s *storm) judge(done <-chan struct{}) (asked int) {
	for {
		select {
		case <-done:
			return asked
		default:
		}
		_, gone := s.look()
		if len(gone) == 0 {
			continue
		}
		name := gone[len(gone)-1-rand.IntN(min(len(gone), 5))]
		allowed, answered := s.allowed(name)
		if answered {
			asked++
		}
		if allowed {
			s.Errorf("%s was allowed after its deletion had been acknowledged", name)
			return asked
		}
	}
}

// rage changes permissions at random, and restarts the sidecar now and then.
func (s *storm) rage() {
	var live []simulator.Permission
	for i := range *stormChanges {
		if i%(*stormChanges/3) == *stormChanges/3-1 {
			s.restart()
		}
		at := rand.IntN(len(live) + 1)
		switch {
		case len(live) < 60 || i%3 == 0:
			live = append(live, must(s.scalekit.Create(fmt.Sprint("name:", i), "")))
		case at < len(live) && i%3 == 1:
			text := fmt.Sprint("changed ", i)
			must(s.scalekit.Update(live[at].ID, simulator.Change{Description: &text}))
		case at < len(live):
			must(s.scalekit.Delete(live[at].ID))
			live = slices.Delete(live, at, at+1)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// agree waits until both sides have the same digest.
func (s *storm) agree() {
	want := s.scalekit.Digest().String()
	sidecar, _ := s.look()
	var said string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		response, err := http.Get("http://" + sidecar.addr("authorize") + "/v1/sync")
		if err != nil {
			s.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err := response.Body.Close(); err != nil {
			s.Fatal(err)
		}
		if said = string(body); err == nil && strings.Contains(said, `"digest":"`+want) && strings.Contains(said, `"state":"fresh"`) {
			return
		}
	}
	s.Errorf("Scalekit has %s, the sidecar says %s", want, said)
}

// Webhooks that are lost, repeated and reordered, forgeries, an API that fails, and a sidecar
// that is killed: what was acknowledged is denied at once and for good, and in the end both
// sides hold the same.
func TestTheTruthAfterAStorm(t *testing.T) {
	s := &storm{T: t}
	addr := freeAddress(t)
	s.scalekit = startScalekit(t, addr, func(c *simulator.Config) { c.Webhooks.Observe = s.observe })
	secret := filepath.Join(t.TempDir(), "client-secret")
	if err := os.WriteFile(secret, []byte("simulated"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start = sidecarStarter(t, "--webhook-addr="+addr, "--scalekit-url="+s.scalekit.url, "--scalekit-client-id=skc_1",
		"--scalekit-client-secret-file="+secret, "--reconcile-interval=1s",
		"--max-drift=100%") // a thousand changes between two reconciliations are no mistake here
	s.sidecar = s.start()
	faults := simulator.Faults{Delay: 50 * time.Millisecond, Rules: map[simulator.Fault]simulator.Rule{}}
	for _, name := range []simulator.Fault{
		simulator.WebhookDrop, simulator.WebhookDuplicate, simulator.WebhookReorder, simulator.WebhookForge, simulator.LostPage, simulator.HiddenPermission, simulator.Error503,
	} {
		faults.Rules[name] = simulator.Rule{Probability: 0.05}
	}
	if err := s.scalekit.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	done, judged := make(chan struct{}), make(chan int)
	go func() { judged <- s.judge(done) }()
	s.rage()
	if err := s.scalekit.SetFaults(simulator.Faults{}); err != nil {
		t.Fatal(err)
	}
	if err := s.scalekit.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.agree()
	close(done)
	asked := <-judged
	_, gone := s.look()
	for _, name := range gone {
		if allowed, answered := s.allowed(name); allowed || !answered {
			t.Errorf("%s: allowed %v, answered %v", name, allowed, answered)
		}
	}
	for _, p := range s.scalekit.Live() {
		if allowed, _ := s.allowed(p.Name); !allowed {
			t.Errorf("%s is live and denied", p.Name)
		}
	}
	counts := s.scalekit.Counts()
	if counts.Dropped == 0 || counts.ForgeriesTaken != 0 || len(gone) == 0 || asked == 0 {
		t.Errorf("%+v, %d deletions acknowledged, %d questions: not a storm", counts, len(gone), asked)
	}
	t.Logf("%+v, %d deletions acknowledged, %d questions about them", counts, len(gone), asked)
}
