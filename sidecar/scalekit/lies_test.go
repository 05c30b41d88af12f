package scalekit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
		r := s.scheduled(5*time.Minute, 12*time.Minute)
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

// A page out of a cache is as old as its Date, and so is the listing that it is a part of.
func TestTheOldestPageDatesTheListing(t *testing.T) {
	a := newAPI(t)
	a.permissions = oneAfterTheOther(
		failing(200, permissionPage("second", 3, listed("perm_1", "a")), "Date: Mon, 15 Jan 2024 10:30:05 GMT"),
		failing(200, permissionPage("third", 3, listed("perm_2", "b")), "Date: Mon, 15 Jan 2024 09:30:00 GMT"),
		failing(200, permissionPage("", 3, listed("perm_3", "c")), "Date: Mon, 15 Jan 2024 10:30:00 GMT"),
	)
	got, err := newClient(t, configOf(a.URL)).Permissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Began.String() != "2024-01-15T09:30:00.000000000Z" || got.Ended.String() != "2024-01-15T10:30:05.000000000Z" {
		t.Errorf("got %s to %s", got.Began, got.Ended)
	}
}

// What is dated later than the answer that tells it would win over all events until then.
func TestTimesAheadOfTheAnswerAreTakenBack(t *testing.T) {
	a := newAPI(t)
	a.permissions = answering(permissionPage("", 2,
		`{"id":"perm_1","name":"a","create_time":"2100-01-01T00:00:00Z","update_time":"2100-01-02T00:00:00Z"}`,
		`{"id":"perm_2","name":"b","update_time":"2024-01-15T10:30:00.9Z"}`))
	got, err := newClient(t, configOf(a.URL)).Permissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const end = "2024-01-15T10:30:00.999999999Z" // of the second that Date names
	if s := got.States[0]; s.OccurredAt.String() != end || s.CreatedAt.String() != end {
		t.Errorf("got %s and %s", s.OccurredAt, s.CreatedAt)
	}
	if s := got.States[1]; s.OccurredAt.String() != "2024-01-15T10:30:00.900000000Z" || s.CreatedAt != 0 {
		t.Errorf("got %s and %s", s.OccurredAt, s.CreatedAt)
	}
}

// One listing with a Date ahead of all others must not confirm anything, nor date it.
func TestAClockThatWentBackBeginsAnew(t *testing.T) {
	s := newScene(t)
	b := shown("perm_2", "b", "", 0)
	s.event(permission.Created, "perm_1", "a", "", 0)
	s.vendor.lists(1e6, b)
	s.reconcile()
	s.vendor.lists(1, b)
	s.reconcile()
	s.allows("a", "b")
	s.vendor.lists(2, b)
	s.reconcile()
	s.allows("b")
	s.vendor.lists(3, shown("perm_1", "a", "", 0), b)
	s.reconcile()
	s.allows("a", "b")
}

// Two ids of one name would take it from each other for ever.
func TestANameThatIsListedTwiceStaysWhereItIs(t *testing.T) {
	s := newScene(t)
	one, two := shown("perm_1", "a", "one", 0), shown("perm_2", "a", "two", 0)
	s.vendor.lists(1, one, two)
	s.reconcile()
	first := s.names()["a"]
	for _, minute := range []float64{3, 5, 7} {
		s.vendor.lists(minute, one, two)
		s.reconcile()
		if got := s.names()["a"]; got != first {
			t.Errorf("after %v minutes %+v, at first %+v", minute, got, first)
		}
	}
}

// Roles that can't be listed behind an event are asked for again, when Scalekit wants it.
func TestRolesWaitAsLongAsTheyAreAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		r := s.scheduled(24*time.Hour, 48*time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		go r.Run(ctx)
		synctest.Wait()
		set := func(denied error) {
			s.vendor.Lock()
			defer s.vendor.Unlock()
			s.vendor.roles, s.vendor.deny = []permission.Role{{ID: "role_1", Name: "admin"}}, denied
		}
		expect := func(after time.Duration, roles int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			s.vendor.Lock()
			defer s.vendor.Unlock()
			s.catalog.Lock()
			defer s.catalog.Unlock()
			if s.vendor.listings != 1 || len(s.catalog.roles) != roles {
				t.Errorf("got %d listings and %d roles, want 1 and %d", s.vendor.listings, len(s.catalog.roles), roles)
			}
		}
		set(&scalekit.APIError{Kind: scalekit.KindRateLimited, RetryAfter: time.Hour})
		r.RolesChanged()
		expect(time.Minute, 0)
		set(nil)
		r.RolesChanged()
		expect(58*time.Minute, 0)
		expect(2*time.Minute, 1)
		stop()
		synctest.Wait()
	})
}

