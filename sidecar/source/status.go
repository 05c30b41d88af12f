package source

import "time"

// Status is how the policy stands.
type Status struct {
	// Failure says why the newest content of the sources isn't in use; nil: it is, or is
	// awaited.
	Failure error
	Used    bool // some policy is in use
	Sources []OriginStatus
}

// OriginStatus is how one source stands.
type OriginStatus struct {
	Name     string
	Remote   bool      // a bundle URL
	Loaded   bool      // something usable came from it
	Revision string    // of what is in use of it
	Answered time.Time // when a server answered last with something good or nothing new; zero: not since the start
	Failure  error     // of the last attempt to get something newer
}

// Status tells how the policy stands.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Used: f.used}
	for _, o := range f.origins {
		at := OriginStatus{Name: o.place.name, Remote: o.remote != nil, Loaded: o.newest != nil, Answered: o.answered, Failure: o.failure}
		if o.active != nil {
			at.Revision = o.active.bundle.Revision()
		}
		if s.Failure == nil {
			s.Failure = o.failure
		}
		s.Sources = append(s.Sources, at)
	}
	if s.Failure == nil { // else what is known of all together may be about content that is gone
		s.Failure = f.failure
	}
	return s
}
