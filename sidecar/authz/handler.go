package authz

import (
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

// Handler answers POST /v1/authorize.
type Handler struct {
	engine   *Engine
	failures *listener.FailureLog
}

// NewHandler returns a handler that asks engine.
func NewHandler(engine *Engine, logger *slog.Logger) *Handler {
	return &Handler{engine: engine, failures: listener.NewFailureLog(logger, time.Now)}
}

// ServeHTTP answers 200 with a decision, allow or deny; 400 for a question that can't be
// read and 413 for one over [MaxQuestion]; 503 while there is nothing to decide by.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, refused := readQuestion(r)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	answer, err := h.answer(r, q)
	if err != nil {
		h.failures.Warn("not_ready", "question not answered", "error", err)
		listener.WriteError(w, &listener.Error{
			Status: http.StatusServiceUnavailable, Code: "not_ready",
			Message: "Postern has nothing to decide by yet; ask /readyz?verbose on the admin listener", RetryAfter: time.Second,
		})
		return
	}
	listener.WriteEncoded(w, http.StatusOK, answer)
}

func (h *Handler) answer(r *http.Request, q Question) ([]byte, error) {
	d, err := h.engine.Decide(r.Context(), q)
	if err != nil {
		return nil, err
	}
	answer, err := d.AppendJSON(make([]byte, 0, 512))
	if err != nil {
		// What the policy adds can't be told, so the decision can't be, either.
		d.Allow, d.extra = false, nil
		d.Reasons, d.Message, d.trouble = []string{ReasonEvaluationError}, err.Error(), err.Error()
		answer, err = d.AppendJSON(nil)
	}
	if d.trouble != "" {
		h.failures.Warn(d.Reasons[0], "evaluation failed", "trouble", d.trouble, "decision_id", d.ID, "reason", d.Reasons[0], "policy_revision", d.PolicyRevision)
	}
	return answer, err
}

func readQuestion(r *http.Request) (Question, *listener.Error) {
	if !acceptsAsJSON(r.Header.Get("Content-Type")) {
		return Question{}, &listener.Error{Status: http.StatusBadRequest, Code: "content_type_unsupported", Message: "send the question with Content-Type: application/json"}
	}
	body, refused := listener.ReadBody(r, MaxQuestion)
	if refused != nil {
		return Question{}, refused
	}
	q, err := ParseQuestion(body)
	if err != nil {
		return Question{}, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_question", Message: err.Error()}
	}
	return q, nil
}

// acceptsAsJSON takes JSON and a request that doesn't say what it is.
func acceptsAsJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}
