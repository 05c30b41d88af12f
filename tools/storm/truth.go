package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

const (
	longChanges  = 10_000
	shortChanges = 1200
	truthNames   = 250 // more than a page of them is live
	mostPending  = 200 // webhooks on their way, for the storm to be about the sidecar and not about their queue
	changePause  = 10 * time.Millisecond

	sidecarLife   = 4 * time.Second
	sidecarAway   = 300 * time.Millisecond
	scalekitLife  = 3 * time.Second
	scalekitAway  = 600 * time.Millisecond
	reorderedFor  = 50 * time.Millisecond // longest wait of a webhook for the one that overtakes it
	arrivesWithin = 30 * time.Second      // every webhook that isn't lost, after the storm
	agreesWithin  = 30 * time.Second      // after the last webhook; what only two listings a minute apart repair never happens here
)

// faulty is what goes wrong at the simulated Scalekit, each with one in twenty.
var faulty = []simulator.Fault{
	simulator.WebhookDrop, simulator.WebhookDuplicate, simulator.WebhookReorder, simulator.WebhookForge,
	simulator.LostPage, simulator.HiddenPermission, simulator.Error503, simulator.TokenRefused, simulator.Truncate, simulator.Malformed,
}

// truth is a simulated Scalekit that goes wrong and goes away, and a sidecar that has to hold
// what it holds all the same.
type truth struct {
	*field
	*register

	scalekit *vendor
	flags    []string
}

// truthStorm changes permissions at a simulated Scalekit, deletes names and creates them again,
// while webhooks are lost, repeated, reordered and forged, its API fails, and both sides are
// killed. What was acknowledged as deleted is denied at once and for good, and in the end both
// sides hold the same.
func truthStorm(ctx context.Context, f *field) (err error) {
	f.ledger, f.data = newLedger(), f.inDir("data")
	t := &truth{field: f, register: newRegister()}
	if t.scalekit, err = newVendor(f, f.random.Uint64(), t.observe); err != nil {
		return err
	}
	t.register.scalekit = t.scalekit.Simulator
	if t.flags, err = t.scalekit.flags(f); err != nil {
		return err
	}
	if err := t.scalekit.open(ctx); err != nil {
		return err
	}
	defer t.scalekit.close()
	if _, err := f.start(ctx, t.flags...); err != nil {
		return err
	}
	defer f.endCurrent()
	if !t.agrees(ctx) { // on nothing; from then on questions are answered
		return errors.New("there is no sidecar that agrees with an empty Scalekit")
	}
	stop := t.askers(ctx)
	err = t.rage(ctx)
	if err == nil && !t.hopeless() {
		err = t.calm(ctx)
	}
	stop()
	if err != nil || ctx.Err() != nil || t.hopeless() {
		return errors.Join(err, ctx.Err())
	}
	t.compareNames(ctx)
	return t.wasOne()
}

// observe takes down what became of a webhook.
func (t *truth) observe(d simulator.Delivery) {
	forged := d.Kind == simulator.FalseBody || d.Kind == simulator.FalseSignature
	switch {
	case forged && d.State == simulator.Delivered:
		t.violate("a forged webhook was answered %d: %s of %s", d.Status, d.Type, d.Name)
	case forged:
		t.count("forgeries refused", 1)
	case d.State == simulator.Dropped:
		t.count("webhooks lost", 1)
	case d.State == simulator.Lost && d.Status == 0: // a start may take longer than all attempts
		t.count("webhooks given up", 1)
	case d.Status != http.StatusCreated:
		t.violate("%s of %s was sent %d times, and the last answer was %d, want 201", d.Type, d.Name, d.Attempts, d.Status)
	default:
		t.acknowledged(d)
	}
}

func (t *truth) acknowledged(d simulator.Delivery) {
	t.count("acknowledged", 1)
	if d.Kind == simulator.Duplicate {
		t.count("duplicates", 1)
	}
	if d.Type == "permission.deleted" {
		t.count("deletions acknowledged", 1)
	}
	if t.arrived(d) {
		t.count("out of order", 1)
	}
}

// rage goes on until all changes are made.
func (t *truth) rage(ctx context.Context) error {
	faults := simulator.Faults{Delay: reorderedFor, Rules: map[simulator.Fault]simulator.Rule{}}
	for _, name := range faulty {
		faults.Rules[name] = simulator.Rule{Probability: 0.05}
	}
	if err := t.scalekit.SetFaults(faults); err != nil {
		return err
	}
	storming, stop := context.WithCancel(ctx)
	var killers sync.WaitGroup
	failed := make([]error, 2)
	random := [...]*rand.Rand{t.fork(), t.fork()}
	for i, kill := range []func(context.Context, *rand.Rand) error{t.killSidecars, t.killScalekit} {
		killers.Go(func() {
			if failed[i] = kill(storming, random[i]); failed[i] != nil {
				stop() // there is no point in more changes
			}
		})
	}
	err := t.change(storming, t.fork())
	stop()
	killers.Wait()
	return errors.Join(append(failed, err)...)
}

