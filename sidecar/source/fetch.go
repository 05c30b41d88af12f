package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// bundleType is the content type by which a server says that it can hold a request until
// there is something new (https://www.openpolicyagent.org/docs/management-bundles#http-long-polling).
const bundleType = "application/vnd.openpolicyagent.bundles"

const (
	answerWithin  = 10 * time.Second // to the first byte, what a held request is held not counted
	bodyWithin    = time.Minute
	mostRedirects = 5
	longestError  = 500     // bytes
	longestETag   = 4 << 10 // bytes; a longer one may be more than what its server takes back
)

// answer is what a server says about a bundle.
type answer struct {
	unchanged bool   // 304
	body      []byte // else
	etag      string
	longPoll  bool // it can hold requests
}

// request is one of the OPA bundle protocol.
type request struct {
	etag string        // of what is known; empty: nothing is
	hold time.Duration // how long the server may hold it; 0: it isn't asked to
}

// fetch asks for the bundle once.
func (r *remote) fetch(ctx context.Context, q request) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := time.AfterFunc(r.answerWithin+q.hold, func() { cancel(errors.New("no answer came in time")) })
	defer slow.Stop()
	asked, err := r.newRequest(ctx, q)
	if err != nil {
		return answer{}, err
	}
	response, err := r.client.Do(asked)
	if err != nil {
		return answer{}, withoutURL(ctx, err)
	}
	defer func() { _ = response.Body.Close() }() // it was read, or isn't wanted
	slow.Reset(bodyWithin)
	a := answer{etag: response.Header.Get("ETag"), longPoll: response.Header.Get("Content-Type") == bundleType}
	if len(a.etag) > longestETag {
		a.etag = ""
	}
	switch {
	case response.StatusCode == http.StatusNotModified && q.etag != "":
		a.unchanged = true
		return a, nil
	case response.StatusCode != http.StatusOK:
		return a, fmt.Errorf("want status 200, got %d", response.StatusCode)
	}
	if a.body, err = readAtMost(response.Body, r.largest, "it"); err != nil {
		return a, withoutURL(ctx, err)
	}
	if len(a.body) == 0 {
		return a, errors.New("want a bundle, got an empty answer")
	}
	return a, nil
}

func (r *remote) newRequest(ctx context.Context, q request) (*http.Request, error) {
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, r.at.url.String(), nil)
	if err != nil {
		return nil, errors.New("want a URL that can be asked")
	}
	for name, value := range r.at.header {
		asked.Header.Set(name, value)
	}
	if r.userAgent != "" {
		asked.Header.Set("User-Agent", r.userAgent)
	}
	prefer := "modes=snapshot"
	if q.hold > 0 {
		prefer += fmt.Sprintf(";wait=%d", int(q.hold.Seconds()))
	}
	asked.Header.Set("Prefer", prefer)
	if q.etag != "" {
		asked.Header.Set("If-None-Match", q.etag)
	}
	if err := r.prepare(asked); err != nil {
		return nil, fmt.Errorf("credentials: %w", withoutURL(ctx, err))
	}
	return asked, nil
}

// withoutURL takes the URL out of an error, whose query may be a secret.
func withoutURL(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var asked *url.Error
	for errors.As(err, &asked) {
		err = asked.Err
	}
	return withoutQuotes(err)
}

// withoutQuotes cuts an error short that quotes at length what a server sent, or with it the
// query of a URL.
func withoutQuotes(err error) error {
	text, _, query := strings.Cut(err.Error(), "?")
	if len(text) > longestError {
		text, query = strings.ToValidUTF8(text[:longestError], ""), true
	}
	if query {
		return errors.New(text + "…")
	}
	return err
}

// newClient asks the bundle URLs of --policy. Proxies are taken from the environment.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return bounded(&http.Client{Transport: transport})
}

// bounded sets what every client has in common.
func bounded(client *http.Client) *http.Client {
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.MaxResponseHeaderBytes = 64 << 10
		transport.DisableCompression = true // a bundle is packed already, and to be kept as it came
		transport.ResponseHeaderTimeout = 0 // the request has one, which knows how long it may be held
	}
	client.CheckRedirect = followRedirect
	return client
}

// ofProtocol are the headers that may go along to another origin. Whatever else was set may be
// a credential, the referrer included.
func ofProtocol() []string { return []string{"Accept", "User-Agent", "Prefer", "If-None-Match"} }

// followRedirect goes where a server says, without credentials unless that is the same origin.
func followRedirect(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	switch {
	case len(before) > mostRedirects:
		return fmt.Errorf("more than %d redirects", mostRedirects)
	case !trustworthy(next.URL) || first.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("redirected away from https")
	case next.URL.Scheme == first.Scheme && strings.EqualFold(next.URL.Host, first.Host):
		return nil
	}
	maps.DeleteFunc(next.Header, func(name string, _ []string) bool { return !slices.Contains(ofProtocol(), name) })
	return nil
}
