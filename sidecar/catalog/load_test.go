package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

var admin = permission.Role{ID: "role_1", Name: "admin", Permissions: []string{"many:1", "many:2"}}

func manyRepair(n int) Repair {
	return Repair{States: manyStates(n).states, Roles: []permission.Role{admin}, Complete: true}
}

// A large repair into an empty catalog is one revision, and what a small one would have made.
func TestALargeRepairIsOneRevision(t *testing.T) {
	dir := t.TempDir()
	c, single := openHooked(t, dir, hooks{}, 10), openHooked(t, t.TempDir(), hooks{}, 10)
	before := c.sight()
	r := manyRepair(loadsFrom)
	slices.Reverse(r.States)
	changed, err := c.Repair(context.Background(), r, nil)
	if err != nil || changed != loadsFrom {
		t.Fatalf("changed %d, %v", changed, err)
	}
	if at := c.Sync(); at.Revision != 1 || !at.Complete || at.Count != loadsFrom {
		t.Errorf("got %+v", at)
	}
	if got := before.Sync(); got.Revision != 0 || got.Complete {
		t.Errorf("the revision before says %+v", got)
	}
	if e, err := c.lookup(before.snapshot, "many:1"); e != nil || err != nil {
		t.Errorf("a question from before finds %v, %v", e, err)
	}
	if live, err := c.whole(context.Background(), before.snapshot, livePermissions); err != nil || live.Len() != 0 {
		t.Errorf("a question from before finds %d permissions, %v", live.Len(), err)
	}
	if e, err := c.lookup(c.current.Load(), "many:1"); err != nil || e.permission() == nil {
		t.Errorf("a question afterwards finds %v, %v", e, err)
	}
	for part := range slices.Chunk(r.States, 1000) {
		if _, err := single.Repair(context.Background(), Repair{States: part, Roles: r.Roles, Complete: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := dumpedStates(t, c), dumpedStates(t, single); got != want {
		t.Error("the dumps differ")
	}
	mustApply(t, c, described(permission.Deleted, 9, "many:1", ""))
	compareWithFile(t, c, dir)
}

// dumpedStates returns a dump without its header.
func dumpedStates(t *testing.T, c *Catalog) string {
	t.Helper()
	_, lines, _ := strings.Cut(dumpLines(t, c), "\n")
	return lines
}

// Each step fails in turn. But for the last one, which comes when the repair is visible,
// nothing of it is there; the catalog goes on, and the next try succeeds.
func TestABrokenOffLoadChangesNothing(t *testing.T) {
	for _, at := range []string{"copy", "sync", "catch up", "rename", "sync directory"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			breaks, armed := breaksAt(at)
			c := openHooked(t, dir, breaks, 10)
			fill(t, c, 20)
			before := c.Sync()
			armed.Store(true)
			if _, err := c.loadRepair(context.Background(), manyRepair(50), Progress(nil).orNone()); !errors.Is(err, errInjected) {
				t.Fatalf("got %v", err)
			}
			if got := c.Sync(); (got == before) != (at != "sync directory") {
				t.Errorf("got %+v, before it was %+v", got, before)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("left behind: %v", entries)
			}
			restarted := openHooked(t, copyDirectory(t, dir), hooks{}, 10)
			if got := restarted.Sync(); got != c.Sync() {
				t.Errorf("a restart finds %+v, want %+v", got, c.Sync())
			}
			mustApply(t, c, described(permission.Created, 5, "afterwards", "x"))
			if _, err := c.loadRepair(context.Background(), manyRepair(50), Progress(nil).orNone()); err != nil {
				t.Fatal(err)
			}
			if got := c.Sync(); got.Count != 71 || !got.Complete {
				t.Errorf("got %+v", got)
			}
			compareWithFile(t, c, dir)
		})
	}
}

func TestACancelledLoadLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	c := openHooked(t, dir, hooks{}, 10)
	cancelling := func(int64, int64) { cancel() }
	if _, err := c.Repair(ctx, manyRepair(2*loadsFrom), cancelling); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 || c.Sync().Revision != 0 {
		t.Errorf("left behind: %v, %+v", entries, c.Sync())
	}
}

