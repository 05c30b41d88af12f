package listener

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an answer that isn't a success. Message is read by a person: it says what
// was expected and what came, and never carries a secret or a foreign text of any length.
type Error struct {
	Status     int           // the HTTP status
	Code       string        // what programs branch on, in snake_case
	Message    string        // what people read
	RetryAfter time.Duration // sent as Retry-After in whole seconds when positive
}

// Error returns the code and the message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// WriteError answers with e.
func WriteError(w http.ResponseWriter, e *Error) { WriteErrorBeside(w, e, nil) }

// WriteErrorBeside answers with e, and with what programs need to go on as further members
// beside "error".
func WriteErrorBeside(w http.ResponseWriter, e *Error, beside map[string]any) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	type envelope struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	answer := map[string]any{"error": envelope{e.Code, e.Message}}
	maps.Copy(answer, beside)
	WriteJSON(w, e.Status, answer)
}

// WriteJSON answers with body as JSON. A body that can't be encoded is a mistake of
// the caller's and panics; [Contain] turns that into a 500.
func WriteJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("encoding an answer: %v", err))
	}
	WriteEncoded(w, status, append(encoded, '\n'))
}

// WriteEncoded answers with a body that is JSON already.
func WriteEncoded(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Content-Type"] = contentTypeJSON
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Cache-Control"] = cacheNothing
	w.WriteHeader(status)
	// The peer may have hung up: there is nobody left to tell.
	_, _ = w.Write(body)
}

// Header values shared between answers; net/http only reads them.
var (
	contentTypeJSON = []string{"application/json"}
	cacheNothing    = []string{"no-store"}
)

// ReadBody reads a whole request body that has no more than most bytes. It refuses an encoded
// body with 400, since a small one can grow without end, a longer one with 413, and
// one that breaks off with 400.
func ReadBody(r *http.Request, most int64) ([]byte, *Error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, &Error{Status: http.StatusBadRequest, Code: "content_encoding_unsupported", Message: "send the body without Content-Encoding"}
	}
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	body, err := readAtMost(r, most)
	if err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Code: "body_incomplete", Message: "the request body broke off or came too slowly"}
	}
	if int64(len(body)) > most {
		return nil, tooLarge(most)
	}
	return body, nil
}

func readAtMost(r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength < 0 {
		return io.ReadAll(io.LimitReader(r.Body, most+1))
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

func tooLarge(most int64) *Error {
	return &Error{
		Status:  http.StatusRequestEntityTooLarge,
		Code:    "body_too_large",
		Message: fmt.Sprintf("the request body is larger than %d bytes", most),
	}
}
