package authz

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/postern-authz/postern/sidecar/authz/explanation"
)

// ErrExplainNotAllowed answers a question that asks for an explanation where none is given.
var ErrExplainNotAllowed = errors.New("explanations show the values of questions, of claims and of the catalog to whoever asks; set --allow-explain to give them")

// explainedAtOnce is how many questions are explained at a time: tracing takes some ten times
// the time, and memory of its own.
const explainedAtOnce = 2

// Explain is [Engine.Decide] with an explanation beside the decision, which is the same as
// without. Deciding and explaining share one timeout: an explanation that would take longer
// is given as far as it came. Its errors are those of Decide and [ErrExplainNotAllowed].
func (e *Engine) Explain(ctx context.Context, body []byte, token string) (Decision, error) {
	if !e.options.AllowExplain {
		return Decision{}, ErrExplainNotAllowed
	}
	p := e.prepared.Load()
	if p == nil {
		return Decision{}, ErrNoPolicy
	}
	ctx, stop := context.WithTimeout(ctx, e.options.Timeout)
	defer stop()
	if !take(ctx, e.explained) {
		d, err := p.decideNothing(context.WithoutCancel(ctx))
		if err == nil {
			d = unexplained(d)
		}
		return d, err
	}
	defer func() { <-e.explained }()
	return e.answer(ctx, p, body, token, true)
}

// unasked says why a decision was made before any policy was asked.
var unasked = map[string]string{
	ReasonTokenRequired:      "no policy was asked: --require-token, which is on with --issuer, wants a good access token with every question, and none came",
	ReasonCatalogStale:       "no policy was asked: with --on-stale deny every question is denied while data.scalekit.sync.state is stale, that is, since the last reconciliation that succeeded is longer ago than --stale-after",
	ReasonCatalogUnavailable: "no policy was asked: the catalog could not be read; the log says why",
	ReasonEvaluationTimeout:  "no policy was asked: no time was left for it within --evaluation-timeout",
}

// unexplained explains a decision that no policy made.
func unexplained(d Decision) Decision {
	why, known := unasked[d.Reasons[0]]
	if !known { // what is wrong with a token
		why = "no policy was asked: --require-token, which is on with --issuer, wants a good access token with every question, and this one is not: " + d.Reasons[0]
	}
	d.Explanation = explanation.Unasked(verdictOf(d), why)
	return d
}

// why explains what the policy decided, in the transaction that it decided in.
func (p *prepared) why(ctx context.Context, txn storage.Transaction, q Question, d Decision) *explanation.Explanation {
	return explanation.Explain(ctx, explanation.Evaluation{
		Compiler: p.policy.Compiler,
		Store:    p.store,
		Txn:      txn,
		Decision: p.policy.Decision,
		Input:    q.input,
		Cancel:   untilDone{ctx},
		Verdict:  verdictOf(d),
	})
}

func verdictOf(d Decision) explanation.Verdict {
	return explanation.Verdict{Allow: d.Allow, Reasons: d.Reasons, Message: d.Message, Value: d.answer}
}
