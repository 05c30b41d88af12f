package authz

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// ErrNoPolicy answers a question that comes before any policy does.
var ErrNoPolicy = errors.New("no policy has been loaded")

// MalformedError is a question that can't be read. Nothing was evaluated.
type MalformedError struct{ cause error }

// Error names the member, what was expected and what came.
func (e *MalformedError) Error() string { return e.cause.Error() }

const (
	// smallQuestion is the body of a question, in bytes, that is always let in.
	smallQuestion = 16 << 10
	// largeAtOnce is how many larger ones are in hand at once: each may take 10 MiB.
	largeAtOnce = 2
)

// Options bound the evaluations of an [Engine].
type Options struct {
	Timeout     time.Duration // of one evaluation, waiting for its turn included
	MaxInFlight int           // questions in hand at once, so that a policy that burns CPU starves nobody

	Tokens TokenVerifier // nil: a question with an access token is malformed
	// What follows denies before any policy is asked.
	RequireToken bool // a question without an access token that is good
	DenyStale    bool // any question while data.scalekit.sync.state is "stale"

	AllowExplain bool // [Engine.Explain] explains
}

// Policy is what an [Engine] evaluates.
type Policy struct {
	Compiler *ast.Compiler
	Store    storage.Store // the data document; every question gets a transaction of its own
	Decision ast.Ref       // the rule that answers, such as data.authz.decision
	Revision string        // told with each decision
}

// Engine evaluates questions. Its policy can be replaced while questions are in flight:
// each goes on with the one that it began with.
type Engine struct {
	options   Options
	turns     chan struct{} // one token for each question in hand
	large     chan struct{} // one more for each large one
	explained chan struct{} // and for each one that is explained
	prepared  atomic.Pointer[prepared]
}

// prepared is a policy ready to be evaluated, and never changed.
type prepared struct {
	query    rego.PreparedEvalQuery
	store    storage.Store
	revision string
	policy   Policy // which the query was prepared of
}

// NewEngine returns an engine without a policy.
func NewEngine(o Options) *Engine {
	return &Engine{
		options:   o,
		turns:     make(chan struct{}, o.MaxInFlight),
		large:     make(chan struct{}, largeAtOnce),
		explained: make(chan struct{}, explainedAtOnce),
	}
}

// Use makes p the policy of the questions that come from now on. After an error the
// previous one stays.
func (e *Engine) Use(ctx context.Context, p Policy) error {
	query, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(p.Decision)))),
		rego.Compiler(p.Compiler),
		rego.Store(p.Store),
		rego.GenerateJSON(func(term *ast.Term, _ *rego.EvalContext) (any, error) {
			return term.Value, nil // as it is: a decision is taken apart below, not printed
		}),
	).PrepareForEval(ctx)
	if err != nil {
		return fmt.Errorf("preparing the policy: %w", err)
	}
	e.prepared.Store(&prepared{query: query, store: p.Store, revision: p.Revision, policy: p})
	return nil
}

// PolicyRevision returns the revision of the current policy, false when there is none.
func (e *Engine) PolicyRevision() (string, bool) {
	if p := e.prepared.Load(); p != nil {
		return p.revision, true
	}
	return "", false
}

// Decide answers the question in a request's body; token is the access token that came
// beside it, or empty. Its errors are [ErrNoPolicy], a
// [*MalformedError], and a document that begins no transaction: everything else is a
// decision, if need be a deny.
func (e *Engine) Decide(ctx context.Context, body []byte, token string) (Decision, error) {
	p := e.prepared.Load()
	if p == nil {
		return Decision{}, ErrNoPolicy
	}
	ctx, stop := context.WithTimeout(ctx, e.options.Timeout)
	defer stop()
	return e.answer(ctx, p, body, token, false)
}

func (e *Engine) answer(ctx context.Context, p *prepared, body []byte, token string, explained bool) (Decision, error) {
	release, ok := e.takeTurn(ctx, len(body))
	if !ok {
		d, err := p.decideNothing(context.WithoutCancel(ctx))
		if explained && err == nil {
			d = unexplained(d)
		}
		return d, err
	}
	defer release()
	q, err := ParseQuestion(body)
	if err != nil {
		return Decision{}, &MalformedError{err}
	}
	floor, err := e.judgeToken(ctx, &q, token)
	if err != nil {
		return Decision{}, &MalformedError{err}
	}
	return p.decide(ctx, q, floor, e.options.DenyStale, explained)
}

