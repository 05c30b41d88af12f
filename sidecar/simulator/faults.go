package simulator

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is something that can go wrong.
type Fault string

// What can go wrong with a webhook. Each is decided once for an event, when it happens.
const (
	WebhookDrop      Fault = "webhook_drop"      // it is lost for ever, without an attempt
	WebhookDelay     Fault = "webhook_delay"     // it waits for up to Faults.Delay
	WebhookDuplicate Fault = "webhook_duplicate" // it is sent twice, with one webhook-id
	WebhookReorder   Fault = "webhook_reorder"   // it waits until the next one was sent, or for Faults.Delay
	WebhookForge     Fault = "webhook_forge"     // two forgeries come along: a false body, and a false signature
)

// What can go wrong with a request to the management API, in this order of precedence.
const (
	Hang          Fault = "hang"            // no answer; the connection breaks off after Faults.Hang
	RateLimit     Fault = "rate_limit"      // 429 with Retry-After
	RateLimitBare Fault = "rate_limit_bare" // 429 without
	Error500      Fault = "error_500"
	Error503      Fault = "error_503"
	Error403      Fault = "error_403"
	TokenRefused  Fault = "token_refused" // 401 for a token that is good
	Truncate      Fault = "truncate"      // the connection breaks off in the middle of the answer
	Malformed     Fault = "malformed"     // the answer is whole, and not JSON
)

// What can go wrong with a listing, and elsewhere.
const (
	EndlessPaging      Fault = "endless_paging"      // the last page goes on with the first one, under new page tokens
	LostPage           Fault = "lost_page"           // a page is left out; total_size still counts it
	HiddenPermission   Fault = "hidden_permission"   // a listing leaves one permission out, and total_size agrees
	EmptyList          Fault = "empty_list"          // a listing with nothing in it
	CredentialsRefused Fault = "credentials_refused" // 401 from the token endpoint
	KeysUnavailable    Fault = "keys_unavailable"    // 503 from /keys and from discovery
)

var allFaults = []Fault{
	WebhookDrop, WebhookDelay, WebhookDuplicate, WebhookReorder, WebhookForge,
	Hang, RateLimit, RateLimitBare, Error500, Error503, Error403, TokenRefused, Truncate, Malformed,
	EndlessPaging, LostPage, HiddenPermission, EmptyList, CredentialsRefused, KeysUnavailable,
}

// AllFaults returns the names of the faults.
func AllFaults() []Fault { return slices.Clone(allFaults) }

// Rule says how often a fault happens. The zero Rule is never.
type Rule struct {
	Probability float64 // from 0 to 1, each time anew
	Count       int     // or: the next Count times
}

// ParseRule reads "5%", "always", "never", or a whole number: the next so many times.
func ParseRule(text string) (Rule, error) {
	switch text {
	case "always":
		return Rule{Probability: 1}, nil
	case "never":
		return Rule{}, nil
	}
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err == nil && percent >= 0 && percent <= 100 {
			return Rule{Probability: percent / 100}, nil
		}
	}
	count, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return Rule{}, errors.New("want a part such as 5%, a number of times such as 3, always or never")
	}
	return Rule{Count: int(count)}, nil
}

// String returns the form that [ParseRule] reads.
func (r Rule) String() string {
	switch {
	case r.Count > 0:
		return strconv.Itoa(r.Count)
	case r.Probability >= 1:
		return "always"
	case r.Probability <= 0:
		return "never"
	}
	return strconv.FormatFloat(r.Probability*100, 'f', -1, 64) + "%"
}

// ParseFault reads NAME=RULE, such as "webhook_drop=5%".
func ParseFault(text string) (Fault, Rule, error) {
	name, rule, ok := strings.Cut(text, "=")
	if !ok || !slices.Contains(allFaults, Fault(name)) {
		return "", Rule{}, fmt.Errorf("want NAME=RULE such as webhook_drop=5%%, where NAME is one of %s", faultNames())
	}
	parsed, err := ParseRule(rule)
	if err != nil {
		return "", Rule{}, fmt.Errorf("%s: %w", name, err)
	}
	return Fault(name), parsed, nil
}

