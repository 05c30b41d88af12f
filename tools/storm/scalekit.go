package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

const (
	clientID     = "skc_storm"
	clientSecret = "simulated"

	answerTakes   = 40 * time.Millisecond // of Scalekit's API
	listensWithin = 5 * time.Second       // a simulated Scalekit that comes back
	headersWithin = 5 * time.Second
)

// vendor is the simulated Scalekit: always at the same address, but sometimes gone.
type vendor struct {
	*simulator.Simulator

	addr     string
	listings atomic.Int64 // first pages that it was asked for
	shut     func()       // nil while it is gone
}

// newVendor makes one that posts its webhooks to the field's current sidecar and tells observe
// of each that ended. It isn't there before it is opened.
func newVendor(f *field, seed uint64, observe func(simulator.Delivery)) (*vendor, error) {
	key, err := decodeSecret(secret)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding an address for Scalekit: %w", err)
	}
	v := &vendor{addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("finding an address for Scalekit: %w", err)
	}
	v.Simulator, err = simulator.New(simulator.Config{
		URL: v.url(), EnvironmentID: environmentID, ClientID: clientID, ClientSecret: clientSecret, Seed: seed,
		Webhooks: simulator.Webhooks{
			URL:      "http://sidecar/webhooks/scalekit",
			Sign:     func(id string, at time.Time, body []byte) http.Header { return sign(key, id, at, body) },
			Attempts: 12, First: 20 * time.Millisecond, Longest: 500 * time.Millisecond, Timeout: 2 * time.Second,
			Transport: toCurrent{f}, Observe: observe,
		},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	return v, err
}

func (v *vendor) url() string { return "http://" + v.addr }

// flags are what a sidecar needs to reconcile with it.
func (v *vendor) flags(f *field) ([]string, error) {
	path := f.inDir("client-secret")
	if err := os.WriteFile(path, []byte(clientSecret), 0o600); err != nil {
		return nil, fmt.Errorf("writing the client secret: %w", err)
	}
	return []string{
		"--scalekit-url=" + v.url(), "--scalekit-client-id=" + clientID, "--scalekit-client-secret-file=" + path,
		"--reconcile-interval=1s",
		"--max-drift=100%", // hundreds of changes between two reconciliations are no mistake here
	}, nil
}

// open has it listen, and go on to send webhooks. Whoever had a token needs a new one.
func (v *vendor) open(ctx context.Context) error {
	l, err := v.listen(ctx)
	if err != nil {
		return err
	}
	v.RevokeAPITokens()
	server := &http.Server{Handler: v.slow(), ReadHeaderTimeout: headersWithin}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve(l) }) // it ends when it is shut
	all.Go(func() { v.Run(sending) })
	v.shut = func() {
		stop()
		_ = server.Close() // nobody is waited for
		all.Wait()
		v.shut = nil
	}
	return nil
}

// listen takes the address again. Somebody else may have it for a moment.
func (v *vendor) listen(ctx context.Context) (l net.Listener, err error) {
	taken := within(ctx, listensWithin, func() bool {
		l, err = net.Listen("tcp", v.addr)
		return err == nil
	})
	if !taken {
		return nil, errors.Join(fmt.Errorf("listening as Scalekit: %w", err), ctx.Err())
	}
	return l, nil
}

// close breaks off what is under way, as a crash does. What was being sent is sent again.
func (v *vendor) close() {
	if v.shut != nil {
		v.shut()
	}
}

// slow has every answer arrive later than it was made, so that much changes meanwhile, and
// counts listings.
func (v *vendor) slow() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/permissions" && r.URL.Query().Get("page_token") == "" {
			v.listings.Add(1)
		}
		v.ServeHTTP(late{w, r.Context()}, r)
	})
}

// late holds an answer back that has been made.
type late struct {
	http.ResponseWriter
	ctx context.Context
}

func (l late) WriteHeader(status int) {
	pause(l.ctx, answerTakes)
	l.ResponseWriter.WriteHeader(status)
}

// Unwrap is what [http.ResponseController] looks for.
func (l late) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// toCurrent carries webhooks to the current sidecar, wherever it listens, and waits for one.
type toCurrent struct{ f *field }

func (t toCurrent) RoundTrip(r *http.Request) (*http.Response, error) {
	s, err := t.f.present(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Host = s.addrs["webhook"]
	return s.client.http.Transport.RoundTrip(r)
}
