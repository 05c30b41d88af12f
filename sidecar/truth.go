package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

// apiRequestWithin bounds one request to Scalekit's API.
const apiRequestWithin = 15 * time.Second

// truth is the catalog as the reconciler sees it.
type truth struct{ *catalog.Catalog }

// Repair applies what a reconciliation found.
func (t truth) Repair(ctx context.Context, states []permission.State, roles []permission.Role, complete bool) (int, error) {
	return t.Catalog.Repair(ctx, catalog.Repair{States: states, Roles: roles, Complete: complete}, nil)
}

// Standing returns the number of live permissions, and whether the catalog is complete.
func (t truth) Standing() (live uint64, complete bool) {
	at := t.Sync()
	return at.Count, at.Complete
}

// SetState says how far the catalog can be trusted.
func (t truth) SetState(s scalekit.State) { t.Catalog.SetState(catalog.State(s)) }

// reconciles reports whether there are credentials for Scalekit's API.
func (c *config) reconciles() bool { return c.scalekitURL != "" }

// checkTruth looks at what the settings of the reconciliation mean together.
func (c *config) checkTruth() error {
	if (c.scalekitURL == "") != (c.scalekitClientID == "") || (c.scalekitURL == "") != (c.scalekitSecretFile == "") {
		return usagef("--scalekit-url, --scalekit-client-id, --scalekit-client-secret-file: want all three or none")
	}
	if c.onStale == "deny" && !c.reconciles() {
		return usagef("--on-stale: deny wants --scalekit-url and its credentials, got none; without them nothing tells fresh from stale")
	}
	if c.staleAfter <= c.reconcileInterval {
		return usagef("--stale-after: want more than --reconcile-interval, which is %s, got %s", c.reconcileInterval, c.staleAfter)
	}
	return nil
}

func parseClientSecret(contents [][]byte) (string, error) {
	secret := strings.TrimSpace(string(contents[0]))
	if secret == "" || strings.ContainsAny(secret, " \t\r\n") {
		return "", errors.New("want one client secret without spaces")
	}
	return secret, nil
}

// newReconciler makes what holds the catalog against Scalekit's API. It does nothing yet.
func (s *sidecar) newReconciler() (*scalekit.Reconciler, error) {
	version, _ := buildVersion()
	client, err := scalekit.NewClient(scalekit.ClientConfig{
		BaseURL:      s.config.scalekitURL,
		ClientID:     s.config.scalekitClientID,
		ClientSecret: func() (string, error) { return s.clientSecret.get(), nil },
		Timeout:      apiRequestWithin,
		UserAgent:    "postern/" + version,
	})
	if err != nil {
		return nil, usagef("--scalekit-url, --scalekit-client-id: %v", err)
	}
	return scalekit.NewReconciler(scalekit.Config{
		Source: client, Catalog: truth{s.catalog},
		Interval: s.config.reconcileInterval, StaleAfter: s.config.staleAfter, MaxDrift: s.config.maxDrift,
		Now: time.Now, Random: rand.Float64,
		Logger: s.logger.With("room", "scalekit"), Meter: s.telemetry.Meter(),
	})
}

// awaitTruth opens the decision API once there is a catalog: at once where one is on disk or
// none is to be fetched, else after the first listing, or when --bootstrap-wait is over.
func (s *sidecar) awaitTruth(ctx context.Context) {
	defer s.bootstrapped.Store(true)
	if !s.awaitsTruth() {
		return
	}
	over := time.NewTimer(s.config.bootstrapWait)
	defer over.Stop()
	select {
	case <-s.reconciler.Listed():
	case <-over.C:
		s.logger.Warn("no listing from Scalekit within --bootstrap-wait; questions are answered from an incomplete catalog until there is one")
	case <-ctx.Done():
	}
}

func (s *sidecar) awaitsTruth() bool { return s.reconciler != nil && s.catalog.Sync().Revision == 0 }

// onceBootstrapped answers 503 while the first listing is awaited.
func (s *sidecar) onceBootstrapped(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.bootstrapped.Load() {
			handler.ServeHTTP(w, r)
			return
		}
		listener.WriteError(w, &listener.Error{
			Status: http.StatusServiceUnavailable, Code: "not_ready", RetryAfter: time.Second,
			Message: "the catalog is being fetched from Scalekit for the first time (--bootstrap-wait); ask /readyz?verbose on the admin listener",
		})
	})
}

