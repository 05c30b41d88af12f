package catalog

import (
	"context"
	"fmt"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// simulation is a catalog beside the history that it was told, of which the oracle makes a
// map of names.
type simulation struct {
	t       *testing.T
	dir     string
	size    int // of the LRU
	catalog *Catalog
	history []permission.Event
	pins    []pin
}

// pin is a revision that a question holds, and what it must go on saying.
type pin struct {
	at   *snapshot
	want permissiontest.Outcome
}

// Commits, questions of old and new revisions, compactions and restarts in any order: each
// question finds what the oracle says of its revision.
func TestSimulation(t *testing.T) {
	for _, size := range []int{1, 3, 1000} {
		t.Run(fmt.Sprint("LRU of ", size), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := &simulation{t: t, dir: t.TempDir(), size: size}
				s.open(rt)
				rt.Repeat(map[string]func(*rapid.T){
					"commit": s.commit, "again": s.redeliver, "pin": s.pin, "read": s.read, "whole": s.whole, "page": s.page,
					"compact": s.compact, "restart": s.restart, "load": s.load,
				})
				if err := s.catalog.Close(); err != nil {
					rt.Fatal(err)
				}
				if err := inspectFile(context.Background(), s.catalog.path); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

func (s *simulation) open(rt *rapid.T) {
	c, err := Open(context.Background(), Options{
		Dir: s.dir, EnvironmentID: permissiontest.EnvironmentID, LRUSize: s.size, MaxDocument: Limit{1000, 1 << 20}, Eager: true,
	})
	if err != nil {
		rt.Fatal(err)
	}
	s.catalog, s.pins = c, nil
	s.pin(rt)
}

func (s *simulation) commit(rt *rapid.T) {
	group := rapid.SliceOfN(permissiontest.Events(), 1, 4).Draw(rt, "group")
	s.history = append(s.history, group...)
	applyTogether(rt, s.catalog, group)
	s.pin(rt)
}

func (s *simulation) redeliver(rt *rapid.T) {
	if len(s.history) == 0 {
		rt.Skip("nothing was delivered")
	}
	before := s.catalog.Sync()
	applyTogether(rt, s.catalog, []permission.Event{rapid.SampledFrom(s.history).Draw(rt, "event")})
	if after := s.catalog.Sync(); after != before {
		rt.Fatalf("a repeated event led from %+v to %+v", before, after)
	}
}

func (s *simulation) pin(*rapid.T) {
	s.pins = append(s.pins, pin{s.catalog.current.Load(), permissiontest.Fold(s.history)})
}

func (s *simulation) read(rt *rapid.T) {
	p := rapid.SampledFrom(s.pins).Draw(rt, "pin")
	name := rapid.SampledFrom([]string{"a", "b", "a:b", "unknown"}).Draw(rt, "name")
	e, err := s.catalog.lookup(p.at, name)
	if err != nil {
		rt.Fatal(err)
	}
	compareEntry(rt, name, e, p.want.Names)
	if p.at.sync.Digest.String() != p.want.Digest || p.at.sync.EventID != p.want.NewestEventID {
		rt.Fatalf("got %+v, want %+v", p.at.sync, p.want)
	}
}

func (s *simulation) whole(rt *rapid.T) {
	p := rapid.SampledFrom(s.pins).Draw(rt, "pin")
	live, err := s.catalog.whole(context.Background(), p.at, livePermissions)
	if err != nil || live.Len() != p.want.Live {
		rt.Fatalf("%v, %v, want %d", live, err, p.want.Live)
	}
	deleted, err := s.catalog.whole(context.Background(), p.at, deletedPermissions)
	if err != nil || deleted.Len() != len(p.want.Names)-p.want.Live {
		rt.Fatalf("%v, %v, want %d", deleted, err, len(p.want.Names)-p.want.Live)
	}
	for name, want := range p.want.Names {
		if (live.Get(ast.StringTerm(name)) != nil) != want.Live || (deleted.Get(ast.StringTerm(name)) != nil) == want.Live {
			rt.Fatalf("%s: want %+v", name, want)
		}
	}
}

func (s *simulation) page(rt *rapid.T) {
	page, err := s.catalog.List(context.Background(), "", 10)
	if err != nil {
		rt.Fatal(err)
	}
	want := permissiontest.Fold(s.history)
	if len(page.Permissions) != want.Live {
		rt.Fatalf("got %+v, want %d", page, want.Live)
	}
}

func (s *simulation) compact(rt *rapid.T) {
	if _, err := s.catalog.Compact(context.Background(), nil); err != nil {
		rt.Fatal(err)
	}
}

// load applies events as a large repair is applied, some of them while it is under way.
func (s *simulation) load(rt *rapid.T) {
	events := rapid.SliceOfN(permissiontest.Events(), 1, 6).Draw(rt, "loaded")
	meanwhile := rapid.SliceOfN(permissiontest.Events(), 0, 3).Draw(rt, "meanwhile")
	var r Repair
	for _, e := range events {
		r.States = append(r.States, e.State())
	}
	at := rapid.SampledFrom([]string{"copy", "sync"}).Draw(rt, "at")
	s.catalog.hooks.step = func(step string) error {
		if step == at && len(meanwhile) > 0 {
			s.history = append(s.history, meanwhile...)
			applyTogether(rt, s.catalog, meanwhile)
			s.pin(rt)
		}
		return nil
	}
	before := s.catalog.Sync().Revision
	if _, err := s.catalog.loadRepair(context.Background(), r, Progress(nil).orNone()); err != nil {
		rt.Fatal(err)
	}
	s.catalog.hooks.step = nil
	s.history = append(s.history, events...)
	s.pin(rt)
	if after := s.catalog.Sync().Revision; after != before+1 && after != before+2 {
		rt.Fatalf("from revision %d to %d", before, after)
	}
}

func (s *simulation) restart(rt *rapid.T) {
	before := s.catalog.Sync()
	if err := s.catalog.Close(); err != nil {
		rt.Fatal(err)
	}
	s.open(rt)
	if after := s.catalog.Sync(); after != before {
		rt.Fatalf("before the restart %+v, behind it %+v", before, after)
	}
}
