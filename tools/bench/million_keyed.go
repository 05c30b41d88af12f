package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	keyedHot   = 500 // names that stay in the LRU
	keyedBlock = 50  // questions of one kind in a row
	keyedAsked = 40  // blocks of each kind in a round
)

// keyedRound is how long questions took that were answered from memory and from the file.
type keyedRound struct{ hit, miss time.Duration } // medians

// measureKeyed asks on one connection, one question after the other, by turns for names
// that were asked for before and for names that never were.
func (m *million) measureKeyed(ctx context.Context) error {
	s, _, err := m.startLarge(ctx, m.path("data"))
	if err != nil {
		return err
	}
	hot := m.numbers(0, keyedHot)
	if err := posternTarget(s.addr, m.large.granted(hot)).askEach(ctx, m.options.connections); err != nil {
		return err
	}
	before, err := s.lookups(ctx)
	if err != nil {
		return err
	}
	cold := len(hot)
	for range m.options.rounds {
		asked := keyedBlock * keyedAsked
		round, err := m.keyedRound(ctx, s.addr, hot, m.numbers(cold, asked))
		if err != nil {
			return err
		}
		cold += asked
		m.keyed = append(m.keyed, round)
	}
	after, err := s.lookups(ctx)
	if err != nil {
		return err
	}
	if counted, want := after.since(before), cold-len(hot); counted.hits+counted.misses > 0 && int(counted.misses) < want {
		return fmt.Errorf("want %d lookups that miss, Postern counted %.0f", want, counted.misses)
	}
	return m.stop(s.server)
}

// numbers returns the numbers of n permissions, each name once.
func (m *million) numbers(first, n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = m.large.ranked(first + i)
	}
	return numbers
}

func (m *million) keyedRound(ctx context.Context, addr string, hot, cold []int) (r keyedRound, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var permissions []int
	for i := 0; i < len(cold); i += keyedBlock {
		for k := range keyedBlock {
			permissions = append(permissions, hot[(i+k)%len(hot)])
		}
		permissions = append(permissions, cold[i:i+keyedBlock]...)
	}
	c, err := posternTarget(addr, m.large.granted(permissions)).connect(ctx, 0)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.conn.Close()) }()
	var hits, misses histogram
	for i := range permissions {
		began := time.Now()
		if err := c.ask(i); err != nil {
			return r, err
		}
		if took := time.Since(began); i/keyedBlock%2 == 0 {
			hits.add(took)
		} else {
			misses.add(took)
		}
	}
	return keyedRound{hit: hits.percentile(50), miss: misses.percentile(50)}, nil
}