// reconcileAnswer is how the reconciliation stands, on GET /v1/sync and the control socket.
type reconcileAnswer struct {
	State         string         `json:"state"`
	LastSuccessAt *string        `json:"last_success_at"`
	LastAttemptAt *string        `json:"last_attempt_at"`
	NextAttemptAt *string        `json:"next_attempt_at"`
	Failure       *failureAnswer `json:"failure"`
	Drift         *driftAnswer   `json:"drift"`
}

type failureAnswer struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	At      string `json:"at"`
	InARow  int    `json:"in_a_row"`
}

// driftAnswer is the last difference between Scalekit's list and the catalog.
type driftAnswer struct {
	Since         string `json:"since"`
	At            string `json:"at"`
	Applied       bool   `json:"applied"`
	HeldBack      bool   `json:"held_back"` // until `postern catalog accept` with the digest
	Waiting       int    `json:"waiting"`   // for another listing to confirm them
	ListingDigest string `json:"listing_digest"`
	scalekit.Drift
}

func answerReconcile(at scalekit.Status) reconcileAnswer {
	answer := reconcileAnswer{
		State:         string(at.State),
		LastSuccessAt: timeOrNull(at.LastSuccess), LastAttemptAt: timeOrNull(at.LastAttempt), NextAttemptAt: timeOrNull(at.NextAttempt),
	}
	if f := at.Failure; f != nil {
		answer.Failure = &failureAnswer{string(f.Kind), f.Message, *timeOrNull(f.At), f.InARow}
	}
	if d := at.Drift; d != nil {
		answer.Drift = &driftAnswer{*timeOrNull(d.Since), *timeOrNull(d.At), d.Applied, d.HeldBack, d.Waiting, d.ListingDigest, d.Drift}
	}
	return answer
}

// timeOrNull writes a time of this machine's clock as all times are written; nil for none.
func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := permission.InstantOf(t).String()
	return &text
}

// serveReconcile answers POST /v1/reconcile of the control socket once it is done.
func (s *sidecar) serveReconcile(w http.ResponseWriter, r *http.Request) {
	s.answerTruth(w, r, s.reconciler.Reconcile)
}

// serveAccept answers POST /v1/accept of the control socket: {"digest":"…"}.
func (s *sidecar) serveAccept(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Digest string `json:"digest"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, largestAcceptance))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&asked)
	digest, digestErr := permission.ParseDigest(asked.Digest)
	if err := errors.Join(err, digestErr); err != nil {
		listener.WriteError(w, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_digest", Message: err.Error()})
		return
	}
	s.answerTruth(w, r, func(ctx context.Context) (scalekit.Status, error) { return s.reconciler.Accept(ctx, digest) })
}

const largestAcceptance = 4 << 10 // bytes of a body

func (s *sidecar) answerTruth(w http.ResponseWriter, r *http.Request, do func(context.Context) (scalekit.Status, error)) {
	answerWork(w, r, func(ctx context.Context, _ catalog.Progress) (reconcileAnswer, error) {
		if s.reconciler == nil {
			return reconcileAnswer{}, errNoCredentials
		}
		status, err := do(ctx)
		return answerReconcile(status), err
	}, s.refuseTruth)
}

var errNoCredentials = errors.New("this sidecar doesn't reconcile; set --scalekit-url, --scalekit-client-id and --scalekit-client-secret-file")

func (s *sidecar) refuseTruth(err error) *listener.Error {
	refused := &listener.Error{Status: http.StatusServiceUnavailable, Code: "reconcile_failed", Message: err.Error(), RetryAfter: time.Second}
	switch {
	case errors.Is(err, errNoCredentials):
		refused.Code = "no_credentials"
	case errors.Is(err, scalekit.ErrHeldBack):
		refused.Code = "held_back"
		refused.Message = fmt.Sprintf("%v; if Scalekit's list is right: postern catalog accept %s", err, s.reconciler.Status().Drift.ListingDigest)
	}
	return refused
}