// What is acknowledged while a load is under way is in it, whatever else the load says.
func TestEventsDuringALoadAreNeverLost(t *testing.T) {
	dir := t.TempDir()
	var c *Catalog
	var during sight
	c = openHooked(t, dir, hooks{step: func(step string) error {
		if step == "sync" {
			mustApply(t, c, described(permission.Deleted, 2, "many:1", ""), described(permission.Created, 2, "other", "event"))
			during = c.sight()
		}
		return nil
	}}, 10)
	if _, err := c.loadRepair(context.Background(), manyRepair(5), Progress(nil).orNone()); err != nil {
		t.Fatal(err)
	}
	if got := c.Sync(); got.Revision != 3 || got.Count != 5 || got.EventID != "evt_many:1_2" {
		t.Errorf("got %+v", got)
	}
	for name, want := range map[string]string{"many:1": "deleted", "many:2": "nothing", "other": "live"} {
		e, err := c.lookup(during.snapshot, name)
		got := map[bool]string{true: "nothing", false: "deleted"}[e == nil]
		if e.permission() != nil {
			got = "live"
		}
		if err != nil || got != want {
			t.Errorf("a question between finds %s %s, %v, want %s", name, got, err, want)
		}
	}
	compareWithFile(t, c, dir)
}

func TestRolesAreReplacedAsAWhole(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 10)
	set := func(list ...permission.Role) error {
		if list == nil {
			list = []permission.Role{}
		}
		_, err := c.Repair(context.Background(), Repair{Roles: list}, nil)
		return err
	}
	viewer := permission.Role{ID: "role_2", Name: "viewer"}
	if err := set(); err != nil || c.Sync().Revision != 0 {
		t.Errorf("no roles made revision %d, %v", c.Sync().Revision, err)
	}
	if err := set(viewer, admin); err != nil {
		t.Fatal(err)
	}
	before := c.sight()
	if err := set(admin, viewer); err != nil || c.Sync().Revision != 1 {
		t.Errorf("the same roles in another order made revision %d, %v", c.Sync().Revision, err)
	}
	if err := set(permission.Role{ID: "role_1", Name: "admin", Permissions: []string{"many:2"}}); err != nil || c.Sync().Revision != 2 {
		t.Errorf("revision %d, %v", c.Sync().Revision, err)
	}
	if got := before.roles.document.Len(); got != 2 {
		t.Errorf("the revision before has %d roles", got)
	}
	got, err := evaluate(c, `data.scalekit.roles.admin`)
	if want := ast.MustParseTerm(`{"id":"role_1","name":"admin","permissions":["many:2"]}`); err != nil || ast.MustInterfaceToValue(got).Compare(want.Value) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	for want, list := range map[string][]permission.Role{
		`role "admin" comes twice`:           {admin, {ID: "role_9", Name: "admin"}},
		`role "admin": id: want`:             {{Name: "admin"}},
		"want at most 10000, got 10001":      slices.Repeat([]permission.Role{admin}, 10_001),
		"want each once, in ascending order": {{ID: "role_1", Name: "r", Permissions: []string{"b", "a"}}},
	} {
		if err := set(list...); err == nil || !strings.Contains(err.Error(), want) || c.Sync().Revision != 2 {
			t.Errorf("got %v at revision %d, want %q", err, c.Sync().Revision, want)
		}
	}
	text := dumpLines(t, c)
	compareWithFile(t, c, dir)
	reopened := openHooked(t, dir, hooks{}, 10)
	if got := reopened.current.Load().roles.list; len(got) != 1 || !slices.Equal(got[0].Permissions, []string{"many:2"}) {
		t.Errorf("a restart finds %v", got)
	}
	from, err := ReadDump(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	other := openHooked(t, t.TempDir(), hooks{}, 10)
	if _, err := other.Restore(context.Background(), from, nil); err != nil {
		t.Fatal(err)
	}
	if got := dumpedStates(t, other); got != strings.SplitN(text, "\n", 2)[1] || !strings.Contains(got, "role_1") {
		t.Errorf("the dump of a restored dump is %s", got)
	}
	if _, err := ReadDump(strings.NewReader(text[:strings.LastIndex(text, `{"role_id"`)])); err == nil || !strings.Contains(err.Error(), "announces 1 roles and 0 came") {
		t.Errorf("a cut-off dump: %v", err)
	}
}

