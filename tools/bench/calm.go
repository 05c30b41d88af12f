package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// kind is what arrives beside the questions of a leg.
type kind int

const (
	updating  kind = iota // events that change permissions
	unchanged             // the same number of requests that change nothing: the control
	quiet                 // nothing
	kinds
)

// shares are the parts of a server's maximum at which it is asked.
var shares = [...]float64{0.1, 0.5}

// memoryDisk is where a sync costs nothing.
const memoryDisk = "/dev/shm"

// patient is a server that is asked at a fixed pace while its data change.
type patient struct {
	title   string
	server  *server
	ask     *target
	kinds   []kind
	beside  func(k kind, count int) (*target, error)
	rounds  int
	maximum float64 // questions a second
}

// calmLeg is what was seen of a server in one leg.
type calmLeg struct {
	p50, p99 time.Duration
	cpu      float64 // cores that the server used
}

// side is what was seen of a server with one kind of load beside its questions.
type side struct {
	legs         []calmLeg
	latencies    histogram // of the questions of all legs
	acknowledged histogram // of what arrived beside them
}

// calmRow is a server at one pace.
type calmRow struct {
	patient *patient
	pace    pace
	share   float64
	sides   [kinds]side
}

// calm is the suite of questions at a fixed pace while events arrive.
type calm struct {
	*field
	signer   *signer
	rows     []*calmRow
	lateness histogram // of the generator
	queued   int
	syncs    histogram // of the data directory
	next     int       // question of the trace
}

// runCalm measures what events cost those who ask meanwhile.
func runCalm(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	c := &calm{field: f}
	if c.signer, err = newSigner(f.catalog); err != nil {
		return told, err
	}
	if err := errors.Join(f.buildPostern(ctx), f.buildOPA(ctx), c.timeSyncs()); err != nil {
		return told, err
	}
	for _, start := range c.patients() {
		if err := c.treat(ctx, start); err != nil {
			return told, err
		}
	}
	return c.report()
}

// patients says what is started, one after the other: Postern and OPA as shipped, and
// then Postern without the parts that could be what updates cost.
func (c *calm) patients() []func(context.Context) (*patient, error) {
	all, half := c.options.calmRounds, (c.options.calmRounds+1)/2
	starts := []func(context.Context) (*patient, error){
		c.postern("Postern", c.path("data"), all, []kind{updating, unchanged, quiet}),
		c.opa(all),
		// Not off: a heap that only grows costs a page fault for every page.
		c.postern("Postern at GOGC=400", c.path("data-uncollected"), half, []kind{updating, unchanged}, "GOGC=400"),
		// So that a processor is left when a sync holds one.
		c.postern("Postern at GOMAXPROCS=8", c.path("data-threads"), half, []kind{updating, unchanged}, "GOMAXPROCS=8"),
	}
	inMemory, err := os.MkdirTemp(memoryDisk, "bench-")
	if err != nil { // a container may not have it
		fmt.Fprintf(c.progress, "no legs without sync: %v\n", err)
		return starts
	}
	c.elsewhere = append(c.elsewhere, inMemory)
	return append(starts, c.postern("Postern without sync", inMemory+"/data", half, []kind{updating, unchanged}))
}

func (c *calm) postern(title, dataDir string, rounds int, kinds []kind, environment ...string) func(context.Context) (*patient, error) {
	return func(ctx context.Context) (*patient, error) {
		s, err := c.startPostern(ctx, posternSetup{name: title, dataDir: dataDir, receives: true, environment: environment})
		if err != nil {
			return nil, err
		}
		beside := func(k kind, count int) (*target, error) {
			if k == updating {
				return c.signer.updates(s.webhookAddr, count)
			}
			return c.signer.foreign(s.webhookAddr, count)
		}
		return &patient{title: title, server: s.server, ask: posternTarget(s.addr, c.trace), kinds: kinds, beside: beside, rounds: rounds}, nil
	}
}

func (c *calm) opa(rounds int) func(context.Context) (*patient, error) {
	return func(ctx context.Context) (*patient, error) {
		s, err := c.startOPA(ctx, "opa", nil, "--log-level", "error")
		if err != nil {
			return nil, err
		}
		beside := func(k kind, count int) (*target, error) {
			if k == updating {
				return c.signer.puts(s.addr, count)
			}
			return healthChecks(s.addr), nil
		}
		return &patient{title: "OPA", server: s, ask: opaTarget(s.addr, c.trace), kinds: []kind{updating, unchanged}, beside: beside, rounds: rounds}, nil
	}
}

