package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// syncPath answers for the revision of a catalog.
const syncPath = "/v1/sync"

// applied is in the answer to an event that changed the catalog.
var applied = []byte(`"outcome":"applied"`)

// sender is one keep-alive connection that delivers events, each after the answer to the
// one before.
type sender struct {
	conn      net.Conn
	parser    responseParser
	buf       []byte
	latencies histogram
}

func newSender(ctx context.Context, addr string) (*sender, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, fmt.Errorf("limiting a connection's time: %w", errors.Join(err, conn.Close()))
		}
	}
	return &sender{conn: conn, buf: make([]byte, largestResponse)}, nil
}

// deliver sends one event and returns an error unless it is acknowledged as a change.
func (s *sender) deliver(request []byte) error {
	if _, err := s.conn.Write(request); err != nil {
		return fmt.Errorf("delivering: %w", err)
	}
	for filled := 0; ; {
		n, err := s.conn.Read(s.buf[filled:])
		if err != nil {
			return fmt.Errorf("waiting for the acknowledgment: %w", err)
		}
		filled += n
		status, body, size, err := s.parser.parse(s.buf[:filled])
		if err != nil {
			return fmt.Errorf("reading the acknowledgment: %w", err)
		}
		if size == 0 {
			continue
		}
		if status != http.StatusCreated || !bytes.Contains(body, applied) {
			return fmt.Errorf("want status 201 and a change, got %d: %.200s", status, body)
		}
		return nil
	}
}

// deliveries is what one run of the senders saw.
type deliveries struct {
	latencies histogram
	elapsed   time.Duration
}

func (d *deliveries) perSecond() float64 { return float64(d.latencies.total) / d.elapsed.Seconds() }

// deliverAll delivers requests, in their order, over so many connections, until the time is
// over or all are acknowledged. An event that isn't acknowledged as a change ends the run.
func deliverAll(ctx context.Context, addr string, requests [][]byte, connections int, duration time.Duration) (*deliveries, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+30*time.Second)
	defer cancel()
	senders := make([]*sender, 0, connections)
	var errs []error
	for range connections {
		s, err := newSender(ctx, addr)
		if err != nil {
			errs = append(errs, err)
			break
		}
		senders = append(senders, s)
	}
	sum := &deliveries{}
	if errs == nil {
		errs = append(errs, sum.run(senders, requests, duration))
	}
	for _, s := range senders {
		errs = append(errs, s.conn.Close())
	}
	return sum, errors.Join(errs...)
}

func (d *deliveries) run(senders []*sender, requests [][]byte, duration time.Duration) error {
	var next atomic.Int64
	ended := make(chan error, len(senders))
	start := time.Now()
	for _, s := range senders {
		go func() { ended <- s.run(&next, requests, start, duration) }()
	}
	var errs []error
	for range senders {
		errs = append(errs, <-ended)
	}
	d.elapsed = time.Since(start)
	for _, s := range senders {
		d.latencies.merge(&s.latencies)
	}
	return errors.Join(errs...)
}

func (s *sender) run(next *atomic.Int64, requests [][]byte, start time.Time, duration time.Duration) error {
	for began := time.Since(start); began < duration; {
		i := next.Add(1) - 1
		if i >= int64(len(requests)) {
			return nil
		}
		if err := s.deliver(requests[i]); err != nil {
			return err
		}
		ended := time.Since(start)
		s.latencies.add(ended - began)
		began = ended
	}
	return nil
}

// revisionAt asks a server for the revision of its catalog. It grows by one with each
// commit that changes something.
func revisionAt(ctx context.Context, addr string) (uint64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+syncPath, nil)
	if err != nil {
		return 0, fmt.Errorf("asking for the revision: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("asking for the revision: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, largestResponse))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return 0, fmt.Errorf("asking for the revision: %w", err)
	}
	var answer struct{ Revision *uint64 }
	if err := json.Unmarshal(text, &answer); err != nil || answer.Revision == nil {
		return 0, fmt.Errorf("asking for the revision: want one, got status %d: %.200s", response.StatusCode, text)
	}
	return *answer.Revision, nil
}
