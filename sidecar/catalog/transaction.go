package catalog

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// transaction applies states to the file within one write transaction, and keeps the
// account of what that changed. Each application reads and computes everything first and
// writes afterwards, so that one that fails leaves its neighbors' work whole.
type transaction struct {
	meta, states, bearers, names table

	header   header
	began    header                      // as the file had it
	touched  bool                        // some state changed
	roles    *roles                      // that replace those before, or nil
	before   map[string]permission.State // see step
	wasEmpty bool                        // see step

	events     *simplelru.LRU[string, eventKey] // of earlier commits
	eventsHere map[string]eventKey              // of this one
	// broken is the error of a write that failed: nothing of the transaction may be committed.
	broken error
}

func newTransaction(tx *bbolt.Tx, events *simplelru.LRU[string, eventKey], touched touchedKeys) (*transaction, error) {
	t := &transaction{
		meta:       newTable(tx, bucketMeta, touched),
		states:     newTable(tx, bucketStates, touched),
		bearers:    newTable(tx, bucketBearers, touched),
		names:      newTable(tx, bucketNames, touched),
		before:     map[string]permission.State{},
		events:     events,
		eventsHere: map[string]eventKey{},
	}
	first, _ := t.names.Cursor().First()
	t.wasEmpty = first == nil
	var err error
	t.header, err = readHeader(t.meta.Bucket)
	t.began = t.header
	return t, err
}

// changed reports whether the coming revision differs from the previous one at all.
func (t *transaction) changed() bool { return t.touched || t.roles != nil || t.header != t.began }

// finish writes the header of the coming revision.
func (t *transaction) finish() error {
	t.header.revision++
	if string(t.meta.Get(keyFormat)) != formatVersion {
		t.must(t.meta.Put(keyFormat, []byte(formatVersion)))
	}
	t.must(putHeader(t.meta, t.header))
	return t.broken
}

// applyAll applies the requests of a group one after the other. It returns an error when
// nothing of the group may be committed.
func (t *transaction) applyAll(group []request) ([]result, error) {
	results := make([]result, 0, len(group))
	for _, r := range group {
		outcome, err := r.apply(t)
		if t.broken != nil {
			return nil, t.broken
		}
		results = append(results, result{outcome, err})
	}
	return results, nil
}

// remember keeps the ids of the events that are durable now.
func (t *transaction) remember(events *simplelru.LRU[string, eventKey]) {
	for id, seen := range t.eventsHere {
		events.Add(id, seen)
	}
}

func (t *transaction) applyEvent(s permission.State) (permission.Outcome, error) {
	changed, err := t.apply(s)
	if err != nil {
		return "", err
	}
	key := keyOf(s)
	if t.seen(key) {
		changed = true
	}
	earlier, known := t.eventsHere[s.EventID]
	if !known {
		earlier, known = t.events.Get(s.EventID)
	}
	if !known {
		t.eventsHere[s.EventID] = key
	}
	switch {
	case known && earlier != key:
		return permission.OutcomeConflict, nil
	case known:
		return permission.OutcomeDuplicate, nil
	case changed:
		return permission.OutcomeApplied, nil
	default:
		return permission.OutcomeUnchanged, nil
	}
}

// seen notes an event, and reports whether it is the newest by now.
func (t *transaction) seen(key eventKey) bool {
	newer := t.header.newest.olderThan(key)
	if newer {
		t.header.newest = key
	}
	return newer
}

// apply merges s into the state of its id and settles anew who decides for the names
// that are touched by it. It reports whether the state changed.
func (t *transaction) apply(s permission.State) (bool, error) {
	old, had, err := readState(t.states.Bucket, []byte(s.ID))
	if err != nil {
		return false, err
	}
	merged := s
	if had {
		merged = permission.Merge(old, s)
	}
	if had && merged == old {
		return false, nil
	}
	var decisions []decision
	for _, name := range namesOf(old, had, merged) {
		d, err := t.decide(name, old, merged)
		if err != nil {
			return false, err
		}
		decisions = append(decisions, d)
	}
	t.write(old, had, merged, decisions)
	return true, t.broken
}

func namesOf(old permission.State, had bool, merged permission.State) []string {
	if had && old.Name != merged.Name {
		return []string{old.Name, merged.Name}
	}
	return []string{merged.Name}
}

// decision is who decided for a name before an application, and who does after it; the
// zero state where nobody does.
type decision struct {
	name    string
	was, is permission.State
}

func (t *transaction) decide(name string, old, merged permission.State) (decision, error) {
	others, err := bearersOf(t.states.Bucket, t.bearers.Bucket, name, merged.ID)
	if err != nil {
		return decision{}, err
	}
	return decision{
		name: name,
		was:  permission.Decides(withBearer(others, old, name)),
		is:   permission.Decides(withBearer(others, merged, name)),
	}, nil
}

func withBearer(others []permission.State, s permission.State, name string) []permission.State {
	if s.Name != name {
		return others
	}
	return append(others[:len(others):len(others)], s)
}

// bearersOf returns the states of the ids other than except that bear name.
func bearersOf(states, bearers *bbolt.Bucket, name, except string) ([]permission.State, error) {
	var others []permission.State
	prefix := bearerKey(name, "")
	cursor := bearers.Cursor()
	for key, _ := cursor.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = cursor.Next() {
		id := key[len(prefix):]
		if string(id) == except {
			continue
		}
		s, found, err := readState(states, id)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("permission %.64q bears the name %.64q but has no state", id, name)
		}
		others = append(others, s)
	}
	return others, nil
}

// write puts down what apply computed. Its errors break the whole transaction, since
// they leave it half written.
func (t *transaction) write(old permission.State, had bool, merged permission.State, decisions []decision) {
	id := []byte(merged.ID)
	t.must(t.states.Put(id, seal(bucketStates, id, encodeState(merged))))
	if had && old.Name != merged.Name {
		t.must(t.bearers.Delete(bearerKey(old.Name, merged.ID)))
	}
	if !had || old.Name != merged.Name {
		t.must(t.bearers.Put(bearerKey(merged.Name, merged.ID), nil))
	}
	for _, d := range decisions {
		t.record(d)
	}
	t.touched = true
}

func (t *transaction) must(err error) {
	if t.broken == nil {
		t.broken = err
	}
}

// record puts down a decision in the file and in the account of what changed.
func (t *transaction) record(d decision) {
	if d.was == d.is {
		return
	}
	name := []byte(d.name)
	switch {
	case d.is == (permission.State{}):
		t.must(t.names.Delete(name))
	case d.is.ID != d.was.ID: // else it stands there already, and a page less is written
		t.must(t.names.Put(name, seal(bucketNames, name, []byte(d.is.ID))))
	}
	if d.was.Live() {
		t.header.count--
		t.header.digest = t.header.digest.Minus(d.was.Content)
	}
	if d.is.Live() {
		t.header.count++
		t.header.digest = t.header.digest.Plus(d.is.Content)
	}
	if _, noted := t.before[d.name]; !noted && !t.wasEmpty {
		t.before[d.name] = d.was
	}
}
