package scalekit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

func TestTheFirstListingFillsTheCatalogAtOnce(t *testing.T) {
	s := newScene(t)
	if s.catalog.state != scalekit.StateBootstrapping {
		t.Errorf("got %s before", s.catalog.state)
	}
	s.vendor.lists(1, shown("perm_1", "a", "", 0), shown("perm_2", "b", "", 0))
	s.vendor.roles = []permission.Role{{ID: "role_1", Name: "admin", Permissions: []string{"a"}}}
	status := s.reconcile()
	s.allows("a", "b")
	if !s.catalog.complete || len(s.catalog.roles) != 1 || s.catalog.state != scalekit.StateFresh || status.State != scalekit.StateFresh {
		t.Errorf("complete %v, roles %v, state %s", s.catalog.complete, s.catalog.roles, s.catalog.state)
	}
	if status.Drift.Missing.Count != 2 || !status.Drift.Applied {
		t.Errorf("got %+v", status.Drift)
	}
}

func TestAnEmptyScalekitIsAWholeListing(t *testing.T) {
	s := newScene(t)
	if s.reconcile(); !s.catalog.complete {
		t.Error("not complete")
	}
}

// Each case is a story of webhooks and listings, and what policies find in the end.
func TestRepairs(t *testing.T) {
	const c, u, d = permission.Created, permission.Updated, permission.Deleted
	for name, story := range map[string]struct {
		tell func(s *scene)
		want []string
	}{
		"one listing that misses a permission proves nothing": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(1)
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"a", "b"}},
		"two do": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
			s.vendor.lists(1.5, shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"b"}},
		"not of a permission that is newer than the first of them": {func(s *scene) {
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
			s.event(c, "perm_1", "a", "", 1.2)
			s.vendor.lists(1.5, shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"a", "b"}},
		"not of one that the listing in between named": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
			s.vendor.lists(2, shown("perm_1", "a", "", 0), shown("perm_2", "b", "", 0))
			s.reconcile()
			s.vendor.lists(3, shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"a", "b"}},
		"an event that comes meanwhile and is newer wins": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
			s.vendor.lists(1.5, shown("perm_2", "b", "", 0))
			s.vendor.during = func() { s.event(u, "perm_1", "a", "again", 1.4) }
			s.reconcile()
		}, []string{"a", "b"}},
		"a listing revives what listings missed": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			for minute := 1.0; minute < 3; minute++ {
				s.vendor.lists(minute, shown("perm_2", "b", "", 0))
				s.reconcile()
			}
			s.vendor.lists(4, shown("perm_1", "a", "", 0), shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"a", "b"}},
		"a newer event revives it, too": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			for minute := 1.0; minute < 3; minute++ {
				s.vendor.lists(minute, shown("perm_2", "b", "", 0))
				s.reconcile()
			}
			s.event(u, "perm_1", "a", "", 4)
		}, []string{"a", "b"}},
		"one listing doesn't revive what an event deleted": {func(s *scene) {
			s.event(d, "perm_1", "a", "", 0)
			s.vendor.lists(5, shown("perm_1", "a", "", 0))
			s.reconcile()
		}, []string{}},
		"nor do two within a minute": {func(s *scene) {
			s.event(d, "perm_1", "a", "", 0)
			s.vendor.lists(5, shown("perm_1", "a", "", 0))
			s.reconcile()
			s.vendor.lists(5.9, shown("perm_1", "a", "", 0))
			s.reconcile()
		}, []string{}},
		"two that are a minute apart do": {func(s *scene) {
			s.event(d, "perm_1", "a", "", 0)
			s.vendor.lists(5, shown("perm_1", "a", "", 0))
			s.reconcile()
			s.vendor.lists(6, shown("perm_1", "a", "", 0))
			s.reconcile()
		}, []string{"a"}},
		"a deletion between them stays": {func(s *scene) {
			s.vendor.lists(5, shown("perm_1", "a", "", 0))
			s.reconcile()
			s.event(d, "perm_1", "a", "", 5.5)
			s.vendor.lists(6, shown("perm_1", "a", "", 0))
			s.reconcile()
		}, []string{}},
		"a deletion and creation of one name, both lost": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(3, shown("perm_2", "a", "", 2))
			s.reconcile()
			s.vendor.lists(4, shown("perm_2", "a", "", 2))
			s.reconcile()
		}, []string{"a"}},
		"a deletion of the old id that is dated later than the new one": {func(s *scene) {
			s.event(d, "perm_1", "a", "", 2.1)
			s.vendor.lists(3, shown("perm_2", "a", "", 2))
			s.reconcile()
			s.vendor.lists(4, shown("perm_2", "a", "", 2))
			s.reconcile()
			s.vendor.lists(5, shown("perm_2", "a", "", 2))
			s.reconcile()
		}, []string{"a"}},
		"a restart between two listings begins anew": {func(s *scene) {
			s.event(c, "perm_1", "a", "", 0)
			s.vendor.lists(1, shown("perm_2", "b", "", 0))
			s.reconcile()
			s.reconciler = s.restart()
			s.vendor.lists(2, shown("perm_2", "b", "", 0))
			s.reconcile()
		}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			story.tell(s)
			s.allows(story.want...)
		})
	}
}

