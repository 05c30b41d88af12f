package simulator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	mostRecords    = 1000
	defaultTries   = 8
	defaultFirst   = 200 * time.Millisecond
	defaultLongest = 10 * time.Second
	defaultTimeout = 10 * time.Second
	defaultFlight  = 8
)

// posts sends letters: a queue, several attempts in flight, and a record of what became of
// each. What waits (for a delay, or between two attempts) isn't in the queue.
type posts struct {
	webhooks Webhooks
	client   *http.Client
	faults   *dice
	now      func() time.Time
	logger   *slog.Logger
	wake     chan struct{} // holds one token when the queue may have something

	mu      sync.Mutex
	queue   []*delivery
	heldUp  *delivery // by WebhookReorder, until the next one was sent
	records []*delivery
	counts  Counts
	open    int           // deliveries that are pending, or that the observer is being told of
	settled chan struct{} // closed while none is open
}

func newPosts(w Webhooks, faults *dice, now func() time.Time, logger *slog.Logger) *posts {
	w = w.withDefaults()
	p := &posts{
		webhooks: w, faults: faults, now: now, logger: logger,
		client: &http.Client{
			Transport: w.Transport, Timeout: w.Timeout,
			// A webhook is not a browser: another address is another endpoint.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		wake:    make(chan struct{}, 1),
		settled: make(chan struct{}),
	}
	close(p.settled)
	return p
}

func (w Webhooks) withDefaults() Webhooks {
	if w.Attempts == 0 {
		w.Attempts = defaultTries
	}
	if w.InFlight == 0 {
		w.InFlight = defaultFlight
	}
	for _, d := range []struct {
		into  *time.Duration
		value time.Duration
	}{{&w.First, defaultFirst}, {&w.Longest, defaultLongest}, {&w.Timeout, defaultTimeout}} {
		if *d.into == 0 {
			*d.into = d.value
		}
	}
	if w.Transport == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = w.InFlight
		w.Transport = transport
	}
	return w
}

// add decides what becomes of a letter, and queues it and what comes along. It never waits.
func (p *posts) add(l letter, forged []byte) {
	fate := p.decide()
	p.mu.Lock()
	defer p.mu.Unlock()
	original := p.record(l, Original)
	original.dropped = fate.dropped
	if fate.reordered && p.heldUp == nil {
		p.heldUp = original
		time.AfterFunc(fate.hold, func() { p.release(original) })
	} else {
		p.later(fate.delay, original)
	}
	if fate.duplicated && !fate.dropped {
		p.later(0, p.record(l, Duplicate))
	}
	if forged != nil {
		p.addForgeries(l, forged)
	}
}

// fate is what the dice decided about one event.
type fate struct {
	dropped, duplicated, reordered bool
	delay, hold                    time.Duration
}

func (p *posts) decide() fate {
	most := p.faults.get().Delay
	f := fate{
		dropped:    p.faults.fires(WebhookDrop),
		duplicated: p.faults.fires(WebhookDuplicate),
		reordered:  p.faults.fires(WebhookReorder),
		hold:       most,
	}
	if p.faults.fires(WebhookDelay) {
		f.delay = p.faults.upTo(WebhookDelay, most)
	}
	return f
}

// addForgeries queues what somebody without the secret could send: a captured delivery with
// another body, and one that is signed with a key of their own.
func (p *posts) addForgeries(l letter, body []byte) {
	falseBody := p.record(letter{l.event, l.webhookID, body}, FalseBody)
	falseBody.signed = l.body
	falseSignature := p.record(letter{l.event, l.webhookID + "f", body}, FalseSignature)
	p.later(0, falseBody)
	p.later(0, falseSignature)
}

// record makes a delivery that is pending.
func (p *posts) record(l letter, kind Kind) *delivery {
	d := &delivery{letter: l, record: Delivery{
		Kind: kind, State: Pending, EventID: l.event.id, WebhookID: l.webhookID, Type: l.event.kind,
		SubjectID: l.event.subject, Name: l.event.name, OccurredAt: l.event.occurredAt,
	}}
	if p.open == 0 {
		p.settled = make(chan struct{})
	}
	p.open++
	p.counts.Pending++
	if p.records = append(p.records, d); len(p.records) >= 2*mostRecords {
		p.records = slices.Clone(p.records[len(p.records)-mostRecords:])
	}
	return d
}

// later queues a delivery after a wait. mu is held.
func (p *posts) later(wait time.Duration, d *delivery) {
	if wait == 0 {
		p.enqueueLocked(d)
		return
	}
	time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.enqueueLocked(d)
	})
}

func (p *posts) enqueueLocked(d *delivery) {
	p.queue = append(p.queue, d)
	p.wakeUp()
}

func (p *posts) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
}

// release queues what was held up, when no later event came to do so.
func (p *posts) release(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heldUp == d {
		p.releaseLocked()
	}
}

// releaseLocked queues it in front, right behind what has overtaken it.
func (p *posts) releaseLocked() {
	p.queue = slices.Insert(p.queue, 0, p.heldUp)
	p.heldUp = nil
	p.wakeUp()
}

