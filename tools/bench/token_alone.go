package main

import (
	"context"
	"errors"
	"time"
)

const (
	aloneBlock  = 50 // questions of one server in a row
	aloneBlocks = 20 // of each server in a round
)

// lone is how a server is asked one question at a time, with what was measured.
type lone struct {
	target  *target
	medians []float64 // of each round, in µs
}

// askAlone asks each server on one connection, one question after the other, and goes from
// server to server in short blocks, so that what slows the machine down slows down all of
// them. It notes the medians.
func (t *tokens) askAlone(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	contenders := t.contenders()
	clients, took := make([]*client, len(contenders)), make([][]float64, len(contenders))
	for i, c := range contenders {
		asked := t.alone[c].target
		if clients[i], err = asked.connect(ctx, asked.first); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, clients[i].conn.Close()) }()
	}
	for range aloneBlocks {
		for i, c := range clients {
			if took[i], err = c.askBlock(took[i], aloneBlock); err != nil {
				return err
			}
		}
	}
	for i, c := range contenders {
		a := t.alone[c]
		a.target.first = clients[i].next
		a.medians = append(a.medians, median(took[i]))
	}
	return nil
}

// askBlock asks so many questions and appends how long each took, in µs.
func (c *client) askBlock(took []float64, questions int) ([]float64, error) {
	for range questions {
		began := time.Now()
		if err := c.ask(c.next); err != nil {
			return took, err
		}
		took = append(took, microseconds(time.Since(began)))
		c.next = (c.next + 1) % len(c.target.requests)
	}
	return took, nil
}
