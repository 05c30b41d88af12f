package catalog

import (
	"fmt"
	"testing"

	"github.com/postern-authz/postern/sidecar/permission"
)

// A flood of names that nobody bears pushes out no record, and takes no more memory than its
// own bound.
func TestAFloodOfUnknownNamesLeavesTheKnownOnes(t *testing.T) {
	const size, known = 80, 50
	c := openHooked(t, t.TempDir(), hooks{}, size)
	for i := range known {
		mustApply(t, c, described(permission.Created, 1, fmt.Sprint("known:", i), "x"))
	}
	at := c.current.Load()
	ask := func(name string) {
		t.Helper()
		if _, err := c.lookup(at, name); err != nil {
			t.Fatal(err)
		}
	}
	for i := range known {
		ask(fmt.Sprint("known:", i))
	}
	for i := range 10_000 {
		ask(fmt.Sprint("unknown:", i))
	}
	if got := c.hot.absent.Len(); got != size/absentShare {
		t.Errorf("%d unknown names are remembered", got)
	}
	before := c.Figures()
	for i := range known {
		ask(fmt.Sprint("known:", i))
	}
	ask("unknown:9999")
	if after := c.Figures(); after.Hits-before.Hits != known+1 || after.Misses != before.Misses {
		t.Errorf("from %+v to %+v", before, after)
	}
}

// A name that was remembered as absent is found once it is created, the first one of an
// empty catalog included.
func TestAnAbsentNameIsFoundOnceItIsCreated(t *testing.T) {
	c := openHooked(t, t.TempDir(), hooks{}, 100)
	for _, name := range []string{"first", "second"} {
		for range 2 {
			if got := descriptionAt(t, c, c.current.Load(), name); got != "" {
				t.Errorf("%s: got %q", name, got)
			}
		}
		mustApply(t, c, described(permission.Created, 1, name, "created"))
		if got := descriptionAt(t, c, c.current.Load(), name); got != "created" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// An absent name is read from the file, a commit creates it, and the reader fills in that it
// is absent: the next question must find it all the same.
func TestAStaleAbsenceIsNotFilledIn(t *testing.T) {
	var c *Catalog
	created := false
	c = openHooked(t, t.TempDir(), hooks{afterRead: func() {
		if !created {
			created = true
			mustApply(t, c, described(permission.Created, 1, "a", "created"))
		}
	}}, 100)
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "" {
		t.Errorf("the pinned revision says %q", got)
	}
	if got := descriptionAt(t, c, c.current.Load(), "a"); got != "created" {
		t.Errorf("the newest revision says %q", got)
	}
}