// takeTurn waits until few enough questions are in hand. Reading one takes more memory
// than its body, so this comes first. It reports false when the context ended before.
func (e *Engine) takeTurn(ctx context.Context, size int) (release func(), ok bool) {
	if size > smallQuestion {
		if !take(ctx, e.large) {
			return nil, false
		}
		defer func() {
			if !ok {
				<-e.large
			}
		}()
	}
	if !take(ctx, e.turns) {
		return nil, false
	}
	return func() {
		<-e.turns
		if size > smallQuestion {
			<-e.large
		}
	}, true
}

func take(ctx context.Context, tokens chan<- struct{}) bool {
	select {
	case tokens <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// decideNothing denies without having read the question, with the provenance that doesn't
// depend on it. Its context must not be the question's own, which has ended.
func (p *prepared) decideNothing(ctx context.Context) (Decision, error) {
	txn, err := p.store.NewTransaction(ctx)
	if err != nil {
		return Decision{}, fmt.Errorf("beginning to read the document: %w", err)
	}
	defer p.store.Abort(ctx, txn)
	d := Decision{Reasons: []string{ReasonEvaluationTimeout}, Message: "too many questions were in hand", trouble: "too many in hand"}
	p.explain(ctx, txn, Question{}, &d)
	return d, nil
}

// decide denies for the reason floor, unless that is empty, and else as the policy says.
func (p *prepared) decide(ctx context.Context, q Question, floor string, denyStale, explained bool) (Decision, error) {
	txn, err := p.store.NewTransaction(ctx)
	if err != nil {
		return Decision{}, fmt.Errorf("beginning to read the document: %w", err)
	}
	defer p.store.Abort(ctx, txn)
	var d Decision
	asked, stale := false, false
	if denyStale && floor == "" {
		stale, err = p.stale(ctx, txn)
	}
	switch {
	case err != nil:
		d = unavailableDecision(err)
	case stale:
		d = floorDecision(ReasonCatalogStale)
	case floor != "":
		d = floorDecision(floor)
	default:
		d, asked = p.evaluate(ctx, txn, q), true
	}
	p.explain(ctx, txn, q, &d)
	switch {
	case explained && asked:
		d.Explanation = p.why(ctx, txn, q, d)
	case explained:
		d = unexplained(d)
	}
	return d, nil
}

func (p *prepared) evaluate(ctx context.Context, txn storage.Transaction, q Question) Decision {
	results, err := p.query.Eval(ctx,
		rego.EvalTransaction(txn),
		rego.EvalParsedInput(q.input),
		rego.EvalExternalCancel(untilDone{ctx}),
		rego.EvalMetrics(metrics.NoOp()),
	)
	if err != nil {
		return denyFor(err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return Decision{Reasons: []string{ReasonUndefinedDecision}}
	}
	value, _ := results[0].Expressions[0].Value.(ast.Value)
	d, err := readDecision(value)
	if err != nil {
		d = Decision{Reasons: []string{ReasonEvaluationError}, Message: err.Error(), trouble: err.Error()}
	}
	d.answer = value
	return d
}

// untilDone cancels an evaluation when its context ends. OPA asks at every step, and the
// answer is one atomic load; by itself it would start a goroutine per evaluation that
// watches the context.
type untilDone struct{ context.Context }

// Cancel does nothing: the context's timer does it.
func (untilDone) Cancel() {}

// Cancelled reports whether the context has ended.
func (u untilDone) Cancelled() bool { return u.Err() != nil }

func denyFor(err error) Decision {
	var unavailable interface{ CatalogUnavailable() }
	switch {
	case errors.As(err, &unavailable):
		return unavailableDecision(err)
	case topdown.IsCancel(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return Decision{
			Reasons: []string{ReasonEvaluationTimeout},
			Message: "the evaluation took longer than --evaluation-timeout allows",
			trouble: "timeout",
		}
	}
	return Decision{Reasons: []string{ReasonEvaluationError}, Message: err.Error(), trouble: withoutValues(err)}
}

// unavailableDecision denies because of a failed read. What failed is for the operator's
// log, not for the app.
func unavailableDecision(err error) Decision {
	return Decision{Reasons: []string{ReasonCatalogUnavailable}, Message: "the catalog could not be read", trouble: err.Error()}
}

// withoutValues says what failed and where. OPA's own text may quote the question, which
// has no business in a log.
func withoutValues(err error) string {
	var evaluation *topdown.Error
	if !errors.As(err, &evaluation) {
		return err.Error()
	}
	if evaluation.Location == nil {
		return evaluation.Code
	}
	return fmt.Sprintf("%s at %s", evaluation.Code, evaluation.Location)
}
