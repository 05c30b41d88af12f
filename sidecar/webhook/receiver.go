package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	bodyWithin     = 10 * time.Second // to send the body
	bodiesAtOnce   = 64               // each may hold MaxBody of memory and a processor
	turnWithin     = 3 * time.Second  // to wait for one of them to end
	applyWithin    = 5 * time.Second  // Scalekit gives up after about ten, turnWithin included
	latestAhead    = 5 * time.Minute  // of occurred_at; a later one would win over all that follows
	retryAfter     = 5 * time.Second
	outcomeForeign = "ignored" // an event that isn't a permission's
	rolePrefix     = "role."   // of the types role.created, role.updated and role.deleted
)

// Config is what a [Receiver] needs.
type Config struct {
	Keys          func() Keys // asked for each delivery, so that rotated secrets take effect at once
	EnvironmentID string      // "env_…"; deliveries of another one are refused
	Sink          Sink
	RolesChanged  func() // told of each verified role event, which says no more than that; may be nil
	Now           func() time.Time
	Logger        *slog.Logger
	Meter         metric.Meter
}

// Receiver is the HTTP handler of the webhook endpoint.
type Receiver struct {
	config  Config
	turns   chan struct{}
	metrics metrics
	log     log
	clock   *clock
}

// NewReceiver returns a receiver. The error is that of the meter.
func NewReceiver(c Config) (*Receiver, error) {
	rc := &Receiver{
		config: c,
		turns:  make(chan struct{}, bodiesAtOnce),
		log:    log{c.Logger, listener.NewFailureLog(c.Logger, c.Now)},
		clock:  newClock(c.Now()),
	}
	var err error
	if rc.metrics, err = newMetrics(c.Meter, rc.skew); err != nil {
		return nil, fmt.Errorf("making the receiver's metrics: %w", err)
	}
	return rc, nil
}

// ServeHTTP answers a delivery: 201 once its event is durable and visible, or isn't ours
// to keep; else what [refuse] says. The cheapest checks come first.
func (rc *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		listener.MethodNotAllowed(http.MethodPost)(w, r)
		return
	}
	d, outcome, err := rc.receive(w, r)
	rc.metrics.count(r.Context(), d.eventType, outcome, err)
	if err != nil {
		refused := refuse(err)
		rc.log.failure(refused, err, d)
		listener.WriteError(w, refused)
		return
	}
	rc.log.success(d, outcome)
	listener.WriteJSON(w, http.StatusCreated, map[string]string{"outcome": outcome})
}

func (rc *Receiver) receive(w http.ResponseWriter, r *http.Request) (d delivery, outcome string, err error) {
	now := rc.config.Now()
	rc.look(now)
	c, err := readClaim(r.Header, now)
	if errors.Is(err, ErrOutsideWindow) {
		rc.clock.refused(r.Header.Get(headerTimestamp), rc.clock.moment(now))
	}
	if err != nil {
		return d, "", err
	}
	if d, err = rc.read(w, r, c); err != nil {
		return d, "", err
	}
	outcome, err = rc.accept(r.Context(), d)
	return d, outcome, err
}

// read turns a body into what it says. It holds its turn until the body is needed no more:
// were the turn given back before the signature is checked, bodies that come faster than
// the processors hash would pile up without bound.
func (rc *Receiver) read(w http.ResponseWriter, r *http.Request, c claim) (delivery, error) {
	if !rc.takeTurn(r.Context()) {
		return delivery{}, errCrowded
	}
	defer func() { <-rc.turns }()
	// A connection that takes no deadline keeps the server's own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin))
	body, refused := listener.ReadBody(r, MaxBody)
	if refused != nil {
		return delivery{}, refused
	}
	if err := c.verify(rc.config.Keys(), body); err != nil {
		return delivery{}, err
	}
	rc.compare(c)
	d, err := decode(body)
	d.webhookID = c.id
	if err != nil {
		return d, malformedError{err}
	}
	return d, nil
}