// Date is cut to the second, so that what an event says of that very instant is newer.
func TestAnEventOfTheListingsOwnInstantIsNewer(t *testing.T) {
	b := shown("perm_2", "b", "", 0)
	t.Run("than an absence", func(t *testing.T) {
		s := newScene(t)
		s.vendor.lists(0.5, b)
		s.reconcile()
		s.event(permission.Created, "perm_1", "a", "", 1)
		s.vendor.lists(1, b)
		if status := s.reconcile(); status.Drift.Surplus.Count != 0 || status.Drift.Waiting != 0 {
			t.Errorf("got %+v", status.Drift)
		}
	})
	t.Run("than the first of two absences", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Created, "perm_1", "a", "", 0)
		s.vendor.lists(1, b)
		s.reconcile()
		s.event(permission.Updated, "perm_1", "a", "", 1)
		s.vendor.lists(1.5, b)
		s.reconcile()
		s.allows("a", "b")
	})
	t.Run("than other content", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Updated, "perm_1", "a", "event", 1)
		s.vendor.lists(1, shown("perm_1", "a", "listing", 0))
		if status := s.reconcile(); status.Drift != nil {
			t.Errorf("got %+v", status.Drift)
		}
	})
	t.Run("than the first of two other contents", func(t *testing.T) {
		s := newScene(t)
		listing := shown("perm_1", "a", "listing", 0)
		s.event(permission.Updated, "perm_1", "a", "old", 0.5)
		s.vendor.lists(1, listing)
		s.reconcile()
		s.event(permission.Updated, "perm_1", "a", "event", 1)
		s.vendor.lists(3, listing)
		s.reconcile()
		if got := s.names()["a"].Description; got != "event" {
			t.Errorf("got %q", got)
		}
	})
}

// Two listings say that an id was gone when the first of them began, and nothing of later.
func TestAnEventBetweenTwoListingsThatArrivesAfterThemWins(t *testing.T) {
	s := newScene(t)
	b := shown("perm_2", "b", "", 0)
	s.event(permission.Created, "perm_1", "a", "", 0)
	for _, minute := range []float64{1, 2} {
		s.vendor.lists(minute, b)
		s.reconcile()
	}
	s.allows("b")
	s.event(permission.Updated, "perm_1", "a", "", 1.5)
	s.allows("a", "b")
}

func TestOtherContentOfTheSameInstantIsTakenFromTheSecondListing(t *testing.T) {
	for minute, want := range map[float64]string{3: "event", 4: "listing"} {
		s := newScene(t)
		s.event(permission.Updated, "perm_1", "a", "event", 2)
		for _, listing := range []float64{3, 4} {
			if listing <= minute {
				s.vendor.lists(listing, shown("perm_1", "a", "listing", 2))
				s.reconcile()
			}
		}
		if got := s.names()["a"].Description; got != want {
			t.Errorf("after minute %v: got %q, want %q", minute, got, want)
		}
	}
}

// A name that is taken away by renaming is as gone as one that isn't listed.
func TestRenamesCountAsRemovals(t *testing.T) {
	for name, updated := range map[string]float64{"changed later than the events": 0.5, "changed before": -1} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			all := twenty(s)
			for i := range 11 {
				all[i] = shown(all[i].ID, "renamed:"+all[i].Name, "", updated)
			}
			s.vendor.lists(1, all...)
			if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestADeletionBetweenTwoListingsThatArrivesAfterThemWins(t *testing.T) {
	s := newScene(t)
	s.event(permission.Deleted, "perm_1", "a", "", 0)
	for _, minute := range []float64{5, 6} {
		s.vendor.lists(minute, shown("perm_1", "a", "", -1))
		s.reconcile()
	}
	s.allows("a")
	s.event(permission.Deleted, "perm_1", "a", "", 5.5)
	s.allows()
}

// A mark that came between two listings, by a restored dump, is newer than the first one: the
// id was alive then.
func TestAMarkBetweenTwoListingsIsNewerThanTheFirst(t *testing.T) {
	for name, mark := range map[string]permission.Marks{"seen": {SeenAt: at(11)}, "confirmed": {ConfirmedAt: at(11)}} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			kept := shown("perm_2", "b", "", 0)
			s.event(permission.Created, "perm_1", "a", "", 0)
			for _, minute := range []float64{10, 12} {
				s.vendor.lists(minute, kept)
				s.reconcile()
				s.allows("a", "b")
				marked := s.catalog.states["perm_1"]
				marked.Marks = mark
				s.catalog.states["perm_1"] = marked
			}
			s.vendor.lists(13, kept)
			s.reconcile()
			s.allows("b")
		})
	}
}

// A listing that isn't newer than those that missed an id says nothing new by naming it.
func TestAListingOfTheSameInstantDoesNotRevive(t *testing.T) {
	s := newScene(t)
	again := shown("perm_1", "a", "", 0)
	gone := again
	gone.AbsentAt = at(10)
	s.catalog.states["perm_1"] = gone
	s.vendor.lists(10, again)
	s.reconcile()
	s.allows()
	s.vendor.lists(10.1, again)
	s.reconcile()
	s.allows("a")
}