// run sends what is queued until ctx ends, and returns once no attempt is in flight.
func (p *posts) run(ctx context.Context) {
	turns := make(chan struct{}, p.webhooks.InFlight)
	var flying sync.WaitGroup
	defer flying.Wait()
	for {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		d := p.take(ctx)
		if d == nil {
			return
		}
		flying.Go(func() {
			p.attempt(ctx, d)
			<-turns
		})
	}
}

// take waits for the next delivery, or returns nil when ctx ends.
func (p *posts) take(ctx context.Context) *delivery {
	for {
		p.mu.Lock()
		if len(p.queue) > 0 {
			d := p.queue[0]
			p.queue = p.queue[1:]
			p.mu.Unlock()
			return d
		}
		p.mu.Unlock()
		select {
		case <-p.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *posts) attempt(ctx context.Context, d *delivery) {
	if d.dropped {
		p.tell(ctx, p.drop(d))
		return
	}
	status, failure := p.post(ctx, d)
	if ctx.Err() != nil {
		p.putBack(d) // nobody knows what became of it
		return
	}
	if ended := p.judge(d, status, failure); ended != nil {
		p.tell(ctx, *ended)
	}
}

// putBack queues a delivery again whose attempt was cut off, for when run goes on.
func (p *posts) putBack(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = slices.Insert(p.queue, 0, d)
	p.wakeUp()
}

// headers signs an attempt, or what a forger would put in the signature's place.
func (p *posts) headers(d *delivery) http.Header {
	signed := d.letter.body
	if d.signed != nil {
		signed = d.signed
	}
	header := p.webhooks.Sign(d.letter.webhookID, p.now(), signed)
	if d.record.Kind == FalseSignature {
		var mac [32]byte
		_, _ = rand.Read(mac[:]) // never fails, by its documentation
		header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac[:]))
	}
	return header
}

// judge notes how an attempt went, and returns the record if that was the end.
func (p *posts) judge(d *delivery, status int, failure string) *Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heldUp != nil && d.record.OccurredAt > p.heldUp.record.OccurredAt {
		p.releaseLocked()
	}
	p.counts.Attempts++
	d.record.Attempts++
	d.record.Status, d.record.Error = status, failure
	switch taken := status >= 200 && status < 300; {
	case taken:
		if d.record.Kind.forged() {
			p.counts.ForgeriesTaken++
		}
		p.endLocked(d, Delivered)
	case d.record.Kind.forged():
		p.endLocked(d, Refused)
	case d.record.Attempts >= p.webhooks.Attempts:
		p.endLocked(d, Lost)
	default:
		p.later(p.backoff(d.record.Attempts), d)
		return nil
	}
	ended := d.record
	return &ended
}

func (p *posts) drop(d *delivery) Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(d, Dropped)
	return d.record
}

// backoff doubles the wait with each failure.
func (p *posts) backoff(failures int) time.Duration {
	wait := p.webhooks.First
	for range failures - 1 {
		if wait >= p.webhooks.Longest/2 {
			return p.webhooks.Longest
		}
		wait *= 2
	}
	return min(wait, p.webhooks.Longest)
}

func (p *posts) endLocked(d *delivery, state State) {
	d.record.State = state
	switch state {
	case Delivered:
		p.counts.Delivered++
	case Refused:
		p.counts.Refused++
	case Dropped:
		p.counts.Dropped++
	case Lost:
		p.counts.Lost++
	case Pending:
	}
	p.counts.Pending--
}

// tell logs a delivery that ended, and tells the observer. Only then it counts as settled.
func (p *posts) tell(ctx context.Context, d Delivery) {
	level := slog.LevelInfo
	if d.State == Lost || d.State == Dropped {
		level = slog.LevelWarn
	}
	p.logger.Log(ctx, level, "webhook "+string(d.State), "kind", d.Kind, "type", d.Type, "event_id", d.EventID,
		"subject_id", d.SubjectID, "attempts", d.Attempts, "status", d.Status, "error", d.Error)
	if p.webhooks.Observe != nil {
		p.webhooks.Observe(d)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open--; p.open == 0 {
		close(p.settled)
	}
}

// resend queues another delivery of an event whose delivery is remembered.
func (p *posts) resend(eventID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.records, func(d *delivery) bool {
		return d.record.Kind == Original && d.record.EventID == eventID
	})
	if i < 0 {
		return fmt.Errorf("%w: no delivery of the event %.64q is remembered", ErrNotFound, eventID)
	}
	p.enqueueLocked(p.record(p.records[i].letter, Resent))
	return nil
}

func (p *posts) wait(ctx context.Context) error {
	p.mu.Lock()
	settled := p.settled
	p.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *posts) counted() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func (p *posts) deliveries() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := p.records[max(0, len(p.records)-mostRecords):]
	out := make([]Delivery, len(newest))
	for i, d := range newest {
		out[i] = d.record
	}
	return out
}
