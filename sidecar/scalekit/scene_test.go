package scalekit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

// The hour that every test begins in, by Scalekit's clock and by ours.
var noon = time.Date(2024, 1, 15, 12, 0, 0, 0, time.UTC)

func at(minute float64) permission.Instant {
	return permission.InstantOf(noon.Add(time.Duration(minute * float64(time.Minute))))
}

// vendor is a Scalekit that lists what the test says, one page of which takes no time.
type vendor struct {
	sync.Mutex
	permissions []permission.State
	roles       []permission.Role
	clock       permission.Instant
	fail, deny  error // of the permissions, of the roles
	listings    int
	during      func() // what happens while the list is read
}

func (v *vendor) Permissions(context.Context) (*scalekit.Listing, error) {
	v.Lock()
	defer v.Unlock()
	v.listings++
	if v.fail != nil {
		return nil, v.fail
	}
	listed := slices.Clone(v.permissions)
	slices.SortFunc(listed, func(a, b permission.State) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	l := &scalekit.Listing{States: listed, Began: v.clock, Ended: v.clock, Pages: 1}
	if v.during != nil {
		v.during()
	}
	return l, nil
}

func (v *vendor) Roles(context.Context) ([]permission.Role, error) {
	v.Lock()
	defer v.Unlock()
	return v.roles, v.deny
}

// lists has the vendor list exactly these from now on.
func (v *vendor) lists(minute float64, all ...permission.State) {
	v.clock, v.permissions = at(minute), all
}

func shown(id, name, description string, updated float64) permission.State {
	return permission.State{
		ID: id, Name: name, Description: description, Kind: permission.Updated, OccurredAt: at(updated), CreatedAt: at(updated),
		Source: permission.SourceReconcile, Content: permission.ContentDigest(id, name, description),
	}
}

// shelf is a catalog in memory that merges as the real one does.
type shelf struct {
	sync.Mutex
	states   map[string]permission.State
	roles    []permission.Role
	complete bool
	state    scalekit.State
	commits  int
}

func (c *shelf) bearers(name string) (all []permission.State) {
	for _, s := range c.states {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

func (c *shelf) States(_ context.Context, each func(permission.State, bool) error) error {
	c.Lock()
	defer c.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.states)) {
		s := c.states[id]
		if err := each(s, permission.Decides(c.bearers(s.Name)) == s); err != nil {
			return err
		}
	}
	return nil
}

func (c *shelf) Repair(_ context.Context, states []permission.State, roles []permission.Role, complete bool) (changed int, err error) {
	c.Lock()
	defer c.Unlock()
	for _, s := range states {
		if c.take(s) {
			changed++
		}
	}
	if roles != nil {
		c.roles = roles
	}
	c.complete = c.complete || complete
	c.commits++
	return changed, nil
}

func (c *shelf) take(s permission.State) bool {
	old, had := c.states[s.ID]
	if had {
		s = permission.Merge(old, s)
	}
	c.states[s.ID] = s
	return s != old
}

func (c *shelf) Standing() (live uint64, complete bool) {
	c.Lock()
	defer c.Unlock()
	for _, s := range c.states {
		if s.Live() && permission.Decides(c.bearers(s.Name)) == s {
			live++
		}
	}
	return live, c.complete
}

func (c *shelf) SetState(s scalekit.State) {
	c.Lock()
	defer c.Unlock()
	c.state = s
}

// scene is a vendor, a catalog, and who reconciles them.
type scene struct {
	*testing.T
	vendor     *vendor
	catalog    *shelf
	reconciler *scalekit.Reconciler
	now        time.Time
	log        bytes.Buffer // lines of JSON
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{T: t, vendor: &vendor{clock: at(0)}, catalog: &shelf{states: map[string]permission.State{}}, now: noon}
	s.reconciler = s.restart()
	return s
}

// restart returns a reconciler that remembers nothing.
func (s *scene) restart() *scalekit.Reconciler {
	return s.newReconciler(5*time.Minute, 15*time.Minute, func() time.Time { return s.now })
}

// scheduled returns a reconciler that goes by the clock of the bubble. Run is for the test to call.
func (s *scene) scheduled(interval, staleAfter time.Duration) *scalekit.Reconciler {
	return s.newReconciler(interval, staleAfter, time.Now)
}

func (s *scene) newReconciler(interval, staleAfter time.Duration, now func() time.Time) *scalekit.Reconciler {
	s.Helper()
	r, err := scalekit.NewReconciler(scalekit.Config{
		Source: s.vendor, Catalog: s.catalog, Interval: interval, StaleAfter: staleAfter, MaxDrift: 0.2,
		Now: now, Random: func() float64 { return 0.5 },
		Logger: slog.New(slog.NewJSONHandler(&s.log, nil)), Meter: noop.Meter{},
	})
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// event is one that came by webhook.
func (s *scene) event(kind permission.Kind, id, name, description string, minute float64) {
	e := permission.Event{ID: fmt.Sprintf("evt_%g", minute), Kind: kind, OccurredAt: at(minute), PermissionID: id, Name: name, Description: description}
	s.catalog.take(e.State())
}

func (s *scene) reconcile() scalekit.Status {
	s.Helper()
	status, err := s.reconciler.Reconcile(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return status
}

// allows checks which names policies find.
func (s *scene) allows(want ...string) {
	s.Helper()
	got := []string{}
	for name := range s.names() {
		got = append(got, name)
	}
	slices.Sort(got)
	if !slices.Equal(got, append([]string{}, want...)) {
		s.Errorf("policies find %q, want %q", got, want)
	}
}

func (s *scene) names() map[string]permission.State {
	live := map[string]permission.State{}
	for _, state := range s.catalog.states {
		if decider := permission.Decides(s.catalog.bearers(state.Name)); decider.Live() {
			live[state.Name] = decider
		}
	}
	return live
}
