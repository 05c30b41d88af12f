package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// check is one line of /readyz?verbose.
type check struct {
	name   string
	ok     bool
	detail string
}

// serveLive says that the process answers, and nothing that depends on anybody else: a
// restart would not mend it.
func (s *sidecar) serveLive(w http.ResponseWriter, r *http.Request) {
	writeChecks(w, r, []check{{"process", true, "up since " + s.startedAt.UTC().Format(time.RFC3339)}})
}

// serveStarted says that policy and catalog were loaded.
func (s *sidecar) serveStarted(w http.ResponseWriter, r *http.Request) {
	writeChecks(w, r, s.startChecks())
}

// serveReady says that questions are answered. It stays so while webhooks can't be
// written, and while Scalekit is away: decisions go on.
func (s *sidecar) serveReady(w http.ResponseWriter, r *http.Request) {
	checks := append(s.startChecks(), check{"shutdown", !s.stopping.Load(), "under way"})
	if !s.stopping.Load() {
		checks[len(checks)-1].detail = "not asked for"
	}
	writeChecks(w, r, append(checks, s.advice()...))
}

func (s *sidecar) startChecks() []check {
	at := s.catalog.Sync()
	return []check{
		{"bootstrap", s.bootstrapped.Load(), s.bootstrapDetail()},
		{"catalog", true, fmt.Sprintf("revision %d, %d permissions, epoch %s", at.Revision, at.Count, at.Epoch)},
		s.policyCheck(),
	}
}

func (s *sidecar) bootstrapDetail() string {
	switch {
	case !s.bootstrapped.Load():
		return "the first listing from Scalekit is awaited (--bootstrap-wait)"
	case s.reconciler == nil:
		return "not configured: no --scalekit-url"
	case s.awaitsTruth():
		return "--bootstrap-wait is over without a listing; see reconcile"
	}
	return "there is a catalog"
}

// reconcileCheck says how the reconciliation stands.
func (s *sidecar) reconcileCheck() check {
	at := s.reconciler.Status()
	detail := string(at.State)
	if !at.LastSuccess.IsZero() {
		detail += ", last success " + at.LastSuccess.UTC().Format(time.RFC3339)
	}
	if f := at.Failure; f != nil {
		detail += fmt.Sprintf(", FAILING (%d in a row): %s", f.InARow, f.Message)
	}
	if d := at.Drift; d != nil && d.HeldBack {
		detail += "; HELD BACK: listing " + d.ListingDigest
	}
	return check{"reconcile", true, detail}
}

// advice is what an operator should know and readiness doesn't depend on.
func (s *sidecar) advice() []check {
	notes := []check{{"writes", true, "the last commit succeeded, or none was needed"}}
	if err := s.catalog.WriteError(); err != nil {
		notes[0].detail = "FAILING, webhooks are answered 503: " + err.Error()
	}
	notes = append(notes, s.policyNotes()...)
	if aside := s.catalog.MovedAside(); aside != "" {
		notes = append(notes, check{"rebuilt", true, "at this start: what could not be used is now " + aside})
	}
	if s.receiver != nil {
		notes = append(notes, check{"clock", true, s.receiver.Clock()})
	}
	if s.reconciler != nil {
		notes = append(notes, s.reconcileCheck())
	}
	if s.tokens != nil {
		notes = append(notes, s.tokenCheck())
	}
	if !s.catalog.Sync().Complete {
		notes = append(notes, check{"complete", true, "no: a permission may exist whose events never came (--on-incomplete is " + s.config.onIncomplete + ")"})
	}
	return notes
}

// writeChecks answers in the form that Kubernetes' own components use.
func writeChecks(w http.ResponseWriter, r *http.Request, checks []check) {
	status, verdict := http.StatusOK, "ok"
	var lines strings.Builder
	for _, c := range checks {
		mark := "+"
		if !c.ok {
			mark, status, verdict = "-", http.StatusServiceUnavailable, "not ok"
		}
		fmt.Fprintf(&lines, "[%s]%s: %s\n", mark, c.name, c.detail)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if !r.URL.Query().Has("verbose") && status == http.StatusOK {
		lines.Reset()
	}
	_, _ = fmt.Fprintf(w, "%s%s\n", lines.String(), verdict) // the peer may have hung up
}
