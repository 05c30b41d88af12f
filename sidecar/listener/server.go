package listener

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// MaxHeaderBytes bounds the headers of a request; a larger set is answered with 431
// by net/http, which allows itself 4 KiB more.
const MaxHeaderBytes = 16 << 10

// maxRequestID is how long an X-Request-ID may be to be worth echoing, in bytes.
const maxRequestID = 128

// NewServer returns a server whose every wait is bounded: a peer gets 5 s for its
// headers and 15 s for the whole request (the slow-loris attack), answerWithin for
// taking the answer, and an idle connection is closed after half a minute.
func NewServer(handler http.Handler, answerWithin time.Duration, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           Contain(handler, logger),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      answerWithin,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    MaxHeaderBytes,
		// OPTIONS * goes through the handler, and its guards, like everything else.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// Contain echoes X-Request-ID and turns a panic of next into a 500 and a log line
// that holds the stack, but nothing of the request beyond its method and id.
func Contain(next http.Handler, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requestID := echoRequestID(w, r)
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if err, ok := reason.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(reason)
			}
			logger.Error("handler panicked", "panic", reason, "method", r.Method, "request_id", requestID, "stack", string(debug.Stack()))
			WriteError(w, &Error{Status: http.StatusInternalServerError, Code: "internal_error", Message: "the request failed inside Postern; its log says why"})
		}()
		next.ServeHTTP(w, r)
	})
}

func echoRequestID(w http.ResponseWriter, r *http.Request) string {
	ids := r.Header["X-Request-Id"]
	if len(ids) != 1 || !echoable(ids[0]) {
		return ""
	}
	w.Header()["X-Request-Id"] = ids
	return ids[0]
}

func echoable(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x20 || id[i] > 0x7e {
			return false
		}
	}
	return true
}

// Limit bounds the connections of l that are open at once; further ones wait to be
// accepted. Listeners that other machines reach have such a bound, so that a flood of
// connections leaves file descriptors for the decision API.
func Limit(l net.Listener, connections int) net.Listener {
	return netutil.LimitListener(l, connections)
}

// NotFound answers a path that no listener knows.
func NotFound(w http.ResponseWriter, _ *http.Request) {
	WriteError(w, &Error{Status: http.StatusNotFound, Code: "not_found", Message: "no such path on this listener"})
}

// MethodNotAllowed answers a known path asked with another method than allowed.
func MethodNotAllowed(methods ...string) http.HandlerFunc {
	allowed := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allowed)
		WriteError(w, &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Message: "this path wants " + allowed})
	}
}
