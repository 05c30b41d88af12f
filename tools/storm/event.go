package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"time"
)

// kind is what happened to a permission. Its order is that of the merge rule.
type kind int

const (
	created kind = iota + 1
	updated
	deleted
)

func (k kind) String() string { return [...]string{"", "created", "updated", "deleted"}[k] }

// event is a permission event as it is sent. Two of one id may say different things.
type event struct {
	id          string
	kind        kind
	at          int64 // Unix nanoseconds
	permission  string
	name        string
	description string
	content     [sha256.Size]byte // of the three above; see seal
}

// seal fills in the content's digest: SHA-256 over id, name and description, each behind
// its length as eight big-endian bytes.
func (e event) seal() event {
	var text []byte
	for _, part := range []string{e.permission, e.name, e.description} {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	e.content = sha256.Sum256(text)
	return e
}

// compare orders events by the key of the merge rule.
func (e event) compare(other event) int {
	return cmp.Or(
		cmp.Compare(e.at, other.at),
		cmp.Compare(e.kind, other.kind),
		cmp.Compare(e.id, other.id),
		bytes.Compare(e.content[:], other.content[:]),
	)
}

const instantLayout = "2006-01-02T15:04:05.000000000Z"

// instant writes a time as Postern does: UTC with nine fractional digits.
func instant(at int64) string { return time.Unix(0, at).UTC().Format(instantLayout) }

// offsets are UTC offsets in seconds; Scalekit may write any.
var offsets = []int{0, 0, 3600, -7 * 3600, 5*3600 + 45*60}

// foreignInstant writes the same time in one of the many ways of RFC 3339.
func foreignInstant(at int64, random *rand.Rand) string {
	zone := time.FixedZone("", offsets[random.IntN(len(offsets))])
	layout := time.RFC3339Nano // as few fractional digits as the time needs
	if random.IntN(2) == 0 {
		layout = "2006-01-02T15:04:05.000000000Z07:00"
	}
	return time.Unix(0, at).In(zone).Format(layout)
}

// body writes the event as Scalekit sends it.
func (e event) body(random *rand.Rand) ([]byte, error) {
	data := map[string]string{"id": e.permission, "name": e.name}
	if e.description != "" {
		data["description"] = e.description
	}
	return json.Marshal(map[string]any{
		"spec_version": "1", "id": e.id, "type": "permission." + e.kind.String(), "object": "Permission",
		"environment_id": environmentID, "occurred_at": foreignInstant(e.at, random), "data": data,
	})
}