// takeTurn waits until fewer than bodiesAtOnce bodies are in hand. It reports false if that
// takes too long.
func (rc *Receiver) takeTurn(ctx context.Context) bool {
	turn := time.NewTimer(turnWithin)
	defer turn.Stop()
	select {
	case rc.turns <- struct{}{}:
		return true
	case <-turn.C:
		return false
	case <-ctx.Done():
		return false
	}
}

// accept judges what a verified body says, and hands a permission event to the sink.
func (rc *Receiver) accept(ctx context.Context, d delivery) (string, error) {
	if d.event.EnvironmentID != rc.config.EnvironmentID {
		return "", errEnvironment
	}
	if d.event.Kind == 0 {
		if rc.config.RolesChanged != nil && strings.HasPrefix(d.eventType, rolePrefix) {
			rc.config.RolesChanged()
		}
		return outcomeForeign, nil
	}
	if d.event.OccurredAt.Time().After(rc.config.Now().Add(latestAhead)) {
		return "", errFuture
	}
	// A sender who hangs up doesn't take the event back: it is verified, and a commit may be
	// under way. What came of it, the next delivery finds out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyWithin)
	defer cancel()
	outcome, err := rc.config.Sink.Apply(ctx, d.event)
	if err != nil {
		return "", err
	}
	return string(outcome), nil
}

var (
	errCrowded     = errors.New("too many deliveries at once")
	errEnvironment = errors.New("the event is of another environment than --environment-id names; the endpoint in Scalekit's dashboard belongs to that one")
	errFuture      = errors.New("occurred_at is more than 5 minutes ahead of this machine's clock")
)

// malformedError is a body that was verified and can't be read.
type malformedError struct{ error }

// Unwrap returns what is wrong with the body.
func (e malformedError) Unwrap() error { return e.error }

// refusal is a row of the status map: err answers with status and code.
type refusal struct {
	err    error
	status int
	code   string
}

var refusals = []refusal{
	{ErrHeadersMissing, http.StatusUnauthorized, "signature_headers_missing"},
	{errMisleading, http.StatusUnauthorized, "signature_headers_missing"},
	{ErrHeadersMalformed, http.StatusUnauthorized, "signature_headers_malformed"},
	{ErrOutsideWindow, http.StatusUnauthorized, "timestamp_outside_window"},
	{ErrMismatch, http.StatusUnauthorized, "signature_mismatch"},
	{errEnvironment, http.StatusUnprocessableEntity, "wrong_environment"},
	{errFuture, http.StatusUnprocessableEntity, "occurred_in_future"},
	{errCrowded, http.StatusServiceUnavailable, "too_many_deliveries"},
}

// refuse is the status map: the one place that says which mistake is whose. Its codes are
// also what refused deliveries are counted by.
func refuse(err error) *listener.Error {
	var answer *listener.Error
	if errors.As(err, &answer) {
		return answer // of the body: 400 or 413
	}
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			answer = &listener.Error{Status: row.status, Code: row.code, Message: err.Error()}
			if row.status == http.StatusServiceUnavailable {
				answer.RetryAfter = retryAfter
			}
			return answer
		}
	}
	var malformed malformedError
	if errors.As(err, &malformed) {
		return &listener.Error{Status: http.StatusBadRequest, Code: "malformed_event", Message: err.Error()}
	}
	// The sink's cause is for the log: it may name files of this machine.
	return &listener.Error{
		Status: http.StatusServiceUnavailable, Code: "catalog_unavailable",
		Message: "the event could not be made durable; send it again", RetryAfter: retryAfter,
	}
}

// printable bounds a foreign text for a log.
func printable(text string) string {
	const most = 64
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// knownType is the type of an event as a label: what isn't ours is one label.
func knownType(eventType string) string {
	if kinds[eventType] != 0 {
		return eventType
	}
	return "other"
}
