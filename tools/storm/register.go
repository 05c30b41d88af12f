package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/postern-authz/postern/sidecar/simulator"
)

// life is one id that the simulated Scalekit gave a name.
type life struct {
	id   string
	gone int // its deletion was first acknowledged, by the register's own clock; 0 is never
}

// register is the account of what was changed at the simulated Scalekit, and of the deletions
// that Postern acknowledged. A listing may tell Postern of a change before its webhook does,
// or take it for undone while pages are missing, so that of an allowed name just this can be
// said: it rests on an id that is newer than any of the name whose deletion was acknowledged.
type register struct {
	scalekit *simulator.Simulator

	mu    sync.Mutex // held while Scalekit changes, so that no answer rests on an id before it is here
	clock int
	lives map[string][]life // by name, in the order of their creation
	live  map[string]string // name → id, of those that exist at Scalekit
	shown int64             // the newest instant of a webhook that came

	deleted chan string // names to be asked about at once, since their deletion was acknowledged
	recent  []string    // the last of them
}

const (
	recently   = 16 // deletions that are asked about more than others
	mostUrgent = 64 // names that wait to be asked about
)

func newRegister() *register {
	return &register{lives: map[string][]life{}, live: map[string]string{}, deleted: make(chan string, mostUrgent)}
}

// create gives a name that is free a new id. It reports whether the name had one before.
func (r *register) create(name string) (reused bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.scalekit.Create(name, "")
	if err != nil {
		return false, fmt.Errorf("creating %s at Scalekit: %w", name, err)
	}
	reused = len(r.lives[name]) > 0
	r.lives[name] = append(r.lives[name], life{id: p.ID})
	r.live[name] = p.ID
	return reused, nil
}

func (r *register) update(name, description string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.scalekit.Update(r.live[name], simulator.Change{Description: &description}); err != nil {
		return fmt.Errorf("updating %s at Scalekit: %w", name, err)
	}
	return nil
}

func (r *register) delete(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.scalekit.Delete(r.live[name]); err != nil {
		return fmt.Errorf("deleting %s at Scalekit: %w", name, err)
	}
	delete(r.live, name)
	return nil
}

// bearer returns the id that bears a name at Scalekit, or "".
func (r *register) bearer(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[name]
}

// names returns every name that ever was, sorted.
func (r *register) names() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.lives {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// arrived notes a webhook that was acknowledged, and reports whether a newer one came before.
func (r *register) arrived(d simulator.Delivery) (late bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	late = int64(d.OccurredAt) < r.shown
	r.shown = max(r.shown, int64(d.OccurredAt))
	if d.Type != "permission.deleted" {
		return late
	}
	i := slices.IndexFunc(r.lives[d.Name], func(l life) bool { return l.id == d.SubjectID })
	if i < 0 || r.lives[d.Name][i].gone != 0 {
		return late
	}
	r.clock++
	r.lives[d.Name][i].gone = r.clock
	if r.recent = append(r.recent, d.Name); len(r.recent) > recently {
		r.recent = r.recent[1:]
	}
	select {
	case r.deleted <- d.Name:
	default: // the askers don't keep up
	}
	return late
}

// lately returns the names of the last deletions.
func (r *register) lately() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.recent)
}

func (r *register) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

// of returns the ids of a name, in the order of their creation.
func (r *register) of(name string) []life {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lives[name])
}

// goneBy returns how many of a name's ids, from the first to the last one whose deletion had
// been acknowledged at the moment of asking, must not allow it any more.
func goneBy(lives []life, asked int) (n int) {
	for i, l := range lives {
		if l.gone != 0 && l.gone <= asked {
			n = i + 1
		}
	}
	return n
}

// denials are the reasons for which a name may be denied to one who holds it while webhooks
// and listings tell less than the truth.
var denials = []string{"permission_deleted", "permission_unknown"}

// judgeAfterDeletions tells whether an answer about a name may be given, when those of its ids
// had been created by the time it came.
func judgeAfterDeletions(name string, lives []life, asked int, a answer) string {
	if !a.Decision {
		if len(a.Context.Reasons) == 1 && slices.Contains(denials, a.Context.Reasons[0]) {
			return ""
		}
		return fmt.Sprintf("asked about %s: got %s; want a deny for one of %s", name, a, strings.Join(denials, ", "))
	}
	at := -1
	if p := a.Context.Permission; p != nil && p.Name == name {
		at = slices.IndexFunc(lives, func(l life) bool { return l.id == p.ID })
	}
	if at < 0 {
		return fmt.Sprintf("asked about %s: got %s, and Scalekit never gave the name such an id", name, a)
	}
	if gone := goneBy(lives, asked); at < gone {
		return fmt.Sprintf("asked about %s: got %s, and the deletion of %s had been acknowledged", name, a, lives[gone-1].id)
	}
	return ""
}

// judgeTruth tells whether an answer about a name is the one that Scalekit's state leads to;
// bearer is the id that bears the name there, or "".
func judgeTruth(name, bearer string, a answer) string {
	rests := ""
	if a.Decision && a.Context.Permission != nil {
		rests = a.Context.Permission.ID
	}
	if a.Decision != (bearer != "") || rests != bearer {
		return fmt.Sprintf("after the storm, asked about %s: got %s; at Scalekit it is borne by %q", name, a, bearer)
	}
	return ""
}

// judgeAgreement tells how a sidecar's standing differs from Scalekit's.
func judgeAgreement(digest string, count int, got syncAnswer) string {
	if got.Digest != digest || got.Count != count || got.State != "fresh" {
		return fmt.Sprintf("Scalekit has %d permissions of the digest %s, the sidecar says %+v", count, digest, got)
	}
	return ""
}
