package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// limitVerb makes this binary say which memory limit the library finds that Postern asks.
const limitVerb = "say-memory-limit"

func sayMemoryLimit(w io.Writer) error {
	limit, err := memlimit.FromCgroup()
	if err != nil {
		return fmt.Errorf("reading the memory limit: %w", err)
	}
	_, err = fmt.Fprintln(w, limit)
	return err
}

// boundedFigures is what was measured inside a bound of memory beside the same without.
type boundedFigures struct {
	missing            string // why there is nothing
	limitFound         int64  // by the library that Postern asks, inside
	free, inside       []float64
	freeLook, look     lookups
	freeEvents, events int64 // acknowledged beside the questions
	elapsed            time.Duration
	pressure           pressure
	anonymous          int64 // of the bounded one, in the end
}

// runner is a sidecar under questions and events.
type runner struct {
	*sidecar
	target *target
	stream *eventStream
}

// measureBounded runs two sidecars, each on a catalog of its own, one of them inside a
// cgroup, and asks them in turns.
func (m *million) measureBounded(ctx context.Context) (err error) {
	g, err := newMemoryGroup(fmt.Sprintf("postern-bench-%d", os.Getpid()), boundedMemory)
	if err != nil {
		m.bounded.missing = err.Error()
		fmt.Fprintf(m.progress, "million: NOT MEASURED, no cgroup can be written here: %v\n", err)
		return nil
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	if m.bounded.limitFound, err = limitInside(ctx, g); err != nil {
		return err
	}
	inside, err := m.startInside(ctx, g)
	if err != nil {
		now, lookErr := g.pressure()
		if m.bounded.pressure = now; lookErr != nil || now.kills == 0 {
			return errors.Join(err, lookErr)
		}
		return nil // that it was killed is told
	}
	free, _, err := m.startLarge(ctx, m.path("data"))
	if err != nil {
		return errors.Join(err, m.stop(inside.server))
	}
	err = m.compareBounded(ctx, g, m.newRunner(free), m.newRunner(inside))
	return errors.Join(err, m.stop(free.server), m.stop(inside.server))
}

func (m *million) newRunner(s *sidecar) *runner {
	stream := m.large.events(m.keys)
	stream.next = 1 << 20 // behind what the starts delivered
	return &runner{sidecar: s, target: posternTarget(s.addr, m.questions), stream: stream}
}

func limitInside(ctx context.Context, g *memoryGroup) (int64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("finding this program: %w", err)
	}
	args := g.enter([]string{self, limitVerb})
	text, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("asking for the limit inside the cgroup: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// startInside copies the catalog from inside the cgroup, so that the copy's pages in the
// cache are charged to it, and starts a sidecar there.
func (m *million) startInside(ctx context.Context, g *memoryGroup) (*sidecar, error) {
	data := m.path("data-bounded")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	args := g.enter([]string{"cp", filepath.Join(m.path("data"), "catalog.db"), data})
	copying := exec.CommandContext(ctx, args[0], args[1:]...)
	copying.Stderr = m.progress
	if err := copying.Run(); err != nil {
		return nil, fmt.Errorf("copying the catalog inside the cgroup: %w", err)
	}
	s, _, err := m.startLargeAs(ctx, g.enter, data)
	if err != nil && s.command.Process != nil {
		err = errors.Join(err, m.stop(s.server)) // the cgroup can't be removed before
	}
	return s, err
}

func (m *million) compareBounded(ctx context.Context, g *memoryGroup, free, inside *runner) error {
	before, err := g.pressure()
	if err != nil {
		return err
	}
	b := &m.bounded
	for round := range 1 + min(m.options.rounds, boundedRounds) { // the first one doesn't count
		freeLeg, err := m.loadedLeg(ctx, free)
		if err != nil {
			return err
		}
		insideLeg, err := m.loadedLeg(ctx, inside)
		now, lookErr := g.pressure()
		if lookErr != nil || now.kills > 0 {
			b.pressure = now
			return lookErr // that it was killed is told, and ends the comparison
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(m.progress, "million: unbounded %.0f/s and %d events, bounded %.0f/s and %d events\n", freeLeg.perSecond, freeLeg.events, insideLeg.perSecond, insideLeg.events)
		if round > 0 {
			b.add(freeLeg, insideLeg)
		}
	}
	if b.pressure, err = g.pressure(); err != nil {
		return err
	}
	b.pressure.atLimit -= before.atLimit
	b.anonymous, err = statusBytes(inside.command.Process.Pid, "RssAnon")
	return err
}

// loadedLeg is what a sidecar answered under questions with events beside them.
type loadedLeg struct {
	perSecond float64
	events    int64
	elapsed   time.Duration
	lookups   lookups
}

func (b *boundedFigures) add(free, inside loadedLeg) {
	b.free, b.inside = append(b.free, free.perSecond), append(b.inside, inside.perSecond)
	b.freeLook.hits += free.lookups.hits
	b.freeLook.misses += free.lookups.misses
	b.look.hits += inside.lookups.hits
	b.look.misses += inside.lookups.misses
	b.freeEvents += free.events
	b.events += inside.events
	b.elapsed += inside.elapsed
}

func (m *million) loadedLeg(ctx context.Context, r *runner) (l loadedLeg, err error) {
	before, err := r.lookups(ctx)
	if err != nil {
		return l, err
	}
	trickling, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan trickled, 1)
	go func() { ended <- trickle(trickling, r.webhookAddr, r.stream) }()
	asked, err := r.target.drive(ctx, m.options.connections, time.Duration(m.options.seconds*float64(time.Second)))
	stop()
	events := <-ended
	if err := errors.Join(err, events.err); err != nil {
		return l, err
	}
	after, err := r.lookups(ctx)
	return loadedLeg{asked.perSecond(), events.acknowledged, asked.elapsed, after.since(before)}, err
}