// change makes the changes, half of them to a few names.
func (t *truth) change(ctx context.Context, random *rand.Rand) error {
	changes := longChanges
	if t.short {
		changes = shortChanges
	}
	for i := 0; i < changes && ctx.Err() == nil && !t.hopeless(); i++ {
		if err := t.changeOne(fmt.Sprintf("name%03d:read", pickOne(random)), i, random); err != nil {
			return err
		}
		t.count("changes", 1)
		pause(ctx, some(random, changePause))
		within(ctx, hangsAfter, func() bool { return t.scalekit.Counts().Pending < mostPending })
	}
	return nil
}

func pickOne(random *rand.Rand) int {
	if random.IntN(2) == 0 {
		return random.IntN(hotNames)
	}
	return random.IntN(truthNames)
}

func (t *truth) changeOne(name string, i int, random *rand.Rand) error {
	switch {
	case t.bearer(name) == "":
		reused, err := t.create(name)
		if reused {
			t.count("names reused", 1)
		}
		return err
	case random.IntN(2) == 0:
		return t.update(name, fmt.Sprint("text ", i))
	default:
		return t.delete(name)
	}
}

func some(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}

// killSidecars kills one after the other until ctx ends, and leaves none or one.
func (t *truth) killSidecars(ctx context.Context, random *rand.Rand) error {
	for goesOn(ctx, some(random, sidecarLife)) {
		t.count("kills", 1)
		t.endCurrent()
		if !goesOn(ctx, some(random, sidecarAway)) {
			break
		}
		if err := t.restart(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// goesOn waits, and reports whether ctx goes on.
func goesOn(ctx context.Context, d time.Duration) bool {
	pause(ctx, d)
	return ctx.Err() == nil
}

func (t *truth) restart(ctx context.Context) error {
	if _, err := t.start(ctx, t.flags...); err != nil {
		return t.refusedStart(ctx, err)
	}
	return nil
}

// killScalekit breaks off its connections until ctx ends, lets it be away for a while, and
// leaves it at work.
func (t *truth) killScalekit(ctx context.Context, random *rand.Rand) error {
	for goesOn(ctx, some(random, scalekitLife)) {
		t.count("Scalekit's restarts", 1)
		t.scalekit.close()
		pause(ctx, some(random, scalekitAway))
		if err := t.scalekit.open(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// calm lets nothing go wrong any more, and waits until both sides agree.
func (t *truth) calm(ctx context.Context) error {
	if err := t.scalekit.SetFaults(simulator.Faults{}); err != nil {
		return err
	}
	if t.standing() == nil {
		if err := t.restart(ctx); err != nil {
			return err
		}
	}
	arriving, stop := context.WithTimeout(ctx, arrivesWithin)
	defer stop()
	if err := t.scalekit.Wait(arriving); err != nil {
		return fmt.Errorf("webhooks are still on their way: %+v: %w", t.scalekit.Counts(), err)
	}
	began, listed := time.Now(), t.scalekit.listings.Load()
	if t.agrees(ctx) {
		t.count("milliseconds to agree", int(time.Since(began).Milliseconds()))
		t.count("listings to agree", int(t.scalekit.listings.Load()-listed))
	}
	return nil
}

// agrees waits until the sidecar has the digest that Scalekit has.
func (t *truth) agrees(ctx context.Context) bool {
	s, err := t.present(ctx)
	if err != nil {
		return false
	}
	want, count := t.scalekit.Digest().String(), len(t.scalekit.Live())
	wrong := "it was not asked"
	agrees := within(ctx, agreesWithin, func() bool {
		pause(ctx, 20*time.Millisecond)
		got, err := s.sync(ctx)
		if err != nil {
			wrong = err.Error()
			return false
		}
		wrong = judgeAgreement(want, count, got)
		return wrong == ""
	})
	if !agrees && ctx.Err() == nil {
		t.violate("both sides still differ after %s without faults: %s\n%s", agreesWithin, wrong, s.said())
	}
	return agrees
}

// essential is what a storm has to have had for its outcome to mean anything.
var essential = []string{
	"webhooks lost", "duplicates", "out of order", "forgeries refused", "deletions acknowledged", "names reused",
	"kills", "Scalekit's restarts", "asked about a deletion that was acknowledged", "compared",
}

// wasOne returns an error if something essential never happened.
func (t *truth) wasOne() error {
	missing := slices.DeleteFunc(slices.Clone(essential), func(what string) bool { return t.counted(what) > 0 })
	if len(missing) > 0 {
		return fmt.Errorf("that was no storm; what didn't happen: %q", missing)
	}
	return nil
}
