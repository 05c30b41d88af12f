package listener

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// LocalOnly refuses what a web page in a browser on this machine could send: a request
// whose Host isn't a loopback name or address (a foreign name made to point here, "DNS
// rebinding"), and one whose Origin isn't the listener itself.
func LocalOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLoopbackHost(hostWithoutPort(r.Host)) {
			WriteError(w, &Error{Status: http.StatusForbidden, Code: "host_forbidden", Message: "the Host header must name localhost or a loopback address"})
			return
		}
		if !sameOrigin(r) {
			WriteError(w, &Error{Status: http.StatusForbidden, Code: "origin_forbidden", Message: "requests from another origin are refused"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hostWithoutPort(host string) string {
	name, port, err := net.SplitHostPort(host)
	if _, portErr := strconv.ParseUint(port, 10, 16); err == nil && portErr == nil {
		return name
	}
	return host
}

func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	origin, err := url.Parse(origins[0])
	return len(origins) == 1 && err == nil && strings.EqualFold(origin.Host, r.Host)
}

// RequireToken refuses a request without the bearer token (RFC 6750) that token returns;
// token is asked each time, so that a rotated one takes effect at once. The comparison
// takes the same time for any token.
func RequireToken(token func() string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || !sameToken(token(), credentials) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="postern"`)
			WriteError(w, &Error{Status: http.StatusUnauthorized, Code: "token_wrong", Message: "send the token of --api-token-file as Authorization: Bearer …"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameToken hashes first, since ConstantTimeCompare tells lengths apart. An empty token
// matches nothing.
func sameToken(want, got string) bool {
	w, g := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got))
	return want != "" && subtle.ConstantTimeCompare(w[:], g[:]) == 1
}
