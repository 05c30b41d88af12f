package listener

import (
	"log/slog"
	"sync"
	"time"
)

// repeatAfter is how often one kind of failure is worth a line.
const repeatAfter = 10 * time.Second

// FailureLog logs failures that a peer can cause without end: one line per kind in ten
// seconds, with the number of those left out. Its methods may be called concurrently.
type FailureLog struct {
	logger *slog.Logger
	now    func() time.Time

	mu    sync.Mutex // guards kinds
	kinds map[string]repetition
}

type repetition struct {
	last       time.Time
	suppressed int
}

// NewFailureLog returns a log that writes to logger, by the clock now.
func NewFailureLog(logger *slog.Logger, now func() time.Time) *FailureLog {
	return &FailureLog{logger: logger, now: now, kinds: map[string]repetition{}}
}

// Warn logs a failure. There must be few kinds: each is remembered.
func (l *FailureLog) Warn(kind, message string, attributes ...any) {
	if suppressed, due := l.due(kind); due {
		l.logger.Warn(message, append(attributes, "suppressed", suppressed)...)
	}
}

func (l *FailureLog) due(kind string) (suppressed int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	r, known := l.kinds[kind]
	if known && now.Sub(r.last) < repeatAfter {
		r.suppressed++
		l.kinds[kind] = r
		return 0, false
	}
	l.kinds[kind] = repetition{last: now}
	return r.suppressed, true
}
