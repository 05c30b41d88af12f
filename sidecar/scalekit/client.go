// Package scalekit knows Scalekit's management API: it fetches what the environment holds,
// so that a webhook that never came is noticed.
//
// Its promise: an answer is taken whole or not at all, and whatever goes wrong has one of a
// few kinds (see [ErrorKind]). Every answer is bounded in size and depth, no redirect is
// followed, and neither the client secret nor an access token appears in an error. The
// clocks that are compared are Scalekit's own.
package scalekit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
)

// ClientConfig is what a [Client] is made of.
type ClientConfig struct {
	BaseURL      string                 // the environment's URL, see [CheckURL]
	ClientID     string                 // "skc_…"
	ClientSecret func() (string, error) // asked at each authentication, so that a changed file takes effect
	Timeout      time.Duration          // of one request, its answer included
	UserAgent    string                 // of every request; optional
	Transport    http.RoundTripper      // optional; without it the system's certificates and HTTPS_PROXY count
	Now          func() time.Time       // for the age of an access token alone; optional

	// Sleep waits between two attempts at one page, or until ctx is done; optional.
	Sleep func(context.Context, time.Duration) error
	// Random returns a number in [0, 1), for the jitter of the waits; optional.
	Random func() float64
}

// Client asks Scalekit's management API. It is safe for concurrent use.
type Client struct {
	base     url.URL
	config   ClientConfig
	session  *session // a pointer, so that printing a Client doesn't print it
	turn     chan struct{}
	limits   limits
	pageWait Backoff // copied for each page
}

// limits of a walk over all pages. Tests lower them.
type limits struct {
	pages       int
	permissions int // entries, Scalekit's own permissions included
	bytes       int
	retries     int           // of all pages together
	time        time.Duration // from the first request to the last answer
}

// NewClient checks the configuration. It doesn't ask anything yet.
func NewClient(config ClientConfig) (*Client, error) {
	base, err := parseURL(config.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("the URL of the environment: %w", err)
	}
	if err := permission.CheckText("the client id", config.ClientID, 1, permission.MaxID); err != nil {
		return nil, err
	}
	if config.ClientSecret == nil || config.Timeout <= 0 {
		return nil, errors.New("want a client secret and a timeout")
	}
	if config.Transport == nil {
		config.Transport = newTransport()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Sleep == nil {
		config.Sleep = sleep
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	return &Client{
		base:     *base,
		config:   config,
		session:  &session{},
		turn:     make(chan struct{}, 1),
		limits:   limits{pages: 100_000, permissions: 2_000_000, bytes: 1 << 30, retries: 100, time: 30 * time.Minute},
		pageWait: Backoff{Base: time.Second, Max: 30 * time.Second, Random: config.Random},
	}, nil
}

// CheckURL returns an error unless text is the URL of an environment: https, or http on a
// loopback address, and nothing behind the host.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

// parseURL quotes nothing that may be a password.
func parseURL(text string) (*url.URL, error) {
	const example = "such as https://NAME.scalekit.com"
	base, err := url.Parse(text)
	if err != nil || base.Hostname() == "" || base.Opaque != "" {
		return nil, errors.New("want an absolute URL " + example)
	}
	switch {
	case base.User != nil:
		return nil, errors.New("want no user or password in it")
	case (base.Path != "" && base.Path != "/") || base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return nil, errors.New("want nothing behind the host, " + example)
	case base.Scheme == "https", base.Scheme == "http" && listener.IsLoopbackHost(base.Hostname()):
		return base, nil
	default:
		return nil, errors.New("want https (http on a loopback address alone), " + example)
	}
}

// newTransport is like net/http's own, with bounds. A request's timeout doesn't end a dial that
// another request could use, so dials have their own.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true,
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
