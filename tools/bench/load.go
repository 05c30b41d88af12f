package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// target is a server under load, with the trace as it wants to be asked.
type target struct {
	addr     string
	requests [][]byte // whole HTTP requests, one for each question of the trace
	status   int      // of the right answers; 0 means 200
	first    int      // question with which the next run begins, on its first connection
	// check returns an error unless body is the right answer to question i. It must be cheap:
	// it runs for each answer, on the cores that the server needs.
	check func(i int, body []byte) error
}

// load is what one run of the generator saw.
type load struct {
	latencies histogram
	elapsed   time.Duration
}

// perSecond returns the rate of answers.
func (l *load) perSecond() float64 { return float64(l.latencies.total) / l.elapsed.Seconds() }

// drive asks the questions of the trace over so many connections, each waiting for its
// answer before it asks again, for the duration. Each connection begins at another place
// of the trace, and the next run goes on behind this one: until the trace is over nothing is
// asked twice. The first wrong answer ends the run.
func (t *target) drive(ctx context.Context, connections int, duration time.Duration) (*load, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+10*time.Second)
	defer cancel()
	clients := make([]*client, 0, connections)
	var errs []error
	for i := range connections {
		c, err := t.connect(ctx, (t.first+i*len(t.requests)/connections)%len(t.requests))
		if err != nil {
			errs = append(errs, err)
			break
		}
		clients = append(clients, c)
	}
	sum := &load{}
	if errs == nil {
		errs = append(errs, sum.run(clients, duration))
	}
	var furthest int
	for _, c := range clients {
		furthest = max(furthest, int(c.latencies.total))
		errs = append(errs, c.conn.Close())
	}
	t.first = (t.first + furthest) % len(t.requests)
	return sum, errors.Join(errs...)
}

// run lets all clients ask at once and adds up what they saw.
func (l *load) run(clients []*client, duration time.Duration) error {
	ended := make(chan error, len(clients))
	start := time.Now()
	for _, c := range clients {
		go func() { ended <- c.run(start, duration) }()
	}
	var errs []error
	for range clients {
		errs = append(errs, <-ended)
	}
	l.elapsed = time.Since(start)
	for _, c := range clients {
		l.latencies.merge(&c.latencies)
	}
	return errors.Join(errs...)
}

// client is one connection. It allocates nothing while it runs, so that the collector has
// no reason to.
type client struct {
	target    *target
	conn      net.Conn
	next      int
	parser    responseParser
	buf       []byte
	latencies histogram
}

func (t *target) connect(ctx context.Context, first int) (*client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, fmt.Errorf("limiting a connection's time: %w", errors.Join(err, conn.Close()))
		}
	}
	return &client{target: t, conn: conn, next: first, buf: make([]byte, largestResponse)}, nil
}

func (c *client) run(start time.Time, duration time.Duration) error {
	// One look at the clock for each answer: it ends one latency and begins the next, so
	// that checking the answer counts as waiting for the next one, on both sides alike.
	asked := time.Since(start)
	for asked < duration {
		if err := c.ask(c.next); err != nil {
			return fmt.Errorf("asking question %d of the trace: %w", c.next, err)
		}
		answered := time.Since(start)
		c.latencies.add(answered - asked)
		asked = answered
		if c.next++; c.next == len(c.target.requests) {
			c.next = 0
		}
	}
	return nil
}

// ask sends one question and checks its answer.
func (c *client) ask(i int) error {
	if _, err := c.conn.Write(c.target.requests[i]); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	for filled := 0; ; {
		n, err := c.conn.Read(c.buf[filled:])
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		filled += n
		complete, err := c.target.accept(&c.parser, c.buf[:filled], i)
		if err != nil || complete {
			return err
		}
	}
}

// accept judges what came so far in answer to question i. It reports false while that is
// incomplete.
func (t *target) accept(p *responseParser, received []byte, i int) (complete bool, err error) {
	status, body, size, err := p.parse(received)
	switch {
	case err != nil:
		return false, fmt.Errorf("reading the response: %w", err)
	case size == 0 && len(received) == largestResponse:
		return false, errors.New("the response is too large")
	case size == 0:
		return false, nil
	case size != len(received):
		return false, fmt.Errorf("%d bytes came behind the response", len(received)-size)
	case status != cmp.Or(t.status, 200):
		return false, fmt.Errorf("want status %d, got %d: %.200s", cmp.Or(t.status, 200), status, body)
	}
	return true, t.check(i, body)
}
