// Package authz answers questions: it reads one, evaluates the policy against the data
// document within one transaction, and says what was decided, why, and on which event
// the decision rests.
//
// Invariants:
//
//   - The zero Decision is a deny. Whatever goes wrong while a policy is evaluated is a
//     deny with a reason; a question that can't be read, or that comes before there is a
//     policy, is an error and never a decision.
//   - A decision and its provenance come from one transaction on the document, and from
//     one policy.
//   - An evaluation ends: a timer stops it, and at most so many run at once.
//
// It knows OPA's interfaces alone: any storage.Store whose data.scalekit has the
// documented shape will do, and any compiled policy.
package authz

import (
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/sidecar/authz/explanation"
)

// Reasons that Postern itself gives. Policies add their own.
const (
	ReasonUndefinedDecision  = "undefined_decision"  // the decision rule had no value for this question
	ReasonEvaluationError    = "evaluation_error"    // the evaluation failed, or answered neither a boolean nor a decision
	ReasonEvaluationTimeout  = "evaluation_timeout"  // it took too long, or too many others ran
	ReasonCatalogUnavailable = "catalog_unavailable" // a read of the catalog failed while evaluating
	ReasonPolicyDenied       = "policy_denied"       // the policy said no without a reason
	ReasonTokenRequired      = "token_required"      // no access token came, and one is needed
	ReasonCatalogStale       = "catalog_stale"       // the catalog was last held against Scalekit's list too long ago
)

// Decision is the answer to one question.
type Decision struct {
	Allow   bool
	Reasons []string // at least one for a deny
	ID      string   // a random UUID (RFC 9562, version 4), made anew for each decision
	Message string   // for a person, when the evaluation failed; else empty

	Permission     *Permission // what the catalog knows of the permission asked for; nil: nothing
	DataRevision   string      // of the catalog, in decimal digits
	EventID        string      // the newest event of the catalog; empty before the first
	AsOf           string      // when that event occurred, RFC 3339 with nine fractional digits
	PolicyRevision string

	// Explanation of a decision that was asked for with one; else nil.
	Explanation *explanation.Explanation

	extra   ast.Object // what else the policy answered; nil: nothing
	answer  ast.Value  // all that the policy answered; nil: nothing
	trouble string     // what failed, for the operator's log; empty when the policy decided
}

// Permission is the catalog's record of the permission that a question asked for. For
// a deleted one EventID names the deletion.
type Permission struct {
	ID      string
	Name    string
	EventID string // empty when the state rests on a listing
}
