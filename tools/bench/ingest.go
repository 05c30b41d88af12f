package main

import (
	"context"
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
	ingestKnown   = 20_000 // permissions that the catalogs hold at first
	ingestFastest = 20_000 // events signed for each second of a leg; a leg ends with them
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
	*field
	keys webhook.Keys

	postern, shared, single *receiver
	// The same over a disk whose syncs take longer; nil without strace.
	slowPostern, slowSingle *receiver
	ownSync, addedSync      time.Duration // of this disk, and a lone event's with what strace adds
}

// runIngest measures Postern beside its own receiver and catalog with one commit for each
// event.
func runIngest(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	o.permissions = ingestKnown
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	in := &ingest{field: f}
	if err := in.prepare(ctx); err != nil {
		return told, err
	}
	// One leg that doesn't count: connections, caches and heaps settle.
	for _, r := range in.receivers() {
		if _, err := r.measure(ctx, min(time.Second, in.legTime())); err != nil {
			return told, err
		}
	}
	for round := range o.rounds {
		if err := in.round(ctx, round); err != nil {
			return told, err
		}
	}
	return in.report(), nil
}

// legTime is half of what a leg of questions gets: there are more legs in a round.
func (in *ingest) legTime() time.Duration {
	return time.Duration(in.options.seconds * float64(time.Second) / 2)
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

func (in *ingest) prepare(ctx context.Context) (err error) {
	if err := refuseMemoryDisk(in.dir); err != nil {
		return err
	}
	if in.keys, err = webhook.ParseKeys(webhookSecret); err != nil {
		return err
	}
	if err := os.WriteFile(in.path("webhook-secret"), []byte(webhookSecret), 0o600); err != nil {
		return fmt.Errorf("writing the signing secret: %w", err)
	}
	if err := in.buildPostern(ctx); err != nil {
		return err
	}
	if in.ownSync, err = timeSync(in.path("sync-probe")); err != nil {
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
	if !haveStrace() {
		fmt.Fprintln(in.progress, "strace is not installed (apt-get install strace): the legs with a slower sync are left out")
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

func haveStrace() bool {
	_, err := exec.LookPath("strace")
	return err == nil
}

// delaySyncs makes strace hold up each sync. -D leaves the server our own child, so that
// signals reach it; the seccomp filter lets all other system calls go without a stop.
func delaySyncs() []string {
	return []string{
		"strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync,fsync",
		"-e", fmt.Sprintf("inject=fdatasync,fsync:delay_exit=%d", slowSync.Microseconds()), "-o", os.DevNull,
	}
}

// startPostern starts the real binary, behind the words of another program.
func (in *ingest) startPostern(ctx context.Context, name string, before ...string) (*receiver, error) {
	said := toldAddrs{wanted: []string{"authorize", "webhook"}, addrs: map[string]string{}}
	r, err := in.startReceiver(ctx, name, append(before, in.path("postern"), "run", "--data-dir", in.path("data-"+name),
		"--environment-id", environmentID, "--webhook-secret-file", in.path("webhook-secret"),
		"--authorize-addr", "127.0.0.1:0", "--webhook-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"), said.complete)
	if err != nil {
		return nil, err
	}
	r.syncAddr, r.server.addr = r.server.addr, said.addrs["webhook"]
	return r, nil
}

// startChild starts this program as a receiver.
func (in *ingest) startChild(ctx context.Context, name, commits string, before ...string) (*receiver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	said := toldAddrs{wanted: []string{"authorize"}, addrs: map[string]string{}}
	return in.startReceiver(ctx, name, append(before, self, receiveVerb, in.path("data-"+name), in.path("webhook-secret"), commits), said.complete)
}

func (in *ingest) startReceiver(ctx context.Context, name string, args []string, ready func(line []byte) string) (*receiver, error) {
	if err := in.fill(ctx, in.path("data-"+name)); err != nil {
		return nil, err
	}
	s, err := startServer(ctx, name, args, ready)
	if err != nil {
		return nil, err
	}
	in.running = append(in.running, s)
	return &receiver{name: name, server: s, syncAddr: s.addr, stream: newEventStream(in.keys, in.catalog)}, nil
}

// round gives each receiver its leg, one after the other.
func (in *ingest) round(ctx context.Context, number int) error {
	fmt.Fprintf(in.progress, "ingest, round %d of %d:", number+1, in.options.rounds)
	for _, r := range in.receivers() {
		l, err := r.measure(ctx, in.legTime())
		if err != nil {
			return err
		}
		r.legs = append(r.legs, l)
		fmt.Fprintf(in.progress, "  %s %.0f/s, %.1f a commit", r.name, l.perSecond, l.perCommit)
	}
	fmt.Fprintln(in.progress)
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