// A role and a permission that change in one commit are seen together or not at all.
func TestRolesAndPermissionsAreOfOneRevision(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	change := func(version int) {
		s := described(permission.Updated, int64(version), "a", fmt.Sprint(version)).State()
		role := permission.Role{ID: fmt.Sprint("role_", version), Name: "admin"}
		if _, err := c.Repair(context.Background(), Repair{States: []permission.State{s}, Roles: []permission.Role{role}}, nil); err != nil {
			t.Error(err)
		}
	}
	change(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for version := 2; version < 300; version++ {
			change(version)
		}
	}()
	for torn := 0; torn < 3; {
		got, err := evaluate(c, `[data.scalekit.roles.admin.id, data.scalekit.permissions.a.description]`)
		pair, ok := got.([]any)
		if err != nil || !ok || pair[0] != "role_"+fmt.Sprint(pair[1]) {
			t.Errorf("got %v, %v", got, err)
			torn++
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestTheStateIsNoRevision(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 1)
	before := c.sight()
	c.SetState(StateFresh)
	c.SetState(StateFresh)
	if got := c.Sync(); got.State != StateFresh || got.StateGeneration != 1 || got.Revision != 0 {
		t.Errorf("got %+v", got)
	}
	if got := before.Sync(); got.State != StateUnverified {
		t.Errorf("a question from before sees %s", got.State)
	}
	if got, err := evaluate(c, `data.scalekit.sync.state`); err != nil || got != "fresh" {
		t.Errorf("got %v, %v", got, err)
	}
	if before.document() == c.sight().document() || c.sight().document() != c.sight().document() {
		t.Error("the document isn't made once for each state")
	}
}

// A file of the format before is read, and becomes one of this format with the next commit.
func TestTheFormatBefore(t *testing.T) {
	dir := t.TempDir()
	c := openHooked(t, dir, hooks{}, 1)
	mustApply(t, c, described(permission.Created, 1, "a", "old"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, c.path, putFormat(formatBefore))
	c = openHooked(t, dir, hooks{}, 1)
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "old" {
		t.Errorf("got %q", got)
	}
	format := func() (found string) {
		err := c.view(func(tx *bbolt.Tx) error {
			found = string(tx.Bucket(bucketMeta).Get(keyFormat))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := format(); got != formatBefore {
		t.Errorf("reading made it %s", got)
	}
	mustApply(t, c, described(permission.Updated, 2, "a", "new"))
	if got := format(); got != formatVersion {
		t.Errorf("a commit left it %s", got)
	}
	compareWithFile(t, c, dir)
}

// Roles that somebody else stored while a load was under way: questions see what a restart finds.
func TestRolesThatChangeDuringALoad(t *testing.T) {
	dir := t.TempDir()
	var c *Catalog
	viewer := permission.Role{ID: "role_2", Name: "viewer"}
	set := func(role permission.Role) {
		if _, err := c.Repair(context.Background(), Repair{Roles: []permission.Role{role}}, nil); err != nil {
			t.Error(err)
		}
	}
	c = openHooked(t, dir, hooks{step: func(step string) error {
		if step == "sync" {
			set(viewer)
		}
		return nil
	}}, 10)
	for want, roles := range map[string][]permission.Role{"admin": {admin}, "viewer": nil} {
		set(admin)
		if _, err := c.loadRepair(context.Background(), Repair{States: manyStates(5).states, Roles: roles}, Progress(nil).orNone()); err != nil {
			t.Fatal(err)
		}
		restarted := openHooked(t, copyDirectory(t, dir), hooks{}, 10)
		if got, found := c.current.Load().roles.list, restarted.current.Load().roles.list; len(got) != 1 || got[0].Name != want || found[0].Name != want {
			t.Errorf("want %s: questions see %v, a restart finds %v", want, got, found)
		}
	}
}

// Any states before, any events meanwhile: the load leads to what single commits lead to, and
// whoever was pinned before or meanwhile goes on seeing what there was.
func TestALoadBetweenAnyEvents(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		draw := func(label string) (states []permission.State) {
			for _, e := range permissiontest.Histories().Draw(rt, label) {
				states = append(states, e.State())
			}
			return states
		}
		before, repair, meanwhile := draw("before"), draw("repair"), draw("meanwhile")
		for _, claim := range permissiontest.Claims().Draw(rt, "claims") {
			repair = append(repair, claim.State())
		}
		names := map[string]bool{"nobody": true}
		for _, s := range slices.Concat(before, repair, meanwhile) {
			names[s.Name] = true
		}
		var c *Catalog
		look := func(at *snapshot) string {
			var text strings.Builder
			for _, name := range slices.Sorted(maps.Keys(names)) {
				e, err := c.lookup(at, name)
				fmt.Fprintln(&text, name, e.permission(), e.deletion(), err)
			}
			for _, which := range []collection{livePermissions, deletedPermissions} {
				all, err := c.build(context.Background(), at, which)
				fmt.Fprintln(&text, all, err)
			}
			return text.String()
		}
		pinned := map[*snapshot]string{}
		submit := func(states []permission.State) {
			for _, s := range states {
				if _, err := c.Repair(context.Background(), Repair{States: []permission.State{s}}, nil); err != nil {
					rt.Error(err)
				}
				at := c.current.Load()
				pinned[at] = look(at)
			}
		}
		c = openHooked(t, dir, hooks{step: func(step string) error {
			if step == "sync" {
				submit(meanwhile)
			}
			return nil
		}}, 3)
		pinned[c.current.Load()] = look(c.current.Load())
		if _, err := c.Repair(context.Background(), Repair{States: before}, nil); err != nil {
			rt.Fatal(err)
		}
		pinned[c.current.Load()] = look(c.current.Load())
		if _, err := c.loadRepair(context.Background(), Repair{States: repair}, Progress(nil).orNone()); err != nil {
			rt.Fatal(err)
		}
		for at, want := range pinned {
			if got := look(at); got != want {
				rt.Errorf("revision %d: got\n%s\nwant\n%s", at.sync.Revision, got, want)
			}
		}
		loaded := c.current.Load().sync
		if report, err := c.Verify(context.Background(), nil); err != nil || len(report.Problems) > 0 {
			rt.Errorf("got %+v, %v", report, err)
		}
		if err := c.Close(); err != nil {
			rt.Fatal(err)
		}
		if found := openHooked(t, dir, hooks{}, 1).current.Load().sync; found != loaded {
			rt.Errorf("a restart finds %+v, want %+v", found, loaded)
		}
	})
}

// A repair changes what it tells of: roles alone leave the catalog complete, and permissions
// alone leave the roles, in one commit or by a load.
func TestARepairLeavesWhatItDoesNotTellOf(t *testing.T) {
	for name, again := range map[string]int{"a commit": 6, "a load": loadsFrom} {
		t.Run(name, func(t *testing.T) {
			c := openHooked(t, t.TempDir(), hooks{}, 10)
			for _, r := range []Repair{
				manyRepair(5),
				{States: manyStates(again).states},
				{Roles: []permission.Role{admin, {ID: "role_2", Name: "viewer"}}},
			} {
				if _, err := c.Repair(context.Background(), r, nil); err != nil {
					t.Fatal(err)
				}
				if roles := c.sight().roles.document.Len(); roles == 0 || !c.Sync().Complete {
					t.Errorf("%d roles, complete: %v", roles, c.Sync().Complete)
				}
			}
			if got := c.Sync(); got.Count != uint64(again) || got.Revision != 3 {
				t.Errorf("got %+v", got)
			}
		})
	}
}
