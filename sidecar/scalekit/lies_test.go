package scalekit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

// All that there is is newer than the listing, so that nothing of it counts as a difference.
func TestAnEmptyListThatIsOlderThanEverythingIsHeldBackWithItsDigest(t *testing.T) {
	s := newScene(t)
	s.event(permission.Created, "perm_1", "a", "", 2)
	s.vendor.lists(1)
	status, err := s.reconciler.Reconcile(t.Context())
	if !errors.Is(err, scalekit.ErrHeldBack) || status.Drift == nil || !status.Drift.HeldBack || status.Drift.ListingDigest != (permission.Digest{}).String() {
		t.Fatalf("got %v, %+v", err, status.Drift)
	}
	if _, err := s.reconciler.Accept(t.Context(), permission.Digest{1}); !errors.Is(err, scalekit.ErrHeldBack) {
		t.Errorf("got %v", err)
	}
	s.allows("a")
}

// An acceptance is for the list as it stood: not for the same one another day, least of all for
// an empty one.
func TestAnAcceptanceEndsWithTheNextOtherListing(t *testing.T) {
	s := newScene(t)
	all := twenty(s)
	s.vendor.lists(1)
	if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
		t.Fatal(err)
	}
	s.vendor.lists(2, all...) // Scalekit recovers before the operator is done
	if _, err := s.reconciler.Accept(t.Context(), permission.Digest{}); err != nil {
		t.Fatal(err)
	}
	for _, minute := range []float64{1000, 1001} {
		s.vendor.lists(minute)
		if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
			t.Fatalf("got %v", err)
		}
	}
	if live, _ := s.catalog.Standing(); live != 20 {
		t.Errorf("%d left", live)
	}
}

// A list that removes little needs no acceptance, and uses one up all the same.
func TestAnAcceptanceThatWasNotNeededIsUsedUp(t *testing.T) {
	s := newScene(t)
	all := twenty(s)
	s.vendor.lists(1, all[:5]...)
	few, err := s.reconciler.Reconcile(t.Context())
	if !errors.Is(err, scalekit.ErrHeldBack) {
		t.Fatal(err)
	}
	digest, err := permission.ParseDigest(few.Drift.ListingDigest)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range all[5:] {
		s.event(permission.Deleted, state.ID, state.Name, "", 2)
	}
	s.vendor.lists(3, all[:5]...)
	if _, err := s.reconciler.Accept(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	for i, state := range all[5:] {
		s.event(permission.Created, "perm_again_"+state.ID, state.Name, "", 4+float64(i)/100)
	}
	for _, minute := range []float64{5, 6} {
		s.vendor.lists(minute, all[:5]...)
		if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
			t.Errorf("got %v", err)
		}
	}
}

// Whoever asks and hangs up again and again neither puts off the next reconciliation nor makes
// the catalog look fresh.
func TestHangingUpLeavesTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		r, err := scalekit.NewReconciler(scalekit.Config{
			Source: s.vendor, Catalog: s.catalog, Interval: 5 * time.Minute, StaleAfter: 12 * time.Minute, MaxDrift: 0.2,
			Now: time.Now, Random: func() float64 { return 0.5 }, Logger: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go r.Run(ctx)
		synctest.Wait()
		s.vendor.Lock()
		s.vendor.fail = fmt.Errorf("asking: %w", context.Canceled)
		s.vendor.Unlock()
		gone, hangUp := context.WithCancel(ctx)
		hangUp()
		for range 13 {
			if _, err := r.Reconcile(gone); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			time.Sleep(time.Minute)
		}
		s.catalog.Lock()
		if s.catalog.state != scalekit.StateStale {
			t.Errorf("got %s", s.catalog.state)
		}
		s.catalog.Unlock()
		s.vendor.Lock()
		if scheduled := s.vendor.listings - 1 - 13; scheduled == 0 {
			t.Error("no reconciliation came by the schedule")
		}
		s.vendor.Unlock()
		stop()
		synctest.Wait()
	})
}
