package scalekit

import (
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	// contentApart is how far apart two listings must be to overrule what an event says: long
	// enough for a webhook that is on its way, and for a replica that lags.
	contentApart = permission.Instant(time.Minute)
	// contentAgain and absenceAgain are how soon another listing should confirm a finding.
	contentAgain = time.Minute + 2*time.Second
	absenceAgain = 15 * time.Second
	// mostRemembered bounds the findings that one listing leaves to the next, in permissions.
	mostRemembered = 10_000
)

// finding is what a listing said against the catalog, and what it takes another one to
// believe.
type finding struct {
	at      permission.Instant // of the first listing that said so
	content permission.Digest  // that it showed; zero: it didn't name the id
}

// memory is what listings said before.
type memory struct {
	began    permission.Instant // of the last listing
	digest   permission.Digest  // of it
	since    permission.Instant // the first listing of that digest, with none of another in between
	findings map[string]finding // by id, at most mostRemembered
}

// before returns when a listing first said of an id what this one says: the time of this
// one when none did.
func (c *comparer) before(id string, content permission.Digest) permission.Instant {
	if f, ok := c.memory.findings[id]; ok && f.content == content {
		return f.at
	}
	return c.plan.next.since // which is before this one if they name the same with the same content
}

// plan is what has to change for the catalog to agree with a listing.
type plan struct {
	states  []permission.State
	removes int           // names that policies would no longer find
	drift   Drift         // what differs, whether it can be believed yet or not
	waiting int           // differences that another listing has to confirm
	again   time.Duration // when that one should come; zero: any time
	next    memory
}

// held is a state of the catalog beside the listing.
type held struct {
	permission.State
	decides bool // for its name
}

// comparer goes through a listing and the catalog at once, both in the order of ids.
//
// What is compared is Scalekit's own clock alone: when an event occurred, when a permission
// was updated, and the earliest Date of the listing's pages, which is cut to the second.
type comparer struct {
	listing *Listing
	rest    []permission.State
	memory  memory
	plan    plan
	names   map[string]int // how often the listing names each; made when first asked
}

func newComparer(l *Listing, m memory) *comparer {
	if l.Began < m.began {
		m = memory{} // one of the two clocks is wrong, and what was said at a later time can't be confirmed
	}
	c := &comparer{listing: l, rest: l.States, memory: m}
	c.plan.next = memory{began: l.Began, digest: digestOf(l.States), since: l.Began, findings: map[string]finding{}}
	if m.since != 0 && m.digest == c.plan.next.digest {
		c.plan.next.since = m.since
	}
	return c
}

// meet takes the next state of the catalog.
func (c *comparer) meet(s permission.State, decides bool) error {
	for len(c.rest) > 0 && c.rest[0].ID < s.ID {
		c.missing(c.rest[0])
		c.rest = c.rest[1:]
	}
	h := held{s, decides}
	if len(c.rest) == 0 || c.rest[0].ID != s.ID {
		c.unlisted(h)
		return nil
	}
	listed := c.rest[0]
	c.rest = c.rest[1:]
	switch {
	case s.Absent():
		c.reappeared(h, listed)
	case !s.Live():
		c.undeleted(h, listed)
	case s.Content != listed.Content:
		c.different(h, listed)
	case !decides:
		c.overshadowed(h, listed)
	}
	return nil
}

// end returns the plan once the catalog has no more states.
func (c *comparer) end() plan {
	for _, s := range c.rest {
		c.missing(s)
	}
	c.rest = nil
	return c.plan
}

// missing: the catalog has never heard of the id.
func (c *comparer) missing(listed permission.State) {
	c.plan.drift.Missing.add(listed.Name)
	c.plan.states = append(c.plan.states, listed)
}

// unlisted: the catalog knows the id and the listing doesn't. Pages are no snapshot: a
// permission that was created while they were fetched may be missing from them, and so may one
// that moved to a page that was fetched already. So it takes two listings, and the id must have
// been silent since before the first of them began.
func (c *comparer) unlisted(h held) {
	if !h.Live() {
		return
	}
	first := c.before(h.ID, permission.Digest{})
	if h.lastShown() >= first {
		first = c.listing.Began
	}
	if h.lastShown() >= first {
		return // newer than the listing
	}
	if h.decides {
		c.plan.drift.Surplus.add(h.Name)
	}
	if first == c.listing.Began {
		c.remember(h.ID, finding{at: first}, absenceAgain)
		return
	}
	h.AbsentAt = first
	c.plan.states = append(c.plan.states, h.State)
	if h.decides {
		c.plan.removes++
	}
}

