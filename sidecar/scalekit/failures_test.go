package scalekit_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/scalekit"
)

// answers is a transport that answers by itself.
type answers func(*http.Request) (status int, body string)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a(r)
	return &http.Response{
		StatusCode: status, Header: http.Header{"Date": {testDate}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

// hangUp closes the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// hang answers nothing until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // else the server doesn't see the client leave
	<-r.Context().Done()
}

// speaking answers with bytes that may not be HTTP.
func speaking(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(connection, text)
			_ = connection.Close()
		}
	}
}

// Everything that issue 4 says may go wrong, each with the credentials thrown back where a
// server can.
func TestFailures(t *testing.T) {
	const leak = testSecret + " " + testToken
	one := listed("perm_1", "a")
	permissions := func(h http.HandlerFunc) func(*api) { return func(a *api) { a.permissions = h } }
	token := func(h http.HandlerFunc) func(*api) { return func(a *api) { a.token = h } }
	for _, test := range []struct {
		name   string
		change func(*api)
		kind   scalekit.ErrorKind
		want   string
	}{
		{"401, and again after a new token", permissions(failing(401, errorBody("UNAUTHENTICATED"))), scalekit.KindUnauthorized, "listing permissions: page 1: unauthorized: status 401 UNAUTHENTICATED"},
		{"401 of the token endpoint", token(failing(401, `{"error":"invalid_client","error_description":"`+leak+`"}`)), scalekit.KindUnauthorized, "authenticating: unauthorized: status 401 invalid_client"},
		{"401 with another error", token(failing(401, `{"error":"`+testSecret+`"}`)), scalekit.KindUnauthorized, "authenticating: unauthorized: status 401"},
		{"400 that means the credentials", token(failing(400, `{"error":"unauthorized_client"}`)), scalekit.KindUnauthorized, "authenticating: unauthorized: status 400 unauthorized_client"},
		{"400 that doesn't", token(failing(400, `{"error":"invalid_request"}`)), scalekit.KindUnexpected, "authenticating: unexpected_status: status 400 invalid_request"},
		{"403", permissions(failing(403, errorBody("PERMISSION_DENIED"))), scalekit.KindForbidden, "listing permissions: page 1: forbidden: status 403 PERMISSION_DENIED"},
		{"a code of another form", permissions(failing(403, errorBody(testSecret))), scalekit.KindForbidden, "listing permissions: page 1: forbidden: status 403"},
		{"an error that isn't JSON", permissions(failing(403, leak)), scalekit.KindForbidden, "listing permissions: page 1: forbidden: status 403"},
		{"404", permissions(failing(404, "")), scalekit.KindUnexpected, "listing permissions: page 1: unexpected_status: status 404"},
		{"204", permissions(failing(204, "")), scalekit.KindUnexpected, "listing permissions: page 1: unexpected_status: status 204"},
		{"429", permissions(failing(429, errorBody("RATE_LIMITED"))), scalekit.KindRateLimited, "listing permissions: page 1: rate_limited: status 429 RATE_LIMITED"},
		{"429 with Retry-After", permissions(failing(429, errorBody("RATE_LIMITED"), "Retry-After: 30")), scalekit.KindRateLimited, "listing permissions: page 1: rate_limited: status 429 RATE_LIMITED, to be asked again in 30s"},
		{"429 of the token endpoint", token(failing(429, "", "Retry-After: Mon, 15 Jan 2024 10:31:00 GMT")), scalekit.KindRateLimited, "authenticating: rate_limited: status 429, to be asked again in 1m0s"},
		{"500", permissions(failing(500, leak)), scalekit.KindServerError, "listing permissions: page 1: server_error: status 500"},
		{"503", permissions(failing(503, "", "Retry-After: 5")), scalekit.KindServerError, "listing permissions: page 1: server_error: status 503, to be asked again in 5s"},
		{"a redirect", permissions(failing(302, "", "Location: https://elsewhere.example:8443/"+testToken)), scalekit.KindRedirected, "listing permissions: page 1: redirected: status 302: redirects are never followed, and this one leads to elsewhere.example:8443"},
		{"a redirect of the token endpoint", token(failing(307, "", "Location: https://"+testSecret+".example/")), scalekit.KindRedirected, "authenticating: redirected: status 307: redirects are never followed, and this one leads to [redacted].example"},
		{"a redirect to nowhere", permissions(failing(301, "", "Location: https://a!'b/")), scalekit.KindRedirected, "listing permissions: page 1: redirected: status 301: redirects are never followed, and this one leads to no host"},
		{"no answer", permissions(hang), scalekit.KindTimeout, "listing permissions: page 1: timeout: no whole answer in time"},
		{"no answer of the token endpoint", token(hang), scalekit.KindTimeout, "authenticating: timeout: no whole answer in time"},
		{"half an answer", permissions(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"permissions":`)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}), scalekit.KindTimeout, "listing permissions: page 1: timeout: no whole answer in time"},
		{"a truncated answer", permissions(speaking("HTTP/1.1 200 OK\r\nDate: " + testDate + "\r\nContent-Length: 100\r\n\r\n{\"permissions\":[")), scalekit.KindMalformed, "listing permissions: page 1: malformed: the answer is truncated"},
		{"truncated JSON", permissions(answering(permissionPage("", 1, one)[:60])), scalekit.KindMalformed, "listing permissions: page 1: malformed: want one JSON value"},
		{"not JSON", permissions(answering("<html>" + leak)), scalekit.KindMalformed, "listing permissions: page 1: malformed: want one JSON value"},
		{"a field that isn't what it should be", permissions(answering(permissionPage("", 1, strings.Replace(one, "2024-01-02T00:00:00.5Z", testSecret, 1)))), scalekit.KindMalformed, "listing permissions: page 1: malformed: permissions[0].update_time: want an RFC 3339 time such as 2024-01-15T10:30:00.123456789Z, got \"[redacted]\""},
		{"a long page token", permissions(answering(permissionPage(strings.Repeat("x", 4097), 1, one))), scalekit.KindMalformed, "listing permissions: page 1: malformed: next_page_token: want at most 4096 bytes, got 4097"},
		{"a large answer", permissions(answering(`{"permissions":[` + strings.Repeat(" ", 4<<20) + `]}`)), scalekit.KindMalformed, "listing permissions: page 1: malformed: want at most 4194304 bytes in one answer"},
		{"a compressed answer", permissions(failing(200, "x", "Content-Encoding: gzip")), scalekit.KindMalformed, "listing permissions: page 1: malformed: Content-Encoding: want none, as was asked for"},
		{"no Date", permissions(speaking("HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"permissions\":[]}")), scalekit.KindMalformed, "listing permissions: page 1: malformed: the header Date: want when it was answered, got none"},
		{"another Date", permissions(failing(200, permissionPage("", 1, one), "Date: "+testSecret)), scalekit.KindMalformed, "listing permissions: page 1: malformed: the header Date: want a time such as Mon, 15 Jan 2024 10:30:00 GMT, got something else"},
		{"a Date before there was Unix", permissions(failing(200, permissionPage("", 1, one), "Date: Mon, 15 Jan 1968 10:30:00 GMT")), scalekit.KindMalformed, "listing permissions: page 1: malformed: the header Date: want a time from 1970 to 2262"},
		{"a token endpoint without JSON", token(answering(leak)), scalekit.KindMalformed, "authenticating: malformed: want one JSON value"},
		{"a token that isn't one", token(answering(`{"access_token":"` + leak + `","token_type":"Bearer","expires_in":60}`)), scalekit.KindMalformed, "authenticating: malformed: access_token: want letters, digits and -._~+/ alone"},
		{"a token of another type", token(answering(`{"access_token":"t","token_type":"mac","expires_in":60}`)), scalekit.KindMalformed, "authenticating: malformed: token_type: want Bearer, got another"},
		{"a token without life", token(answering(tokenAnswer("t", 0))), scalekit.KindMalformed, "authenticating: malformed: expires_in: want a whole number of seconds above 0, got a number"},
		{"a token with life as text", token(answering(`{"access_token":"t","token_type":"bearer","expires_in":"60"}`)), scalekit.KindMalformed, "authenticating: malformed: expires_in: want a whole number of seconds above 0, got a string"},
		{"a large token", token(answering(`{"access_token":"` + strings.Repeat("x", 64<<10) + `"}`)), scalekit.KindMalformed, "authenticating: malformed: want at most 65536 bytes in one answer"},
		{"another protocol", permissions(speaking("SSH-2.0-" + testSecret + "\r\n")), scalekit.KindMalformed, "listing permissions: page 1: malformed: want an answer of HTTP"},
		{"large headers", permissions(failing(200, "", "X: "+strings.Repeat("x", 100<<10))), scalekit.KindMalformed, "listing permissions: page 1: malformed: want an answer of HTTP"},
		{"a connection that is closed", permissions(hangUp), scalekit.KindUnreachable, "listing permissions: page 1: unreachable: the connection was closed without an answer"},
		{"nobody there", func(a *api) { a.Close() }, scalekit.KindUnreachable, "authenticating: unreachable: dial tcp 127.0.0.1:"},
		{"the same page again and again", permissions(answering(permissionPage("x", 1, one))), scalekit.KindEndless, "listing permissions: page 3: endless: next_page_token: want a new one, got one of a page before"},
		{"pages that go round", permissions(oneAfterTheOther(answering(permissionPage("x", 1, one)), answering(permissionPage("y", 1, one)), answering(permissionPage("x", 1, one)))), scalekit.KindEndless, "listing permissions: page 4: endless: next_page_token: want a new one, got one of a page before"},
		{"a page that was lost", permissions(answering(permissionPage("", 2, one))), scalekit.KindIncomplete, "listing permissions: incomplete: the pages hold 1 different permissions and total_size is 2"},
		{"a permission that changed meanwhile", permissions(oneAfterTheOther(answering(permissionPage("x", 1, one)), answering(permissionPage("", 1, listed("perm_1", "b"))))), scalekit.KindIncomplete, `listing permissions: incomplete: permission "perm_1" is listed twice with different content: it changed while the pages were fetched`},
		{"a number that changed meanwhile", permissions(oneAfterTheOther(answering(permissionPage("x", 1, one)), answering(permissionPage("", 2, listed("perm_2", "b"))))), scalekit.KindIncomplete, "listing permissions: page 2: incomplete: total_size: got 2, and 1 in a page before: the permissions changed while they were listed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPI(t)
			test.change(a)
			config := configOf(a.URL)
			if test.kind == scalekit.KindTimeout {
				t.Parallel()
				config.Timeout = time.Second
			}
			c := newClient(t, config)
			got, err := c.Permissions(t.Context())
			if failure := asAPIError(t, err); failure.Kind != test.kind || got != nil {
				t.Errorf("got %v, %s, want %s", got, failure.Kind, test.kind)
			}
			if text := err.Error(); text != test.want && (test.kind != scalekit.KindUnreachable || !strings.HasPrefix(text, test.want)) {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
			tellsNoCredentials(t, c, err)
		})
	}
}

// tellsNoCredentials looks for the credentials in all that can be printed of a client and
// its errors, and in what a log would have.
func tellsNoCredentials(t *testing.T, c *scalekit.Client, err error) {
	t.Helper()
	var all bytes.Buffer
	slog.New(slog.NewJSONHandler(&all, nil)).Error("reconciling", "error", err, "client", c)
	slog.New(slog.NewTextHandler(&all, nil)).Error("reconciling", "error", err, "client", c)
	fmt.Fprintf(&all, "%v %+v %#v", c, c, c)
	for ; err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(&all, "%v %+v %#v", err, err, err)
	}
	for _, credentials := range []string{testSecret, testToken, testToken[:20]} {
		if strings.Contains(all.String(), credentials) {
			t.Errorf("%s is told in %s", credentials, &all)
		}
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	elsewhere := newAPI(t)
	a := newAPI(t)
	a.permissions = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}
	c := newClient(t, configOf(a.URL))
	if _, err := c.Permissions(t.Context()); asAPIError(t, err).Kind != scalekit.KindRedirected {
		t.Errorf("got %v", err)
	}
	a.token = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusPermanentRedirect)
	}
	if _, err := newClient(t, configOf(a.URL)).Permissions(t.Context()); asAPIError(t, err).Kind != scalekit.KindRedirected {
		t.Errorf("got %v", err)
	}
	if asked := elsewhere.asked(); len(asked) > 0 {
		t.Errorf("followed to %q", asked)
	}
}

func TestCertificates(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Set("Date", testDate); r.URL.Path == "/oauth/token" {
			fmt.Fprint(w, tokenAnswer(testToken, 60))
			return
		}
		fmt.Fprint(w, permissionPage("", 0))
	}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := newAPI(t)
	for _, test := range []struct {
		name, url, want string
		transport       http.RoundTripper
	}{
		{"one that nobody vouches for", secure.URL, "authenticating: tls: tls: failed to verify certificate: x509: certificate signed by unknown authority", nil},
		{"one of another name", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), "authenticating: tls: tls: failed to verify certificate: x509: certificate is valid for example.com", secure.Client().Transport},
		{"none at all", strings.Replace(plain.URL, "http", "https", 1), "authenticating: tls: tls: first record does not look like a TLS handshake", nil},
		{"one that is trusted", secure.URL, "", secure.Client().Transport},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := configOf(test.url)
			config.Transport = test.transport
			c := newClient(t, config)
			_, err := c.Permissions(t.Context())
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if failure := asAPIError(t, err); failure.Kind != scalekit.KindTLS || !strings.HasPrefix(err.Error(), test.want) || errors.Unwrap(failure) == nil {
				t.Errorf("got %v, want %s", err, test.want)
			}
			tellsNoCredentials(t, c, err)
		})
	}
	if len(plain.asked()) > 0 {
		t.Errorf("asked for %q without TLS", plain.asked())
	}
}

// broken is a transport that fails.
type broken struct{ err error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

// brokenOnce is a transport that fails at one request, counted from 1.
type brokenOnce struct {
	at, requests int
	err          error
}

func (b *brokenOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.requests++; b.requests == b.at {
		return nil, b.err
	}
	return http.DefaultTransport.RoundTrip(r)
}

// What net/http returns when there is no answer, as far as a server on loopback can't bring it about.
func TestTransportErrors(t *testing.T) {
	untrusted := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	for _, test := range []struct {
		err  error
		kind scalekit.ErrorKind
		want string
	}{
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, scalekit.KindTLS, "remote error: tls: certificate required"},
		{&net.OpError{Op: "proxyconnect", Net: "tcp", Err: untrusted}, scalekit.KindTLS, "proxyconnect tcp: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{errors.New("tls: server selected unsupported protocol version 301"), scalekit.KindTLS, "tls: server selected unsupported protocol version 301"},
		{errors.New("tls: " + strings.Repeat("x", 1000)), scalekit.KindTLS, "tls: " + strings.Repeat("x", 295)},
		{errors.New("tls: " + testSecret), scalekit.KindTLS, "tls: [redacted]"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "name.scalekit.com"}}, scalekit.KindUnreachable, "dial tcp: lookup name.scalekit.com: no such host"},
		{&net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}, scalekit.KindTimeout, "no whole answer in time"},
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), scalekit.KindUnreachable, "the connection was closed without an answer"},
		{errors.New("malformed HTTP response " + testSecret), scalekit.KindMalformed, "want an answer of HTTP"},
	} {
		config := configOf("https://example.com")
		config.Transport = broken{test.err}
		_, err := newClient(t, config).Roles(t.Context())
		if failure := asAPIError(t, err); failure.Kind != test.kind || err.Error() != fmt.Sprintf("authenticating: %s: %s", test.kind, test.want) {
			t.Errorf("got %v, want %s: %s", err, test.kind, test.want)
		}
	}
}

func TestTheSecretCannotBeRead(t *testing.T) {
	a := newAPI(t)
	config := configOf(a.URL)
	unreadable := errors.New("opening secret.txt: no such file")
	for want, secret := range map[string]func() (string, error){
		"authenticating: credentials: opening secret.txt: no such file":       func() (string, error) { return testSecret, unreadable },
		"authenticating: credentials: want a client secret, got an empty one": func() (string, error) { return "\n", nil },
	} {
		config.ClientSecret = secret
		_, err := newClient(t, config).Roles(t.Context())
		if asAPIError(t, err).Kind != scalekit.KindCredentials || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if len(a.asked()) > 0 {
		t.Errorf("asked for %q", a.asked())
	}
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		header []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"Retry-After: 0"}, 0},
		{[]string{"Retry-After: 120"}, 2 * time.Minute},
		{[]string{"Retry-After: 3601"}, time.Hour},
		{[]string{"Retry-After: 99999999999999999999999"}, time.Hour},
		{[]string{"Retry-After: -5"}, 0},
		{[]string{"Retry-After: 1.5"}, 0},
		{[]string{"Retry-After: soon"}, 0},
		{[]string{"Retry-After: Mon, 15 Jan 2024 10:30:45 GMT"}, 45 * time.Second}, // by the answer's clock
		{[]string{"Retry-After: Mon, 15 Jan 2024 10:29:00 GMT"}, 0},
		{[]string{"Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"}, time.Hour},
		{[]string{"Retry-After: Mon, 15 Jan 2024 10:30:45 GMT", "Date: x"}, 0},
	} {
		a := newAPI(t)
		a.roles = failing(429, "", test.header...)
		_, err := newClient(t, configOf(a.URL)).Roles(t.Context())
		if failure := asAPIError(t, err); failure.RetryAfter != test.want || failure.Status != 429 || failure.Op != scalekit.OpRoles {
			t.Errorf("%q: got %v, want %s", test.header, err, test.want)
		}
	}
}
