package scalekit_test

import (
	"errors"
	"testing"

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
