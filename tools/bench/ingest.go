package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	ingestSenders = 64
	ingestKnown   = 20_000          // permissions that the catalogs hold at first
	ingestFastest = 20_000          // events signed for each second of a leg; a leg ends with them
	slowSync      = 5 * time.Millisecond
	syncsToTime   = 200
)

// ingestLeg is what one receiver did in one round.
type ingestLeg struct {
	perSecond float64
	perCommit float64 // events
	p50, p99  time.Duration
}

// receiver is a server that takes webhooks, over a catalog of its own.
type receiver struct {
	name     string
	server   *server
	syncAddr string
	stream   *eventStream
	legs     []ingestLeg // one for each round
}

// ingest is the suite of acknowledged events a second.
type ingest struct {
	field   *field
	keys    webhook.Keys
	catalog *catalog

	postern, shared, single *receiver
	// The same over a disk whose syncs take longer; nil without strace.
	slowPostern, slowSingle *receiver
	ownSync, addedSync      time.Duration // of this disk, and what strace made of it
}

// measureIngest is the suite: Postern beside its own receiver and catalog with one commit
// for each event.
func measureIngest(ctx context.Context, o options, progress io.Writer) (s section, err error) {
	dir, err := os.MkdirTemp("", "bench-ingest-")
	if err != nil {
		return section{}, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	in := &ingest{field: &field{options: o, dir: dir, progress: progress}, catalog: newCatalog(ingestKnown)}
	defer func() { err = errors.Join(err, in.stop()) }()
	if err := in.prepare(ctx); err != nil {
		return section{}, err
	}
	// One leg that doesn't count: connections, caches and heaps settle.
	for _, r := range in.receivers() {
		if _, err := r.measure(ctx, min(time.Second, in.legTime())); err != nil {
			return section{}, err
		}
	}
	for round := range o.rounds {
		if err := in.round(ctx, round); err != nil {
			return section{}, err
		}
	}
	return in.section(), nil
}

// legTime is half of what a leg of questions gets: there are more legs in a round.
func (in *ingest) legTime() time.Duration {
	return time.Duration(in.field.options.seconds * float64(time.Second) / 2)
}

// receivers returns the receivers in the order of a round.
func (in *ingest) receivers() (running []*receiver) {
	for _, r := range []*receiver{in.postern, in.single, in.shared, in.slowPostern, in.slowSingle} {
		if r != nil {
			running = append(running, r)
		}
	}
	return running
}

func (in *ingest) prepare(ctx context.Context) error {
	if err := refuseMemoryDisk(in.field.dir); err != nil {
		return err
	}
	secret := newSecret()
	var err error
	if in.keys, err = webhook.ParseKeys(secret); err != nil {
		return err
	}
	if err := os.WriteFile(in.field.path("secret"), []byte(secret), 0o600); err != nil {
		return fmt.Errorf("writing the signing secret: %w", err)
	}
	if err := writeFile(in.field.path("dump.ndjson"), in.catalog.writeDump); err != nil {
		return err
	}
	if err := in.field.build(ctx, in.field.options.repository, "postern", "./sidecar"); err != nil {
		return err
	}
	if in.ownSync, err = timeSync(in.field.path("sync-probe")); err != nil {
		return err
	}
	return in.start(ctx)
}

func (in *ingest) start(ctx context.Context) (err error) {
	if in.postern, err = in.startPostern(ctx, "postern"); err != nil {
		return err
	}
	if in.single, err = in.startChild(ctx, "single", commitOneByOne); err != nil {
		return err
	}
	if in.shared, err = in.startChild(ctx, "shared", commitShared); err != nil {
		return err
	}
	if _, err := exec.LookPath("strace"); err != nil {
		fmt.Fprintln(in.field.progress, "strace is not installed (apt-get install strace): the legs with a slower sync are left out")
		return nil
	}
	delay := delaySyncs()
	if in.slowPostern, err = in.startPostern(ctx, "postern-slow", delay...); err != nil {
		return err
	}
	if in.slowSingle, err = in.startChild(ctx, "single-slow", commitOneByOne, delay...); err != nil {
		return err
	}
	in.addedSync, err = in.slowPostern.checkDelay(ctx)
	return err
}

// delaySyncs makes strace hold up each sync. -D leaves the server our own child, so that
// signals reach it; the seccomp filter lets all other system calls go without a stop.
func delaySyncs() []string {
	return []string{
		"strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync,fsync",
		"-e", fmt.Sprintf("inject=fdatasync,fsync:delay_exit=%d", slowSync.Microseconds()), "-o", os.DevNull,
	}
}

func (in *ingest) startPostern(ctx context.Context, name string, before ...string) (*receiver, error) {
	data := in.field.path("data-" + name)
	if err := in.field.restore(ctx, data, in.field.path("dump.ndjson")); err != nil {
		return nil, err
	}
	addrs := listeners{}
	s, err := startServer(ctx, name, append(before, in.field.path("postern"), "run", "--data-dir", data,
		"--environment-id", benchmarkEnvironment, "--webhook-secret-file", in.field.path("secret"),
		"--authorize-addr", "127.0.0.1:0", "--webhook-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"), addrs.read)
	if err != nil {
		return nil, err
	}
	s.addr = addrs["webhook"]
	return &receiver{name: name, server: s, syncAddr: addrs["authorize"], stream: newEventStream(in.keys, in.catalog)}, nil
}

// listeners gathers from Postern's log where it listens.
type listeners map[string]string

// read takes a line of the log. It returns an address once the last listener is open.
func (l listeners) read(line []byte) string {
	var said struct{ Msg, Listener, Addr string }
	if json.Unmarshal(line, &said) != nil || said.Msg != "listening" {
		return ""
	}
	l[said.Listener] = said.Addr
	if said.Listener != "control" {
		return ""
	}
	return said.Addr
}

func (in *ingest) startChild(ctx context.Context, name, commits string, before ...string) (*receiver, error) {
	data := in.field.path("data-" + name)
	if err := in.field.restore(ctx, data, in.field.path("dump.ndjson")); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	s, err := startServer(ctx, name, append(before, self, receiveVerb, data, in.field.path("secret"), commits), func(line []byte) string {
		addrs := listeners{}
		addrs.read(line)
		return addrs["webhook"]
	})
	if err != nil {
		return nil, err
	}
	return &receiver{name: name, server: s, syncAddr: s.addr, stream: newEventStream(in.keys, in.catalog)}, nil
}

// restore fills a catalog that nobody has open.
func (f *field) restore(ctx context.Context, data, dump string) error {
	restore := command(ctx, "postern catalog restore", []string{f.path("postern"), "catalog", "restore", "--data-dir", data, dump}).command
	restore.Stderr = f.progress
	if err := restore.Run(); err != nil {
		return fmt.Errorf("filling a catalog: %w", err)
	}
	return nil
}

// round gives each receiver its leg, one after the other.
func (in *ingest) round(ctx context.Context, number int) error {
	fmt.Fprintf(in.field.progress, "ingest, round %d of %d:", number+1, in.field.options.rounds)
	for _, r := range in.receivers() {
		l, err := r.measure(ctx, in.legTime())
		if err != nil {
			return err
		}
		r.legs = append(r.legs, l)
		fmt.Fprintf(in.field.progress, "  %s %.0f/s, %.1f a commit", r.name, l.perSecond, l.perCommit)
	}
	fmt.Fprintln(in.field.progress)
	return nil
}

// measure runs one leg.
func (r *receiver) measure(ctx context.Context, duration time.Duration) (ingestLeg, error) {
	requests := r.stream.draw(int(duration.Seconds() * ingestFastest))
	runtime.GC() // of what the signing left, and not during the leg
	before, err := revisionAt(ctx, r.syncAddr)
	if err != nil {
		return ingestLeg{}, err
	}
	d, err := deliverAll(ctx, r.server.addr, requests, ingestSenders, duration)
	if err != nil {
		return ingestLeg{}, fmt.Errorf("delivering to %s: %w", r.name, err)
	}
	r.stream.advance(int(d.latencies.total))
	after, err := revisionAt(ctx, r.syncAddr)
	if err != nil {
		return ingestLeg{}, err
	}
	if after == before {
		return ingestLeg{}, fmt.Errorf("delivering to %s: nothing was committed", r.name)
	}
	return ingestLeg{
		perSecond: d.perSecond(), perCommit: float64(d.latencies.total) / float64(after-before),
		p50: d.latencies.percentile(50), p99: d.latencies.percentile(99),
	}, nil
}

// checkDelay delivers events one by one and returns the median, or an error if no sync
// takes longer: then the legs would say nothing.
func (r *receiver) checkDelay(ctx context.Context) (time.Duration, error) {
	const events = 9
	d, err := deliverAll(ctx, r.server.addr, r.stream.draw(events), 1, startWithin)
	if err != nil {
		return 0, fmt.Errorf("delivering to %s: %w", r.name, err)
	}
	r.stream.advance(events)
	if fastest := d.latencies.percentile(0); fastest < slowSync {
		return 0, fmt.Errorf("slowing down the syncs: strace was to hold up each by %s, but an event was durable after %s", slowSync, fastest)
	}
	return d.latencies.percentile(50), nil
}

// stop ends all receivers.
func (in *ingest) stop() error {
	var errs []error
	for _, r := range in.receivers() {
		errs = append(errs, r.server.stop())
	}
	return errors.Join(errs...)
}

// refuseMemoryDisk returns an error where a sync costs nothing, since nothing is written.
func refuseMemoryDisk(dir string) error {
	const tmpfsMagic = 0x01021994 // statfs(2)
	var about syscall.Statfs_t
	if err := syscall.Statfs(dir, &about); err != nil {
		return fmt.Errorf("looking at the disk: %w", err)
	}
	if about.Type == tmpfsMagic {
		return fmt.Errorf("%s is in memory, where nothing is ever synced: set TMPDIR to a directory on a disk", filepath.Dir(dir))
	}
	return nil
}

// timeSync returns the median time of an fdatasync behind a write of one page.
func timeSync(path string) (median time.Duration, err error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, fmt.Errorf("timing a sync: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	page := make([]byte, 4096)
	times := make([]time.Duration, syncsToTime)
	for i := range times {
		if _, err := file.WriteAt(page, 0); err != nil {
			return 0, fmt.Errorf("timing a sync: %w", err)
		}
		began := time.Now()
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return 0, fmt.Errorf("timing a sync: %w", err)
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
