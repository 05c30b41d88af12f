package authz

import (
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/authz/explanation"
	"github.com/postern-authz/postern/sidecar/listener"
)

// Handler answers POST /v1/authorize.
type Handler struct {
	engine   *Engine
	recorder Recorder // may be nil
	failures *listener.FailureLog
}

// Recorder takes note of each decision that was answered. It must not keep its caller
// waiting, and may keep what it is given.
type Recorder interface {
	// Record gets the decision, the JSON that it was answered with, both without an
	// explanation, and the size of the question's JSON in bytes.
	Record(d Decision, answer []byte, question int)
}

// NewHandler returns a handler that asks engine, and tells recorder, unless that is nil.
func NewHandler(engine *Engine, recorder Recorder, logger *slog.Logger) *Handler {
	return &Handler{engine: engine, recorder: recorder, failures: listener.NewFailureLog(logger, time.Now)}
}

// ServeHTTP answers 200 with a decision, allow or deny; 400 for a question that can't be
// read and 413 for one over [MaxQuestion]; 503 while there is nothing to decide by.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, refused := readBody(r)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	token, refused := readToken(r)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	explain, refused := asksToExplain(r.URL.RawQuery)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	d, err := h.decide(r.Context(), body, token, explain)
	if err != nil {
		listener.WriteError(w, h.refuse(err))
		return
	}
	answer, d := encode(d)
	if d.trouble != "" {
		h.failures.Warn(d.Reasons[0], "evaluation failed", "trouble", d.trouble, "decision_id", d.ID, "reason", d.Reasons[0],
			"policy_revision", d.PolicyRevision, "request_id", w.Header().Get("X-Request-ID"))
	}
	h.record(d, answer, len(body))
	listener.WriteEncoded(w, http.StatusOK, answer)
}

// record tells the recorder what was answered. The explanation isn't part of it: it quotes
// the question, of which a log's mask may hide some.
func (h *Handler) record(d Decision, answer []byte, question int) {
	if h.recorder == nil {
		return
	}
	if d.Explanation != nil {
		d.Explanation = nil
		answer, _ = d.AppendJSON(nil) // the rest of it was encoded already
	}
	h.recorder.Record(d, answer, question)
}

// readToken returns the access token in the header, or nothing.
func readToken(r *http.Request) (string, *listener.Error) {
	values := r.Header[TokenHeader]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || values[0] == "" {
		return "", &listener.Error{Status: http.StatusBadRequest, Code: "malformed_question", Message: TokenHeader + ": want one access token"}
	}
	return values[0], nil
}

func (h *Handler) decide(ctx context.Context, body []byte, token string, explain bool) (Decision, error) {
	if explain {
		return h.engine.Explain(ctx, body, token)
	}
	return h.engine.Decide(ctx, body, token)
}

// asksToExplain reads the query. Other parameters than explain mean nothing here.
func asksToExplain(query string) (bool, *listener.Error) {
	if query == "" {
		return false, nil
	}
	parameters, _ := url.ParseQuery(query) // what can be read of it
	values, given := parameters["explain"]
	if !given {
		return false, nil
	}
	if len(values) == 1 && (values[0] == "true" || values[0] == "false") {
		return values[0] == "true", nil
	}
	return false, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_query", Message: "explain: want true or false, once"}
}

// refuse is the status map of what isn't a decision.
func (h *Handler) refuse(err error) *listener.Error {
	var malformed *MalformedError
	if errors.As(err, &malformed) {
		return &listener.Error{Status: http.StatusBadRequest, Code: "malformed_question", Message: err.Error()}
	}
	if errors.Is(err, ErrExplainNotAllowed) {
		return &listener.Error{Status: http.StatusForbidden, Code: "explain_not_allowed", Message: err.Error()}
	}
	h.failures.Warn("not_ready", "question not answered", "error", err)
	return &listener.Error{
		Status: http.StatusServiceUnavailable, Code: "not_ready",
		Message: "Postern has nothing to decide by yet; ask /readyz?verbose on the admin listener", RetryAfter: time.Second,
	}
}

// encode returns the answer, and the decision that it tells: where what the policy adds
// can't be told, that is a deny.
func encode(d Decision) ([]byte, Decision) {
	answer, err := d.AppendJSON(make([]byte, 0, 512))
	if err == nil {
		return answer, d
	}
	d.Allow, d.extra = false, nil
	d.Reasons, d.Message, d.trouble = []string{ReasonEvaluationError}, err.Error(), err.Error()
	if d.Explanation != nil {
		d.Explanation = explanation.Unasked(verdictOf(d), "what the policy answered can't be told as JSON")
	}
	answer, _ = d.AppendJSON(nil) // nothing is left of what could fail
	return answer, d
}

func readBody(r *http.Request) ([]byte, *listener.Error) {
	if !acceptsAsJSON(r.Header.Get("Content-Type")) {
		return nil, &listener.Error{Status: http.StatusBadRequest, Code: "content_type_unsupported", Message: "send the question with Content-Type: application/json"}
	}
	return listener.ReadBody(r, MaxQuestion)
}

// acceptsAsJSON takes JSON and a request that doesn't say what it is.
func acceptsAsJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}
