package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	mostViolations = 8 // a storm ends after so many: the first ones tell it all
	progressEvery  = 5 * time.Second
)

// account is what a storm counted, and what it found broken.
type account struct {
	mu         sync.Mutex
	name       string
	began      time.Time
	order      []string // of counts, as they came up
	counts     map[string]int
	violations []string
	progress   io.Writer
}

func newAccount(name string, progress io.Writer) *account {
	return &account{name: name, began: time.Now(), counts: map[string]int{}, progress: progress}
}

// count adds to what is told in the end.
func (a *account) count(what string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.counts[what]; !known {
		a.order = append(a.order, what)
	}
	a.counts[what] += n
}

func (a *account) counted(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[what]
}

// violate notes that an invariant is broken.
func (a *account) violate(format string, arguments ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := fmt.Sprintf(format, arguments...)
	if len(a.violations) >= mostViolations || slices.Contains(a.violations, text) {
		return
	}
	a.violations = append(a.violations, text)
	fmt.Fprintf(a.progress, "%s: VIOLATION: %s\n", a.name, text)
}

// violateIf notes a judge's complaint, unless it is empty.
func (a *account) violateIf(wrong string) {
	if wrong != "" {
		a.violate("%s", wrong)
	}
}

// judged notes a verdict under the name of what was judged.
func (a *account) judged(what string, v verdict) {
	a.count(what, 1)
	if v.unjudged {
		a.count("unjudged, too much in flight", 1)
	}
	a.violateIf(v.wrong)
}

func (a *account) broken() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.violations)
}

// hopeless tells that there is nothing more to learn.
func (a *account) hopeless() bool { return a.broken() >= mostViolations }

// report prints a line of progress every few seconds until it is told to stop.
func (a *account) report() (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				fmt.Fprintf(a.progress, "%s, %d s: %s\n", a.name, int(time.Since(a.began).Seconds()), a.told())
			}
		}
	}()
	return func() { close(done) }
}

// told lists the counts.
func (a *account) told() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var parts []string
	for _, what := range a.order {
		parts = append(parts, fmt.Sprintf("%s %d", what, a.counts[what]))
	}
	return strings.Join(parts, ", ")
}