// reappeared: listings missed the id before, and now one names it.
func (c *comparer) reappeared(h held, listed permission.State) {
	if c.listing.Began <= h.AbsentAt {
		return
	}
	c.plan.drift.Missing.add(listed.Name)
	listed.SeenAt = c.listing.Began
	c.plan.states = append(c.plan.states, listed)
}

// undeleted: an event deleted the id, and the listing shows it alive.
func (c *comparer) undeleted(h held, listed permission.State) {
	if c.confirm(h, listed) {
		c.plan.drift.Missing.add(listed.Name)
	}
}

// different: both know the id, and say different things of it.
func (c *comparer) different(h held, listed permission.State) {
	if listed.OccurredAt > h.OccurredAt {
		c.plan.drift.Different.add(h.Name)
		c.plan.states = append(c.plan.states, listed)
		c.renames(h, listed)
		return
	}
	if c.confirm(h, listed) {
		c.plan.drift.Different.add(h.Name)
		c.renames(h, listed)
	}
}

// overshadowed: both say the same of the id, but another one decides for its name. Where the
// listing gives the name to several ids, it doesn't say which of them should.
func (c *comparer) overshadowed(h held, listed permission.State) {
	if c.timesNamed(listed.Name) == 1 && c.confirm(h, listed) {
		c.plan.drift.Missing.add(listed.Name)
	}
}

func (c *comparer) timesNamed(name string) int {
	if c.names == nil {
		c.names = make(map[string]int, len(c.listing.States))
		for _, s := range c.listing.States {
			c.names[s.Name]++
		}
	}
	return c.names[name]
}

// confirm has the listing overrule what the catalog holds, if one from at least a minute
// before said the same and nothing happened to the id since. It reports whether the two
// differ: not if the catalog knows something newer than the listing.
func (c *comparer) confirm(h held, listed permission.State) (differs bool) {
	first := c.before(h.ID, listed.Content)
	if h.OccurredAt >= first {
		first = c.listing.Began
	}
	if h.OccurredAt >= first {
		return false
	}
	if c.listing.Began-first < contentApart {
		c.remember(h.ID, finding{first, listed.Content}, contentAgain)
		return true
	}
	listed.ConfirmedAt = first
	c.plan.states = append(c.plan.states, listed)
	return true
}

// renames counts a name that policies no longer find.
func (c *comparer) renames(h held, listed permission.State) {
	if h.decides && h.Name != listed.Name {
		c.plan.removes++
	}
}

func (c *comparer) remember(id string, f finding, again time.Duration) {
	c.plan.waiting++
	if c.plan.again == 0 || again < c.plan.again {
		c.plan.again = again
	}
	if len(c.plan.next.findings) < mostRemembered {
		c.plan.next.findings[id] = f
	}
}

// lastShown is the newest that is known of the id, by any clock of Scalekit's.
func (h held) lastShown() permission.Instant { return max(h.OccurredAt, h.SeenAt, h.ConfirmedAt) }

// digestOf returns the digest that a catalog with just these permissions has.
func digestOf(states []permission.State) (sum permission.Digest) {
	for _, s := range states {
		sum = sum.Plus(s.Content)
	}
	return sum
}

// mostNames bounds the names that a difference is told with.
const mostNames = 100

// Names is how many permissions differ in one way, and which.
type Names struct {
	Count int      `json:"count"`
	Names []string `json:"names"` // the first 100
}

func (n *Names) add(name string) {
	n.Count++
	if len(n.Names) < mostNames {
		n.Names = append(n.Names, strings.Clone(name))
	}
}

// Drift is how the catalog differs from a listing.
type Drift struct {
	Missing   Names `json:"missing"`   // Scalekit has them, the catalog doesn't
	Surplus   Names `json:"surplus"`   // the catalog has them, Scalekit doesn't
	Different Names `json:"different"` // both have them, with another name or description
}

// Empty reports whether nothing differs.
func (d Drift) Empty() bool { return d.Missing.Count+d.Surplus.Count+d.Different.Count == 0 }
