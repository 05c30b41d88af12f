package scalekit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// largestError is as much of an error's body as is read, in bytes.
const largestError = 64 << 10

// call is one request, and how much may come back.
type call struct {
	op    Op
	path  string
	query url.Values
	form  url.Values // sent by POST; without one the request is a GET
	token string     // access token, empty to send none
	most  int        // bytes of the answer's body
}

// answer is an answer of status 200, read to its end.
type answer struct {
	header http.Header
	body   []byte
}

// exchange sends one request. Anything but an answer of status 200 is an [APIError], or wraps
// [context.Canceled] when ctx was canceled. It calls the transport itself, since an
// [http.Client] could follow redirects and would quote URLs.
func (c *Client) exchange(ctx context.Context, call call) (*answer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	request, err := c.request(bounded, call)
	if err != nil {
		return nil, fmt.Errorf("%s: preparing the request: %w", call.op, err)
	}
	response, err := c.config.Transport.RoundTrip(request)
	if err != nil {
		return nil, c.unanswered(ctx, call.op, err)
	}
	got, err := c.read(ctx, call, response)
	if closeErr := response.Body.Close(); err == nil && closeErr != nil {
		return nil, c.unanswered(ctx, call.op, closeErr)
	}
	return got, err
}

func (c *Client) request(ctx context.Context, call call) (*http.Request, error) {
	target := c.base
	target.Path, target.RawQuery = call.path, call.query.Encode()
	method, body := http.MethodGet, io.Reader(nil)
	if call.form != nil {
		method, body = http.MethodPost, strings.NewReader(call.form.Encode())
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Accept-Encoding", "identity") // what is unpacked can't be bounded by what came
	request.Header.Set("Cache-Control", "no-cache")   // a cache between would make changes look undone
	request.Header.Set("User-Agent", c.config.UserAgent)
	if call.form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if call.token != "" {
		request.Header.Set("Authorization", "Bearer "+call.token)
	}
	return request, nil
}

func (c *Client) read(ctx context.Context, call call, response *http.Response) (*answer, error) {
	if response.StatusCode != http.StatusOK {
		return nil, c.refused(call.op, response)
	}
	if response.Header.Get("Content-Encoding") != "" {
		return nil, c.malformed(call.op, errors.New("Content-Encoding: want none, as was asked for"))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(call.most)+1))
	switch {
	case len(body) > call.most:
		return nil, c.malformed(call.op, fmt.Errorf("want at most %d bytes in one answer", call.most))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, c.malformed(call.op, errors.New("the answer is truncated"))
	case err != nil:
		return nil, c.unanswered(ctx, call.op, err)
	}
	return &answer{header: response.Header, body: body}, nil
}

// refused makes the error of an answer that isn't 200.
func (c *Client) refused(op Op, response *http.Response) *APIError {
	body, _ := io.ReadAll(io.LimitReader(response.Body, largestError)) // what is missing has no code
	code := readCode(body)
	kind := kindOf(response.StatusCode, code)
	e := &APIError{Op: op, Kind: kind, Status: response.StatusCode, Code: code}
	switch kind {
	case KindRedirected:
		e.detail = c.session.redact(fmt.Sprintf("redirects are never followed, and this one leads to %s", hostOf(response)))
	case KindRateLimited, KindServerError:
		e.RetryAfter = readRetryAfter(response.Header)
	default: // the others don't say when to come again
	}
	return e
}

var plainHost = regexp.MustCompile(`^[A-Za-z0-9.:\[\]_-]{1,255}$`)

// hostOf returns the host that a redirect leads to. The rest of its URL may hold anything.
func hostOf(response *http.Response) string {
	location, err := response.Location()
	if err != nil || !plainHost.MatchString(location.Host) {
		return "no host"
	}
	return location.Host
}

// malformed makes the error of an answer that isn't what it should be.
func (c *Client) malformed(op Op, reason error) *APIError {
	return &APIError{Op: op, Kind: KindMalformed, Status: http.StatusOK, detail: c.session.redact(reason.Error())}
}

// unanswered makes the error of a request that the transport failed with, or that broke
// while its answer was read. The text of an error that isn't known to be the network's own
// is left out: net/http quotes what it doesn't understand of an answer.
func (c *Client) unanswered(ctx context.Context, op Op, err error) error {
	e := &APIError{Op: op}
	var network *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case isTimeout(err):
		e.Kind, e.cause, e.detail = KindTimeout, context.DeadlineExceeded, "no whole answer in time"
	case isTLS(err):
		e.Kind, e.cause, e.detail = KindTLS, err, c.session.redact(fmt.Sprintf("%.300s", err)) // it may quote a certificate
	case errors.As(err, &network):
		e.Kind, e.cause, e.detail = KindUnreachable, network, network.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Kind, e.detail = KindUnreachable, "the connection was closed without an answer"
	default:
		e.Kind, e.detail = KindMalformed, "want an answer of HTTP"
	}
	return e
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &network) && network.Timeout())
}

// isTLS also goes by how crypto/tls begins its errors, since few of them have a type.
func isTLS(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &untrusted): // of a proxy as well
		return true
	case errors.As(err, &alert):
		return alert.Op == "remote error" || alert.Op == "local error"
	default:
		return strings.HasPrefix(err.Error(), "tls: ")
	}
}