func TestContentThatDiffers(t *testing.T) {
	describes := func(s *scene, want string, source permission.Source) {
		s.Helper()
		if got := s.names()["a"]; got.Description != want || got.Source != source {
			s.Errorf("got %q by %s, want %q by %s", got.Description, got.Source, want, source)
		}
	}
	t.Run("what the API changed later is taken at once", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Created, "perm_1", "a", "old", 0)
		s.vendor.lists(3, shown("perm_1", "a", "new", 1))
		s.reconcile()
		describes(s, "new", permission.SourceReconcile)
	})
	t.Run("what an event changed later stays, until two listings a minute apart agree", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Updated, "perm_1", "a", "event", 2)
		for _, minute := range []float64{3, 3.5} {
			s.vendor.lists(minute, shown("perm_1", "a", "listing", 1))
			s.reconcile()
			describes(s, "event", permission.SourceWebhook)
		}
		s.vendor.lists(4, shown("perm_1", "a", "listing", 1))
		s.reconcile()
		describes(s, "listing", permission.SourceReconcile)
	})
	t.Run("two listings that disagree begin anew", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Updated, "perm_1", "a", "event", 2)
		for minute, text := range map[float64]string{3: "one", 4: "two"} {
			s.vendor.lists(minute, shown("perm_1", "a", text, 1))
			s.reconcile()
		}
		describes(s, "event", permission.SourceWebhook)
	})
	t.Run("an event of the same content keeps its provenance", func(t *testing.T) {
		s := newScene(t)
		s.event(permission.Created, "perm_1", "a", "same", 0)
		s.vendor.lists(3, shown("perm_1", "a", "same", 2))
		if status := s.reconcile(); status.Drift != nil {
			t.Errorf("got %+v", status.Drift)
		}
		describes(s, "same", permission.SourceWebhook)
	})
}

// twenty permissions that came by webhooks.
func twenty(s *scene) (all []permission.State) {
	for i := range 20 {
		id, name := fmt.Sprintf("perm_%02d", i), fmt.Sprintf("n%02d", i)
		s.event(permission.Created, id, name, "", 0)
		all = append(all, shown(id, name, "", 0))
	}
	return all
}

func TestALoudDifferenceIsHeldBack(t *testing.T) {
	for name, test := range map[string]struct {
		listed   int // of twenty
		heldBack bool
	}{
		"an empty list":         {0, true},
		"eleven of twenty gone": {9, true},
		"ten of twenty gone":    {10, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			all := twenty(s)
			for _, minute := range []float64{1, 2} {
				s.vendor.lists(minute, all[:test.listed]...)
				_, err := s.reconciler.Reconcile(t.Context())
				if errors.Is(err, scalekit.ErrHeldBack) != test.heldBack {
					t.Fatalf("got %v", err)
				}
			}
			if live, complete := s.catalog.Standing(); test.heldBack && (live != 20 || complete) || !test.heldBack && live != 10 {
				t.Errorf("%d left, complete %v", live, complete)
			}
			if status := s.reconciler.Status(); status.Drift.HeldBack != test.heldBack || status.Drift.Applied == test.heldBack {
				t.Errorf("got %+v", status.Drift)
			}
		})
	}
}

// An operator copies the digest from the log to `postern catalog accept`.
func TestTheLogTellsTheDigestToAccept(t *testing.T) {
	s := newScene(t)
	all := twenty(s)
	s.vendor.lists(1, all[:5]...)
	if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`"listing_digest":%q`, s.reconciler.Status().Drift.ListingDigest)
	if got := strings.Count(s.log.String(), want); got != 2 {
		t.Errorf("want %s in the line of the difference and in that of what to do, got:\n%s", want, &s.log)
	}
}

