package permission

import (
	"errors"
	"math"
	"regexp"
	"time"
)

// Instant is a moment in Unix nanoseconds, UTC. The zero Instant means "not known":
// nothing that Scalekit reports happened in 1970.
type Instant int64

const instantLayout = "2006-01-02T15:04:05.000000000Z"

// rfc3339 refuses what time.Parse takes beyond the standard: a comma before the fraction
// and a one-digit hour (https://go.dev/issue/54580).
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

var (
	firstInstant = time.Unix(0, 1)
	lastInstant  = time.Unix(0, math.MaxInt64)
)

// ParseInstant reads an RFC 3339 time with any UTC offset and up to nine fractional
// digits (Scalekit sends a varying number; further ones would be cut off).
// It refuses what 64 bits of nanoseconds after 1970 can't hold.
func ParseInstant(text string) (Instant, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !rfc3339.MatchString(text) {
		return 0, errors.New("want an RFC 3339 time such as 2024-01-15T10:30:00.123456789Z")
	}
	if t.Before(firstInstant) || t.After(lastInstant) {
		return 0, errors.New("want a time from 1970 to 2262")
	}
	return Instant(t.UnixNano()), nil
}

// InstantOf returns the instant of t; t must lie between 1970 and 2262.
func InstantOf(t time.Time) Instant { return Instant(t.UnixNano()) }

// Time returns the instant as a time in UTC.
func (i Instant) Time() time.Time { return time.Unix(0, int64(i)).UTC() }

// String writes the instant in UTC with exactly nine fractional digits, so that
// instants compare as strings.
func (i Instant) String() string { return i.Time().Format(instantLayout) }
