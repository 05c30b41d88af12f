package main

import (
	"context"
	"errors"
	"time"
)

const trickleSenders = 8

// trickled is what came of events at a given rate.
type trickled struct {
	acknowledged int64
	err          error
}

// trickle delivers trickleRate events a second, whether or not the earlier ones were
// acknowledged, as far as its senders go, until ctx ends. They are signed as they go.
func trickle(ctx context.Context, addr string, stream *eventStream) (sum trickled) {
	due := make(chan int, trickleRate) // numbers of events; a second of them may wait
	ended := make(chan trickled, trickleSenders)
	for range trickleSenders {
		go func() { ended <- deliverDue(context.WithoutCancel(ctx), addr, stream, due) }()
	}
	ticker := time.NewTicker(time.Second / trickleRate)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			select {
			case due <- stream.next:
				stream.advance(1)
			default: // the receiver is a second behind; what is missing is told
			}
		}
	}
	close(due)
	for range trickleSenders {
		one := <-ended
		sum.acknowledged += one.acknowledged
		sum.err = errors.Join(sum.err, one.err)
	}
	return sum
}

func deliverDue(ctx context.Context, addr string, stream *eventStream, due <-chan int) (t trickled) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s, err := newSender(ctx, addr)
	if err != nil {
		return trickled{err: err}
	}
	defer func() { t.err = errors.Join(t.err, s.conn.Close()) }()
	for number := range due {
		if err := s.deliver(stream.sign(number, time.Now())); err != nil {
			t.err = err
			return t
		}
		t.acknowledged++
	}
	return t
}
