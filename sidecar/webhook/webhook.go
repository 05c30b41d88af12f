// Package webhook receives Scalekit's permission webhooks: bytes become a verified event,
// and the event goes to a [Sink].
//
// It promises that nothing reaches the sink unless its signature was made with one of the
// live secrets over exactly these bytes, within five minutes of now, by the environment
// that Postern serves; that a sender who can't sign makes it do little work; and that 201
// is answered only after the sink returned without an error.
//
// It refuses everything else with a status that says whose mistake it is, and changes
// nothing then. Secrets, signatures and bodies never reach a log, a metric or an answer.
package webhook

import (
	"context"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Sink takes verified events. When Apply returns without an error the event is durable and
// visible. It must be safe for concurrent use.
type Sink interface {
	Apply(ctx context.Context, event permission.Event) (permission.Outcome, error)
}
