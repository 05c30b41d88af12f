package simulator

import "github.com/postern-authz/postern/sidecar/permission"

// State is where a delivery stands.
type State string

// The states of a delivery. All but the first are its end.
const (
	Pending   State = "pending"   // waiting, in flight, or between two attempts
	Delivered State = "delivered" // answered 2xx
	Refused   State = "refused"   // a forgery that wasn't answered 2xx, as it should be
	Dropped   State = "dropped"   // lost by the fault webhook_drop, without an attempt
	Lost      State = "lost"      // given up after the last attempt
)

// Kind says which of the deliveries of one event this is.
type Kind string

// The kinds of a delivery.
const (
	Original       Kind = "original"
	Duplicate      Kind = "duplicate"
	Resent         Kind = "resent"          // by [Simulator.Resend]
	FalseBody      Kind = "false_body"      // a forgery: another body under the original's signature
	FalseSignature Kind = "false_signature" // a forgery: another body, signed with a made-up key
)

func (k Kind) forged() bool { return k == FalseBody || k == FalseSignature }

// Delivery is one event on its way to the endpoint.
type Delivery struct {
	Kind       Kind
	State      State
	EventID    string // "evt_…"
	WebhookID  string // "msg_…", the same in each attempt
	Type       string // "permission.deleted"
	SubjectID  string // of the permission or role
	Name       string // of the permission or role
	OccurredAt permission.Instant
	Attempts   int    // made by now
	Status     int    // of the newest answer; 0: none came
	Error      string // why no answer came
}

// Counts is how the deliveries went by now. Deliveries, duplicates and forgeries count alike
// in Pending, Delivered and Lost.
type Counts struct {
	Pending, Delivered, Dropped, Lost, Refused uint64
	ForgeriesTaken                             uint64 // answered 2xx, which must never happen
	Attempts                                   uint64
}

// letter is what is sent.
type letter struct {
	event     event
	webhookID string
	body      []byte
}

// delivery is a letter on its way. All but its letter is guarded by posts.mu.
type delivery struct {
	letter  letter
	signed  []byte // what the signature is over, where that isn't the body
	dropped bool   // when its turn comes, it is lost
	record  Delivery
}
