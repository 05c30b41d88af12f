package catalog

import "github.com/open-policy-agent/opa/v1/ast"

// State says how far the catalog can be trusted to be whole.
type State string

// The states of a catalog.
const (
	StateUnverified    State = "unverified"    // webhooks alone can't prove that none was lost
	StateBootstrapping State = "bootstrapping" // no listing was ever applied
	StateFresh         State = "fresh"         // it was held against a listing lately
	StateStale         State = "stale"         // it was not
)

// trust is a state from one change to the next. It isn't a part of a revision, and nothing
// of it is on disk.
type trust struct {
	state      State
	generation uint64
}

// SetState says how far the catalog can be trusted from now on. Questions that were pinned
// before go on with what they saw.
func (c *Catalog) SetState(s State) {
	for {
		old := c.trust.Load()
		if old.state == s {
			return
		}
		if c.trust.CompareAndSwap(old, &trust{s, old.generation + 1}) {
			c.changes.announce()
			return
		}
	}
}

// sight is what a question sees: a revision, and the state beside it.
type sight struct {
	*snapshot
	trust *trust
}

func (c *Catalog) sight() sight {
	t := c.trust.Load()
	return sight{c.current.Load(), t}
}

// Sync returns what the revision says of itself.
func (p sight) Sync() Sync {
	s := p.sync
	s.State, s.StateGeneration = p.trust.state, p.trust.generation
	return s
}

// syncDocument is data.scalekit.sync of a sight, made once for each pair that is asked about.
type syncDocument struct {
	trust *trust
	value ast.Value
}

func (p sight) document() ast.Value {
	made := p.told.Load()
	if made == nil || made.trust != p.trust {
		made = &syncDocument{p.trust, syncValue(p.Sync())}
		p.told.Store(made)
	}
	return made.value
}
