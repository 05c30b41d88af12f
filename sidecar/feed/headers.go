package feed

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tags are those of If-None-Match (RFC 9110, section 13.1.2): what the peer has.
type tags struct {
	any    bool // *
	opaque []string
}

// heldTags reads the header up to the first thing that isn't a tag. What it doesn't
// understand the peer doesn't have, and gets.
func heldTags(h http.Header) (held tags) {
	rest := strings.Join(h.Values("If-None-Match"), ",")
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if strings.HasPrefix(rest, "*") {
			held.any = true
			return held
		}
		// Comparison is weak here: W/ makes no difference.
		quoted, ok := strings.CutPrefix(strings.TrimPrefix(rest, "W/"), `"`)
		opaque, behind, closed := strings.Cut(quoted, `"`)
		if !ok || !closed || strings.ContainsFunc(opaque, outsideTag) {
			return held
		}
		held.opaque = append(held.opaque, opaque)
		rest = behind
	}
}

// outsideTag reports whether c can't stand in an entity tag (RFC 9110, section 8.8.3).
func outsideTag(c rune) bool { return c <= ' ' || c == 0x7f }

// contain reports whether a strong tag is one of t.
func (t tags) contain(tag string) bool {
	for _, opaque := range t.opaque {
		if tag == `"`+opaque+`"` {
			return true
		}
	}
	return t.any
}

// preferredWait returns how long the peer would wait for a change: wait of Prefer (RFC 7240,
// section 4.3), in seconds. OPA writes modes=snapshot,delta;wait=10, where it is a parameter.
// A preference that makes no sense is passed over, as the RFC wants it.
func preferredWait(h http.Header) time.Duration {
	preferences := strings.FieldsFunc(strings.Join(h.Values("Prefer"), ","), func(r rune) bool { return r == ',' || r == ';' })
	for _, preference := range preferences {
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(value, ` "`), 10, 32)
		if err != nil {
			return 0
		}
		return min(time.Duration(seconds)*time.Second, longestWait)
	}
	return 0
}