// treat starts a patient, finds its maximum, asks it at each pace, and ends it.
func (c *calm) treat(ctx context.Context, start func(context.Context) (*patient, error)) error {
	p, err := start(ctx)
	if err != nil {
		return err
	}
	if err := c.findMaximum(ctx, p); err != nil {
		return fmt.Errorf("measuring %s: %w", p.title, err)
	}
	for _, share := range shares {
		row := &calmRow{patient: p, share: share, pace: pace{p.maximum * share, c.options.calmLength()}}
		if err := c.alternate(ctx, row); err != nil {
			return fmt.Errorf("measuring %s: %w", p.title, err)
		}
		c.rows = append(c.rows, row)
	}
	return c.stop(p.server)
}

// findMaximum asks as fast as answers come, once to settle and once that counts. A variant
// of Postern is asked at the pace of Postern as shipped, so that they can be compared.
func (c *calm) findMaximum(ctx context.Context, p *patient) error {
	for range 2 {
		l, err := p.ask.drive(ctx, c.options.connections, c.options.calmLength())
		if err != nil {
			return err
		}
		p.maximum = l.perSecond()
	}
	if p.title != "OPA" && len(c.rows) > 0 {
		p.maximum = c.rows[0].patient.maximum
	}
	return nil
}

// alternate gives each kind its leg in each round, the other way round in each second one.
func (c *calm) alternate(ctx context.Context, row *calmRow) error {
	fmt.Fprintf(c.progress, "%s at %.0f/s: p99", row.patient.title, row.pace.perSecond)
	for round := range row.patient.rounds {
		order := slices.Clone(row.patient.kinds)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, k := range order {
			if err := c.leg(ctx, row, k); err != nil {
				return err
			}
		}
		updated, control := row.sides[updating].legs[round], row.sides[unchanged].legs[round]
		fmt.Fprintf(c.progress, "  %s / %s", timeText(updated.p99), timeText(control.p99))
	}
	fmt.Fprintln(c.progress)
	return nil
}

// leg asks at the row's pace while that kind arrives.
func (c *calm) leg(ctx context.Context, row *calmRow, k kind) error {
	events := pace{c.options.events, row.pace.duration}
	var beside *target
	var err error
	if k != quiet {
		if beside, err = row.patient.beside(k, events.count()); err != nil {
			return err
		}
	}
	runtime.GC() // so that the generator has no reason to collect meanwhile
	pid := row.patient.server.command.Process.Pid
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	asked, acknowledged, err := c.both(ctx, row, beside, events)
	if err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	row.sides[k].add(asked, acknowledged, (after-before).Seconds()/row.pace.duration.Seconds())
	c.lateness.merge(&asked.lateness)
	c.queued += asked.queued
	return nil
}

// both lets questions and what arrives beside them, if anything does, go at once.
func (c *calm) both(ctx context.Context, row *calmRow, beside *target, events pace) (asked, acknowledged *openLoad, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	acknowledged = &openLoad{}
	go func() {
		var err error
		if beside != nil {
			if acknowledged, err = beside.driveOpen(ctx, c.options.connections, events, 0); err != nil {
				err = fmt.Errorf("beside the questions: %w", err)
				cancel()
			}
		}
		ended <- err
	}()
	asked, err = row.patient.ask.driveOpen(ctx, c.options.connections, row.pace, c.next)
	if err != nil {
		cancel()
	}
	c.next += row.pace.count()
	return asked, acknowledged, errors.Join(err, <-ended)
}

func (s *side) add(asked, acknowledged *openLoad, cores float64) {
	s.legs = append(s.legs, calmLeg{asked.latencies.percentile(50), asked.latencies.percentile(99), cores})
	s.latencies.merge(&asked.latencies)
	s.acknowledged.merge(&acknowledged.latencies)
}

// timeSyncs measures what a sync costs where Postern's data are going to be.
func (c *calm) timeSyncs() (err error) {
	const syncs = 100
	file, err := os.Create(c.path("synced"))
	if err != nil {
		return fmt.Errorf("timing syncs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	page := make([]byte, 4096)
	for range syncs {
		start := time.Now()
		if _, err := file.Write(page); err != nil {
			return fmt.Errorf("timing syncs: %w", err)
		}
		if err := file.Sync(); err != nil {
			return fmt.Errorf("timing syncs: %w", err)
		}
		c.syncs.add(time.Since(start))
	}
	return nil
}