func TestAcceptingByDigest(t *testing.T) {
	s := newScene(t)
	all := twenty(s)
	s.vendor.lists(1, all[:5]...)
	_, err := s.reconciler.Reconcile(t.Context())
	if !errors.Is(err, scalekit.ErrHeldBack) {
		t.Fatal(err)
	}
	held, err := permission.ParseDigest(s.reconciler.Status().Drift.ListingDigest)
	if err != nil {
		t.Fatal(err)
	}
	s.vendor.lists(2, all[:4]...) // it changed since
	if _, err := s.reconciler.Accept(t.Context(), held); !errors.Is(err, scalekit.ErrHeldBack) {
		t.Fatalf("another listing was applied: %v", err)
	}
	s.vendor.lists(3, all[:5]...)
	if _, err := s.reconciler.Accept(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	s.vendor.lists(4, all[:5]...)
	s.reconcile()
	if live, _ := s.catalog.Standing(); live != 5 {
		t.Errorf("%d left", live)
	}
	twenty(s)
	for i := range 15 { // they come back, and are gone again
		s.event(permission.Updated, fmt.Sprintf("perm_%02d", 5+i), fmt.Sprintf("n%02d", 5+i), "", 5)
	}
	s.vendor.lists(6, all[:5]...)
	if _, err := s.reconciler.Reconcile(t.Context()); !errors.Is(err, scalekit.ErrHeldBack) {
		t.Errorf("what was accepted once was applied twice: %v", err)
	}
}

func TestAFailureLeavesTheCatalog(t *testing.T) {
	s := newScene(t)
	s.event(permission.Created, "perm_1", "a", "", 0)
	s.vendor.fail = &scalekit.APIError{Kind: "unreachable"}
	status, err := s.reconciler.Reconcile(t.Context())
	if err == nil || s.catalog.commits != 0 || status.Failure.Kind != "unreachable" || status.Failure.InARow != 1 {
		t.Errorf("got %v, %d commits, %+v", err, s.catalog.commits, status.Failure)
	}
	s.vendor.fail, s.vendor.deny = nil, &scalekit.APIError{Kind: "forbidden"}
	s.vendor.lists(1, shown("perm_1", "a", "", 0))
	status, err = s.reconciler.Reconcile(t.Context())
	if err == nil || !s.catalog.complete || status.Failure.Kind != "forbidden" || status.Failure.InARow != 2 || s.catalog.state != scalekit.StateStale {
		t.Errorf("without roles: got %v, complete %v, state %s, %+v", err, s.catalog.complete, s.catalog.state, status.Failure)
	}
	s.vendor.deny = nil
	if s.reconcile(); s.catalog.state != scalekit.StateFresh || s.reconciler.Status().Failure != nil {
		t.Errorf("got %s", s.catalog.state)
	}
}

func TestTheScheduleOfAWorkingDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		v, c := s.vendor, s.catalog
		v.permissions = []permission.State{shown("perm_1", "a", "", -1)}
		r := s.scheduled(5*time.Minute, 12*time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		change := func(do func()) {
			v.Lock()
			defer v.Unlock()
			do()
		}
		expect := func(after time.Duration, listings int, state scalekit.State) (commits int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			v.Lock()
			defer v.Unlock()
			c.Lock()
			defer c.Unlock()
			if v.listings != listings || c.state != state {
				t.Fatalf("got %d listings and %s, want %d and %s", v.listings, c.state, listings, state)
			}
			return c.commits
		}
		expect(time.Second, 1, scalekit.StateFresh)
		expect(5*time.Minute, 2, scalekit.StateFresh)
		r.Ask()
		expect(time.Second, 3, scalekit.StateFresh)
		change(func() { v.fail = &scalekit.APIError{Kind: "rate_limited", RetryAfter: 8 * time.Minute} })
		expect(5*time.Minute, 4, scalekit.StateFresh)
		expect(4*time.Minute, 4, scalekit.StateFresh)
		expect(3*time.Minute+time.Second, 4, scalekit.StateStale)
		change(func() { v.fail = nil })
		expect(2*time.Minute, 5, scalekit.StateFresh)
		change(func() { v.lists(30, shown("perm_2", "b", "", 20)) })
		r.Ask()
		expect(time.Second, 6, scalekit.StateFresh)
		change(func() { v.clock = at(30.5) })
		commits := expect(15*time.Second, 7, scalekit.StateFresh) // to confirm the absence
		if live, _ := c.Standing(); live != 1 {
			t.Errorf("%d permissions are left", live)
		}
		for range 10 {
			r.RolesChanged()
			if now := expect(time.Second, 7, scalekit.StateFresh); now != commits {
				t.Errorf("%d commits while role events came", now-commits)
			}
		}
		if now := expect(3*time.Second, 7, scalekit.StateFresh); now != commits+1 {
			t.Errorf("%d commits behind role events, want one", now-commits)
		}
		cancel()
		synctest.Wait()
	})
}
