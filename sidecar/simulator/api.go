package simulator

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

const largestForm = 16 << 10 // bytes of a token request

// apiError is an error of the management API. Its codes are those of gRPC.
type apiError struct {
	status     int
	code       int
	errorCode  string
	message    string
	retryAfter time.Duration
}

func invalidArgument(format string, arguments ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: 3, errorCode: "INVALID_ARGUMENT", message: fmt.Sprintf(format, arguments...)}
}

func unauthenticated(message string) *apiError {
	return &apiError{status: http.StatusUnauthorized, code: 16, errorCode: "UNAUTHENTICATED", message: message}
}

func internalError() *apiError {
	return &apiError{status: http.StatusInternalServerError, code: 13, errorCode: "INTERNAL", message: "internal error"}
}

func unavailable() *apiError {
	return &apiError{status: http.StatusServiceUnavailable, code: 14, errorCode: "UNAVAILABLE", message: "the service is unavailable"}
}

func rateLimited(after time.Duration) *apiError {
	return &apiError{status: http.StatusTooManyRequests, code: 8, errorCode: "RATE_LIMITED", message: "too many requests", retryAfter: after}
}

// writeAPIError answers as Scalekit's API does.
func writeAPIError(w http.ResponseWriter, e *apiError) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.retryAfter+time.Second-1)/time.Second)))
	}
	type detail struct {
		ErrorCode string `json:"error_code"`
	}
	listener.WriteJSON(w, e.status, struct {
		Code    int      `json:"code"`
		Message string   `json:"message"`
		Details []detail `json:"details"`
	}{e.code, e.message, []detail{{e.errorCode}}})
}

// serveToken is POST /oauth/token.
func (s *Simulator) serveToken(w http.ResponseWriter, r *http.Request) {
	form, apiErr := readForm(r)
	if apiErr == nil {
		apiErr = s.checkCredentials(form)
	}
	if apiErr != nil {
		writeAPIError(w, apiErr)
		return
	}
	token, err := s.issue()
	if err != nil {
		s.config.Logger.Error("no token", "error", err)
		writeAPIError(w, internalError())
		return
	}
	listener.WriteJSON(w, http.StatusOK, struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}{token, "Bearer", int(s.config.TokenLifetime / time.Second)})
}

func readForm(r *http.Request) (url.Values, *apiError) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, invalidArgument("Content-Type: want application/x-www-form-urlencoded, got %.80q", r.Header.Get("Content-Type"))
	}
	body, refused := listener.ReadBody(r, largestForm)
	if refused != nil {
		return nil, invalidArgument("%s", refused.Message)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalidArgument("want a form such as grant_type=client_credentials&client_id=…&client_secret=…")
	}
	return form, nil
}

func (s *Simulator) checkCredentials(form url.Values) *apiError {
	if got := form.Get("grant_type"); got != "client_credentials" {
		return invalidArgument("grant_type: want client_credentials, got %.40q", got)
	}
	right := same(form.Get("client_id"), s.config.ClientID) && same(form.Get("client_secret"), s.config.ClientSecret)
	if s.faults.fires(CredentialsRefused) || !right {
		return unauthenticated("the client id or the client secret is wrong")
	}
	return nil
}

// same compares in a time that tells nothing.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// api serves a read of the management API, with everything that can go wrong before, and
// with what comes out.
func (s *Simulator) api(read func(url.Values) (any, *apiError)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The clock that events have, and not the one of net/http.
		w.Header().Set("Date", s.config.Now().UTC().Format(http.TimeFormat))
		fault := s.faults.first(Hang, RateLimit, RateLimitBare, Error500, Error503, Error403, TokenRefused)
		if fault == Hang {
			s.hang(r)
		}
		if refused := s.refusal(fault, r); refused != nil {
			writeAPIError(w, refused)
			return
		}
		parameters, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeAPIError(w, invalidArgument("the query can't be read"))
			return
		}
		answer, refused := read(parameters)
		if refused != nil {
			writeAPIError(w, refused)
			return
		}
		s.writeAnswer(w, answer)
	})
}

// refusal is the answer of a fault, or to a bad bearer token.
func (s *Simulator) refusal(fault Fault, r *http.Request) *apiError {
	switch fault { //nolint:exhaustive // the others go wrong elsewhere
	case RateLimit:
		return rateLimited(s.faults.get().RetryAfter)
	case RateLimitBare:
		return rateLimited(0)
	case Error500:
		return internalError()
	case Error503:
		return unavailable()
	case Error403:
		return &apiError{status: http.StatusForbidden, code: 7, errorCode: "PERMISSION_DENIED", message: "this client may not do that"}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if fault == TokenRefused || !strings.EqualFold(scheme, "Bearer") || !s.tokens.knows(token, s.config.Now()) {
		return unauthenticated("the access token is missing, unknown or expired")
	}
	return nil
}

// hang holds a request as a server does that is stuck, and breaks it off.
func (s *Simulator) hang(r *http.Request) {
	timer := time.NewTimer(s.faults.get().Hang)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
	case <-timer.C:
	}
	panic(http.ErrAbortHandler)
}

func (s *Simulator) writeAnswer(w http.ResponseWriter, answer any) {
	encoded, err := json.Marshal(answer)
	if err != nil {
		panic(fmt.Sprintf("encoding an answer: %v", err))
	}
	switch s.faults.first(Truncate, Malformed) {
	case Truncate:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(encoded)))
		_, _ = w.Write(encoded[:len(encoded)/2])
		// What was written goes out, and the rest never comes.
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case Malformed:
		listener.WriteEncoded(w, http.StatusOK, encoded[:len(encoded)/2])
	default:
		listener.WriteEncoded(w, http.StatusOK, encoded)
	}
}
