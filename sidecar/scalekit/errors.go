package scalekit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

// ErrorKind says in one word why Scalekit's API didn't help. The words stand in metrics and
// on GET /v1/sync.
type ErrorKind string

// All kinds of failures.
const (
	KindCredentials  ErrorKind = "credentials"       // the client secret couldn't be read
	KindUnauthorized ErrorKind = "unauthorized"      // the credentials were refused, or a new access token was
	KindForbidden    ErrorKind = "forbidden"         // the credentials may not ask this
	KindRateLimited  ErrorKind = "rate_limited"      // too many requests of this environment
	KindServerError  ErrorKind = "server_error"      // a status of 500 and above
	KindUnexpected   ErrorKind = "unexpected_status" // any other status but 200
	KindRedirected   ErrorKind = "redirected"        // no redirect is followed
	KindTimeout      ErrorKind = "timeout"           // no whole answer in time
	KindTLS          ErrorKind = "tls"               // a certificate that isn't trusted, or no handshake
	KindUnreachable  ErrorKind = "unreachable"       // no connection, or it broke
	KindMalformed    ErrorKind = "malformed"         // the answer is truncated, too large, or not what it should be
	KindEndless      ErrorKind = "endless"           // pages without end
	KindIncomplete   ErrorKind = "incomplete"        // the pages were understood, and a part is missing
)

// Op says what was asked for.
type Op string

// All that is asked for.
const (
	OpToken       Op = "authenticating"
	OpPermissions Op = "listing permissions"
	OpRoles       Op = "listing roles"
)

// APIError is a failure of Scalekit's API, or of the way to it. It wraps the network's error
// where there is one.
type APIError struct {
	Op         Op
	Kind       ErrorKind
	Page       int           // of a listing, from 1; 0 where there are no pages
	Status     int           // of the answer, 0 without one
	Code       string        // the answer's error_code, "RATE_LIMITED"; empty when it told none
	RetryAfter time.Duration // how long Scalekit asked to wait, at most an hour; 0 when it didn't

	detail string
	cause  error
}

// Error tells all of it on one line. It holds neither credentials nor a URL.
func (e *APIError) Error() string {
	var text strings.Builder
	text.WriteString(string(e.Op))
	if e.Page > 0 {
		fmt.Fprintf(&text, ": page %d", e.Page)
	}
	fmt.Fprintf(&text, ": %s", e.Kind)
	if e.Status != 0 && e.Status != http.StatusOK {
		fmt.Fprintf(&text, ": status %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&text, " %s", e.Code)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&text, ", to be asked again in %s", e.RetryAfter)
	}
	if e.detail != "" {
		fmt.Fprintf(&text, ": %s", e.detail)
	}
	return text.String()
}

// Unwrap returns the network's error, if any.
func (e *APIError) Unwrap() error { return e.cause }

// longestRetryAfter is the longest wait that a server is believed.
const longestRetryAfter = time.Hour

// readRetryAfter reads Retry-After (RFC 9110, section 10.2.3). A time counts from the answer's
// own Date, since this machine's clock may differ; without Date it says nothing.
func readRetryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	seconds, err := strconv.ParseUint(text, 10, 31)
	if err == nil {
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	}
	if errors.Is(err, strconv.ErrRange) {
		return longestRetryAfter
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(at.Sub(date), 0), longestRetryAfter)
}

// errorDepth is how deep the body of an error may nest. The deepest that Scalekit documents,
// a validation error, nests five times.
const errorDepth = 16

// errorCode is how Scalekit writes its codes. A text of another form isn't told on.
var errorCode = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// oauthCodes are the errors of a token endpoint (RFC 6749, section 5.2), and whether they
// speak of the credentials.
var oauthCodes = map[string]bool{
	"invalid_client": true, "unauthorized_client": true, "invalid_grant": true,
	"invalid_request": false, "unsupported_grant_type": false, "invalid_scope": false,
}

// readCode finds the code in the body of an error:
//
//	{"code":16,"message":"…","details":[{"error_code":"UNAUTHENTICATED"}]}
//
// or, of the token endpoint, {"error":"invalid_client"}. It is empty when there is none.
func readCode(body []byte) string {
	if strictjson.Check(body, errorDepth) != nil {
		return ""
	}
	document, err := strictjson.Parse(body)
	if err != nil {
		return ""
	}
	if code, err := document.OptionalText("error"); err == nil {
		if _, known := oauthCodes[code]; known {
			return code
		}
	}
	var details []json.RawMessage
	if json.Unmarshal(document["details"], &details) != nil {
		return ""
	}
	for _, raw := range details {
		detail, err := strictjson.Parse(raw)
		if err != nil {
			continue
		}
		if code, err := detail.OptionalText("error_code"); err == nil && errorCode.MatchString(code) {
			return code
		}
	}
	return ""
}

// kindOf tells the kind of an answer that isn't 200.
func kindOf(status int, code string) ErrorKind {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusBadRequest && oauthCodes[code]:
		return KindUnauthorized
	case status == http.StatusForbidden:
		return KindForbidden
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status >= http.StatusInternalServerError:
		return KindServerError
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return KindRedirected
	default:
		return KindUnexpected
	}
}
