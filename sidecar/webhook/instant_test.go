package webhook

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/permission/permissiontest"
)

// One instant is one instant however it is written: with 0 to 9 fractional digits, in any
// offset from UTC. So an event is the same event whoever wrote it, and the merge, which the
// catalog's tests hold against the oracle, sees no difference.
func TestAnInstantIsTheSameInAnyWriting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := permissiontest.Events().Draw(t, "event")
		digits := rapid.IntRange(0, 9).Draw(t, "digits of the instant")
		unit := int64(math.Pow10(9 - digits))
		e.OccurredAt = permission.Instant(rapid.Int64Range(1, 4_000_000_000_000_000_000/unit).Draw(t, "instant") * unit)
		var first delivery
		for i := range 2 {
			written := writeInstant(e.OccurredAt, rapid.IntRange(digits, 9).Draw(t, "digits"), rapid.IntRange(-23*60, 23*60).Draw(t, "offset"))
			body, err := json.Marshal(map[string]any{
				"spec_version": "1", "id": e.ID, "type": "permission." + e.Kind.String(), "object": "Permission",
				"environment_id": e.EnvironmentID, "occurred_at": written,
				"data": map[string]any{"id": e.PermissionID, "name": e.Name, "description": e.Description},
			})
			if err != nil {
				t.Fatal(err)
			}
			d, err := decode(body)
			if err != nil || d.event != e {
				t.Fatalf("%s: got %+v, %v, want %+v", written, d.event, err, e)
			}
			if i == 0 {
				first = d
			} else if d.event.State() != first.event.State() {
				t.Fatalf("%+v differs from %+v", d, first)
			}
		}
	})
}

// writeInstant writes an instant with so many fractional digits, in a zone so many minutes
// east of Greenwich; Z for none.
func writeInstant(i permission.Instant, digits, east int) string {
	at := time.Unix(0, int64(i)).In(time.FixedZone("", east*60))
	text := at.Format("2006-01-02T15:04:05")
	if digits > 0 {
		text += fmt.Sprintf(".%09d", at.Nanosecond())[:1+digits]
	}
	return text + at.Format("Z07:00")
}
