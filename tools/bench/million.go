package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	largeLRU       = 50_000
	largeLRUFlag   = "--lru-size"
	coldStarts     = 5 // at most, and as many after a kill -9
	boundedRounds  = 5 // at most; starting takes time, too
	boundedMemory  = 192 << 20
	trickleRate    = 200 // webhook events a second beside the questions
	startOPAWithin = 5 * time.Minute
)

// million is the suite of a catalog that fits nobody's memory.
type million struct {
	*field
	large     largeCatalog
	keys      webhook.Keys
	questions []question

	fileSize         int64
	filled           time.Duration
	starts, restarts []float64 // seconds until /readyz; after an orderly end and after kill -9
	atRest           []restingMemory
	keyed            []keyedRound
	bounded          boundedFigures
	opaStart         time.Duration
	opaData          int64
}

// restingMemory is the anonymous memory of a server, in bytes.
type restingMemory struct {
	name, target string
	fresh        int64
	asked        int             // distinct names since then
	quiet        []time.Duration // after the last question
	after        []int64         // for each of them
}

// runMillion measures what a catalog of a million permissions costs.
func runMillion(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	m := &million{field: f, large: largeCatalog{live: largePermissions, deleted: largeDeleted}}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"preparing", m.prepare},
		{"filling the catalog", m.fillLarge},
		{"starting", m.measureStarts},
		{"memory at rest", m.measureMemory},
		{"questions that miss the LRU", m.measureKeyed},
		{"bounded memory", m.measureBounded},
		{"OPA beside it", m.measureOPA},
	} {
		fmt.Fprintf(progress, "million: %s\n", step.name)
		if err := step.run(ctx); err != nil {
			return told, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return m.report()
}

func (m *million) prepare(ctx context.Context) (err error) {
	if err := refuseMemoryDisk(m.dir); err != nil {
		return err
	}
	if m.keys, err = webhook.ParseKeys(webhookSecret); err != nil {
		return err
	}
	if err := os.WriteFile(m.path("webhook-secret"), []byte(webhookSecret), 0o600); err != nil {
		return err
	}
	m.questions = m.large.trace(largeTrace)
	if err := m.buildPostern(ctx); err != nil {
		return err
	}
	return m.build(ctx, ".", "opa", opaPackage)
}

// fillLarge restores a dump into the catalog of a sidecar that doesn't run.
func (m *million) fillLarge(ctx context.Context) error {
	dump := m.path("large.ndjson")
	if err := writeFile(dump, m.large.writeDump); err != nil {
		return err
	}
	restore := command(ctx, "postern catalog restore", []string{m.path("postern"), "catalog", "restore", "--data-dir", m.path("data"), dump}).command
	restore.Stderr = m.progress
	began := time.Now()
	if err := restore.Run(); err != nil {
		return err
	}
	m.filled = time.Since(began)
	file, err := os.Stat(filepath.Join(m.path("data"), "catalog.db"))
	if err != nil {
		return err
	}
	m.fileSize = file.Size()
	return os.Remove(dump)
}

// measureStarts times starts of which every other one follows a kill -9, with events on
// their way. The file is in the page cache.
func (m *million) measureStarts(ctx context.Context) error {
	stream := m.large.events(m.keys)
	for range min(m.options.rounds, coldStarts) {
		s, took, err := m.startLarge(ctx, m.path("data"))
		if err != nil {
			return err
		}
		m.starts = append(m.starts, took.Seconds())
		if err := m.killAmidEvents(ctx, s, stream); err != nil {
			return err
		}
		if s, took, err = m.startLarge(ctx, m.path("data")); err != nil {
			return err
		}
		m.restarts = append(m.restarts, took.Seconds())
		fmt.Fprintf(m.progress, "million: ready after %.2f s, after kill -9 %.2f s\n", m.starts[len(m.starts)-1], took.Seconds())
		if err := m.stop(s.server); err != nil {
			return err
		}
	}
	return nil
}

// killAmidEvents kills a sidecar that is taking webhooks.
func (m *million) killAmidEvents(ctx context.Context, s *sidecar, stream *eventStream) error {
	const events = 2000
	ended := make(chan struct{})
	killed := make(chan error, 1)
	go func() {
		<-time.After(100 * time.Millisecond)
		killed <- s.command.Process.Kill()
		close(ended)
	}()
	// It ends with its peer, before all are delivered as a rule.
	_, _ = deliverAll(ctx, s.webhookAddr, stream.draw(events), 8, time.Minute)
	stream.advance(events)
	<-ended
	return errors.Join(<-killed, m.stop(s.server))
}

// measureMemory measures with the default LRU and with a large one.
func (m *million) measureMemory(ctx context.Context) error {
	size, err := m.shippedDefault(ctx, largeLRUFlag[2:])
	if err != nil {
		return err
	}
	for _, lru := range []struct {
		name, target string
		names        int
		flags        []string
	}{
		{"Postern, default LRU of " + size, "< 60 MB", 0, nil},
		{fmt.Sprintf("Postern, `%s %d`", largeLRUFlag, largeLRU), "< 120 MB", largeLRU, []string{largeLRUFlag, fmt.Sprint(largeLRU)}},
	} {
		if lru.names == 0 {
			if _, err := fmt.Sscan(size, &lru.names); err != nil {
				return fmt.Errorf("reading the default of %s: %w", largeLRUFlag, err)
			}
		}
		lru.names = min(lru.names, m.large.live)
		if err := m.measureOneMemory(ctx, restingMemory{name: lru.name, target: lru.target, asked: lru.names}, lru.flags); err != nil {
			return err
		}
	}
	return nil
}

func (m *million) measureOneMemory(ctx context.Context, at restingMemory, flags []string) error {
	s, _, err := m.startLarge(ctx, m.path("data"), flags...)
	if err != nil {
		return err
	}
	pid := s.command.Process.Pid
	if at.fresh, err = statusBytes(pid, "RssAnon"); err != nil {
		return err
	}
	names := make([]int, at.asked)
	for i := range names {
		names[i] = m.large.ranked(i)
	}
	if err := posternTarget(s.addr, m.large.granted(names)).askEach(ctx, m.options.connections); err != nil {
		return err
	}
	if err := m.watchRest(ctx, pid, &at); err != nil {
		return err
	}
	return m.stop(s.server)
}

// watchRest measures at once, after some rest, and after a longer one: the runtime gives
// memory back by and by. All of them are told.
func (m *million) watchRest(ctx context.Context, pid int, at *restingMemory) error {
	second := time.Duration(m.options.seconds * float64(time.Second))
	began := time.Now()
	for _, quiet := range []time.Duration{0, 2 * second, 12 * second} {
		if err := rest(ctx, quiet-time.Since(began)); err != nil {
			return err
		}
		bytes, err := statusBytes(pid, "RssAnon")
		if err != nil {
			return err
		}
		at.quiet, at.after = append(at.quiet, quiet), append(at.after, bytes)
	}
	fmt.Fprintf(m.progress, "million: %s: fresh %s, then %s\n", at.name, megabytes(at.fresh), megabytes(at.after...))
	m.atRest = append(m.atRest, *at)
	return nil
}

// rest does nothing for a while.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measureOPA starts the real OPA on the same data.
func (m *million) measureOPA(ctx context.Context) error {
	data := m.path("large.json")
	if err := writeFile(data, m.large.writeData); err != nil {
		return err
	}
	file, err := os.Stat(data)
	if err != nil {
		return err
	}
	m.opaData = file.Size()
	if err := copyPolicies(filepath.Join(m.options.repository, "policies"), m.path("policies")); err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	s := command(ctx, "opa", []string{m.path("opa"), "run", "--server", "--disable-telemetry", "--addr", addr, "--log-level", "error", m.path("policies"), data})
	if m.opaStart, err = m.startAndWait(ctx, s, "http://"+addr+"/health", startOPAWithin); err != nil {
		return err
	}
	fmt.Fprintf(m.progress, "million: OPA is up after %.2f s\n", m.opaStart.Seconds())
	at := restingMemory{name: "OPA, the same data in a file", asked: min(10_000, m.large.live)}
	if at.fresh, err = statusBytes(s.command.Process.Pid, "RssAnon"); err != nil {
		return err
	}
	names := make([]int, at.asked)
	for i := range names {
		names[i] = m.large.ranked(i)
	}
	if err := opaTarget(addr, m.large.granted(names)).askEach(ctx, m.options.connections); err != nil {
		return err
	}
	if err := m.watchRest(ctx, s.command.Process.Pid, &at); err != nil {
		return err
	}
	return m.stop(s)
}