func faultNames() string {
	names := make([]string, len(allFaults))
	for i, f := range allFaults {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

// Faults is everything that goes wrong from now on. Zero times mean the defaults.
type Faults struct {
	Rules      map[Fault]Rule
	Delay      time.Duration // longest wait of WebhookDelay and WebhookReorder; zero: 2 s
	RetryAfter time.Duration // in the answer of RateLimit; zero: 1 s
	Hang       time.Duration // how long Hang holds a request; zero: 20 s
}

func (f Faults) check() error {
	for name, rule := range f.Rules {
		if !slices.Contains(allFaults, name) {
			return fmt.Errorf("%w: rules: want one of %s, got %.40q", ErrInvalid, faultNames(), string(name))
		}
		if rule.Count < 0 || rule.Probability < 0 || rule.Probability > 1 || (rule.Count > 0 && rule.Probability > 0) {
			return fmt.Errorf("%w: rules.%s: want a probability from 0 to 1, or a count", ErrInvalid, name)
		}
	}
	if f.Delay < 0 || f.RetryAfter < 0 || f.Hang < 0 {
		return fmt.Errorf("%w: delay, retry_after, hang: want no negative time", ErrInvalid)
	}
	return nil
}

func (f Faults) withDefaults() Faults {
	f.Rules = maps.Clone(f.Rules)
	if f.Rules == nil {
		f.Rules = map[Fault]Rule{}
	}
	for _, d := range []struct {
		into  *time.Duration
		value time.Duration
	}{{&f.Delay, 2 * time.Second}, {&f.RetryAfter, time.Second}, {&f.Hang, 20 * time.Second}} {
		if *d.into == 0 {
			*d.into = d.value
		}
	}
	return f
}

// SetFaults replaces everything that goes wrong. Deliveries under way keep what was decided
// for them. Its error wraps [ErrInvalid].
func (s *Simulator) SetFaults(f Faults) error {
	if err := f.check(); err != nil {
		return err
	}
	s.faults.set(f.withDefaults())
	return nil
}

// Faults returns what goes wrong from now on; a count is what is left of it.
func (s *Simulator) Faults() Faults { return s.faults.get() }

// dice decides. Each fault draws from a stream of its own, so that how often one is asked
// doesn't change what becomes of the others.
type dice struct {
	mu      sync.Mutex
	current Faults
	streams map[Fault]*rand.Rand
}

func newDice(seed uint64) *dice {
	d := &dice{streams: map[Fault]*rand.Rand{}}
	for _, f := range allFaults {
		d.streams[f] = rand.New(rand.NewPCG(seed, streamOf(string(f)))) //nolint:gosec // runs shall repeat
	}
	return d
}

func streamOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum64()
}

func (d *dice) set(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = f
}

func (d *dice) get() Faults {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.current
	out.Rules = maps.Clone(out.Rules)
	return out
}

// fires reports whether f happens this time.
func (d *dice) fires(f Fault) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	rule := d.current.Rules[f]
	if rule.Count > 0 {
		rule.Count--
		d.current.Rules[f] = rule
		return true
	}
	return rule.Probability > 0 && d.streams[f].Float64() < rule.Probability
}

// first returns the first of faults that happens this time, or "".
func (d *dice) first(faults ...Fault) Fault {
	for _, f := range faults {
		if d.fires(f) {
			return f
		}
	}
	return ""
}

// upTo returns a time from zero to most, from the stream of f.
func (d *dice) upTo(f Fault, most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.streams[f].Int64N(int64(most) + 1))
}

// pick returns a number below n, from the stream of f.
func (d *dice) pick(f Fault, n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.streams[f].IntN(n)
}
