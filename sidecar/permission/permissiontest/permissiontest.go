// Package permissiontest helps tests of the merge rule: it draws random histories that
// are full of its hard cases, and folds them with an oracle that was written from the
// rule's text and shares no code with package permission.
package permissiontest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"sort"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
)

// EnvironmentID is the environment of every drawn event.
const EnvironmentID = "env_test"

// Histories draws events of few ids, few names and few instants, so that names are shared
// between ids, ids change names, instants collide, deletions come before what they delete,
// and one event id comes with two contents.
func Histories() *rapid.Generator[[]permission.Event] {
	return rapid.SliceOfN(Events(), 0, 24)
}

// Events draws the single events of [Histories].
func Events() *rapid.Generator[permission.Event] { return rapid.Custom(drawEvent) }

func drawEvent(t *rapid.T) permission.Event {
	return permission.Event{
		ID:            fmt.Sprint("evt_", rapid.IntRange(0, 12).Draw(t, "event")),
		Kind:          rapid.SampledFrom([]permission.Kind{permission.Created, permission.Updated, permission.Deleted}).Draw(t, "kind"),
		OccurredAt:    permission.Instant(1_700_000_000_000_000_000 + rapid.Int64Range(0, 5).Draw(t, "instant")),
		EnvironmentID: EnvironmentID,
		PermissionID:  fmt.Sprint("perm_", rapid.IntRange(0, 3).Draw(t, "id")),
		Name:          rapid.SampledFrom([]string{"a", "b", "a:b"}).Draw(t, "name"),
		Description:   rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "description"),
	}
}

// Record is what the oracle says of a name.
type Record struct {
	Live        bool
	ID          string
	Description string // of a live permission
	OccurredAt  int64
	EventID     string
	CreatedAt   int64 // of a live permission; zero: never seen
}

// Outcome is what the oracle says of a history.
type Outcome struct {
	Names         map[string]Record
	Digest        string // 64 hexadecimal digits
	Live          int
	NewestEventID string
}

// Fold folds a history the slow and obvious way.
func Fold(history []permission.Event) Outcome {
	byID := map[string][]permission.Event{}
	for _, e := range history {
		byID[e.PermissionID] = append(byID[e.PermissionID], e)
	}
	bearing := map[string][]permission.Event{}
	created := map[string]int64{}
	for id, events := range byID {
		decisive := events
		if deletions := ofKind(events, permission.Deleted); len(deletions) > 0 {
			decisive = deletions
		}
		last := greatest(decisive)
		bearing[last.Name] = append(bearing[last.Name], last)
		for _, e := range ofKind(events, permission.Created) {
			if at, seen := created[id]; !seen || int64(e.OccurredAt) < at {
				created[id] = int64(e.OccurredAt)
			}
		}
	}
	return outcome(bearing, created, history)
}

func outcome(bearing map[string][]permission.Event, created map[string]int64, history []permission.Event) Outcome {
	o := Outcome{Names: map[string]Record{}}
	sum := new(big.Int)
	for name, events := range bearing {
		last := greatest(events)
		r := Record{ID: last.PermissionID, OccurredAt: int64(last.OccurredAt), EventID: last.ID}
		if r.Live = last.Kind != permission.Deleted; r.Live {
			r.Description, r.CreatedAt = last.Description, created[last.PermissionID]
			o.Live++
			content := contentOf(last)
			sum.Add(sum, new(big.Int).SetBytes(content[:]))
		}
		o.Names[name] = r
	}
	o.Digest = fmt.Sprintf("%064x", sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 256)))
	if len(history) > 0 {
		o.NewestEventID = greatest(history).ID
	}
	return o
}

func ofKind(events []permission.Event, kind permission.Kind) (matching []permission.Event) {
	for _, e := range events {
		if e.Kind == kind {
			matching = append(matching, e)
		}
	}
	return matching
}

// greatest sorts by the key as the rule tells it.
func greatest(events []permission.Event) permission.Event {
	rank := map[permission.Kind]int{permission.Created: 0, permission.Updated: 1, permission.Deleted: 2}
	sorted := append([]permission.Event(nil), events...)
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		if a.OccurredAt != b.OccurredAt {
			return a.OccurredAt < b.OccurredAt
		}
		if a.Kind != b.Kind {
			return rank[a.Kind] < rank[b.Kind]
		}
		if a.ID != b.ID {
			return a.ID < b.ID
		}
		contentA, contentB := contentOf(a), contentOf(b)
		return string(contentA[:]) < string(contentB[:])
	})
	return sorted[len(sorted)-1]
}

func contentOf(e permission.Event) [32]byte {
	var message []byte
	for _, part := range []string{e.PermissionID, e.Name, e.Description} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		message = append(append(message, length[:]...), part...)
	}
	return sha256.Sum256(message)
}
