package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/decisionlog"
	"github.com/postern-authz/postern/sidecar/feed"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/scalekit"
	"github.com/postern-authz/postern/sidecar/source"
	"github.com/postern-authz/postern/sidecar/telemetry"
	"github.com/postern-authz/postern/sidecar/token"
	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	// drainWithin bounds how long requests in flight may take at shutdown. Kubernetes kills
	// after 30 s, and the app beside Postern waits for its sidecar, too.
	drainWithin = 8 * time.Second

	answerWithin      = 30 * time.Second // for every listener but the control socket
	maintenanceWithin = 10 * time.Minute // a dump of a large catalog over the control socket
)

// mostConnections bounds the listeners that other machines reach.
var mostConnections = map[string]int{"webhook": 512, "admin": 64}

// sidecar is the running thing, and the one place that knows every room.
type sidecar struct {
	config    config
	logger    *slog.Logger
	telemetry *telemetry.Telemetry
	catalog   *catalog.Catalog
	engine    *authz.Engine
	bundles   *feed.Feed[catalog.Revision] // of the catalog
	receiver  *webhook.Receiver            // nil while the receiver is off

	reconciler *scalekit.Reconciler       // nil without credentials for Scalekit's API
	tokens     *token.Verifier[ast.Value] // nil without an issuer
	decisions  *decisionlog.Log           // nil unless --opa-config asks for one

	keys         *followed[webhook.Keys]
	apiToken     *followed[string]
	cert         *followed[tls.Certificate]
	clientSecret *followed[string]
	policyToken  *followed[string]
	verification *followed[*bundle.Verification]

	listeners []served
	startedAt time.Time
	stopping  atomic.Bool
	// bootstrapped: the decision API is open; see awaitTruth.
	bootstrapped atomic.Bool
	policies     *source.Follower
}

// served is a listener and what serves it.
type served struct {
	name     string
	listener net.Listener
	server   *http.Server
}

// newSidecar opens everything and listens; nothing is served yet. After an error
// everything is closed again.
func newSidecar(ctx context.Context, c config, logger *slog.Logger) (s *sidecar, err error) {
	s = &sidecar{config: c, logger: logger, startedAt: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.telemetry, err = telemetry.New(); err != nil {
		return s, err
	}
	if err := s.readFollowed(); err != nil {
		return s, usagef("%v", err)
	}
	if err := s.openCatalog(ctx); err != nil {
		return s, err
	}
	s.bundles = s.newCatalogFeed()
	if s.engine, err = s.newEngine(); err != nil {
		return s, err
	}
	if err := s.openPolicy(ctx); err != nil {
		return s, err
	}
	if c.reconciles() {
		if s.reconciler, err = s.newReconciler(); err != nil {
			return s, err
		}
	}
	s.bootstrapped.Store(!s.awaitsTruth())
	return s, s.listen()
}

func (s *sidecar) newEngine() (*authz.Engine, error) {
	o := authz.Options{
		Timeout:      s.config.evaluationTimeout,
		MaxInFlight:  max(2*token.MostWaiting, 8*runtime.GOMAXPROCS(0)),
		RequireToken: s.config.token.requires(),
		DenyStale:    s.config.onStale == "deny",
		AllowExplain: s.config.allowExplain,
	}
	if s.config.token.verifies() {
		verifier, err := s.newTokenVerifier()
		if err != nil {
			return nil, err
		}
		s.tokens, o.Tokens = verifier, verifier
	}
	return authz.NewEngine(o), nil
}

func (s *sidecar) openCatalog(ctx context.Context) (err error) {
	record, err := s.telemetry.CommitRecorder()
	if err != nil {
		return err
	}
	s.catalog, err = catalog.Open(ctx, catalog.Options{
		Dir:           s.config.dataDir,
		EnvironmentID: s.config.environmentID,
		LRUSize:       s.config.lruSize,
		MaxDocument:   s.config.maxDocument,
		Rebuild:       s.config.rebuild,
		Committed:     func(c catalog.Commit) { record(context.WithoutCancel(ctx), c.Requests, c.Took, c.Err) },
	})
	if err != nil {
		return err
	}
	if aside := s.catalog.MovedAside(); aside != "" {
		s.logger.Warn("the catalog's file could not be used; it was moved aside, and the catalog begins empty and incomplete", "moved_to", aside)
	}
	if err := s.catalog.WriteError(); err != nil {
		s.logger.Warn("the catalog can't be written to: questions are answered, webhooks are answered 503 until it can", "error", err)
	}
	at := s.catalog.Sync()
	s.logger.Info("catalog loaded", "epoch", at.Epoch, "revision", at.Revision, "permissions", at.Count, "complete", at.Complete)
	return s.telemetry.ObserveCatalog(s.catalogFigures)
}

func (s *sidecar) catalogFigures() telemetry.CatalogFigures {
	at, now := s.catalog.Sync(), s.catalog.Figures()
	return telemetry.CatalogFigures{
		Permissions: int64(at.Count), Revision: int64(at.Revision),
		Hits: int64(now.Hits), Misses: int64(now.Misses), Queued: int64(now.Queued), FileBytes: now.FileBytes,
	}
}

// readFollowed reads secrets, token and certificate for the first time.
func (s *sidecar) readFollowed() (err error) {
	c := s.config
	if c.receives() {
		if s.keys, err = newFollowed("--webhook-secret, --webhook-secret-file", files(c.webhookSecretFile), s.parseKeys); err != nil {
			return err
		}
	}
	if c.apiTokenFile != "" {
		if s.apiToken, err = newFollowed("--api-token-file", files(c.apiTokenFile), parseAPIToken); err != nil {
			return err
		}
	}
	if c.webhookTLSCert != "" {
		if s.cert, err = newFollowed("--webhook-tls-cert, --webhook-tls-key", files(c.webhookTLSCert, c.webhookTLSKey), parseCertificate); err != nil {
			return err
		}
	}
	if c.reconciles() {
		if s.clientSecret, err = newFollowed("--scalekit-client-secret-file", files(c.scalekitSecretFile), parseClientSecret); err != nil {
			return err
		}
	}
	return s.readPolicyFollowed()
}

func (s *sidecar) readPolicyFollowed() (err error) {
	c := s.config.policy
	if c.tokenFile != "" {
		if s.policyToken, err = newFollowed("--policy-token-file", files(c.tokenFile), parseHeaderToken); err != nil {
			return err
		}
	}
	if len(c.verification.keys) > 0 {
		s.verification, err = newFollowed("--bundle-verification-key", c.verification.paths(), c.verification.parse)
	}
	return err
}

// files leaves out settings that name none.
func files(paths ...string) (named []string) {
	for _, path := range paths {
		if path != "" {
			named = append(named, path)
		}
	}
	return named
}

// parseKeys joins the secrets of both settings: all of them are live.
func (s *sidecar) parseKeys(contents [][]byte) (webhook.Keys, error) {
	secrets := s.config.webhookSecret
	for _, content := range contents {
		secrets += "\n" + string(content)
	}
	return webhook.ParseKeys(secrets)
}

// leastToken is the shortest token that isn't worth guessing at, in bytes.
const leastToken = 16

func parseAPIToken(contents [][]byte) (string, error) {
	token := strings.TrimSpace(string(contents[0]))
	if len(token) < leastToken || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("want one token of at least %d characters without spaces", leastToken)
	}
	return token, nil
}

func parseCertificate(contents [][]byte) (tls.Certificate, error) {
	certificate, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		// The library's error names the kind of block it met, never its content.
		return tls.Certificate{}, fmt.Errorf("want a PEM certificate and its key: %w", err)
	}
	return certificate, nil
}

// listen opens every listener before one is served, so that a port that is taken stops
// the start and not the work.
func (s *sidecar) listen() error {
	for _, a := range s.config.authorizeAddrs {
		if err := s.add("authorize", a, s.guarded(a, s.authorizeRoutes()), answerWithin); err != nil {
			return err
		}
	}
	if s.config.receives() {
		receiver, err := s.newReceiver()
		if err != nil {
			return err
		}
		s.receiver = receiver
		if err := s.add("webhook", s.config.webhookAddr, s.webhookRoutes(receiver), answerWithin); err != nil {
			return err
		}
	} else {
		s.logger.Warn("webhook receiver is off: set --webhook-secret-file and --environment-id")
	}
	if err := s.add("admin", s.config.adminAddr, s.adminRoutes(), answerWithin); err != nil {
		return err
	}
	control, err := listener.UnixAddress(s.config.controlSocket)
	if err != nil {
		return fmt.Errorf("--control-socket: %w", err)
	}
	err = s.add(lastListener, control, s.controlRoutes(), maintenanceWithin)
	if s.catalog.WriteError() != nil && (errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)) {
		s.logger.Warn("no control socket: its directory can't be written to; set --control-socket to another one", "error", err)
		return nil
	}
	return err
}

// lastListener is the one that is opened last: who waits for the others waits for it.
const lastListener = "control"

// guarded puts in front of the decision API what its address needs.
func (s *sidecar) guarded(a listener.Address, handler http.Handler) http.Handler {
	if s.apiToken != nil {
		handler = listener.RequireToken(s.apiToken.get, handler)
	}
	if a.Network == "tcp" && a.Local() {
		handler = listener.LocalOnly(handler)
	}
	return handler
}

func (s *sidecar) newReceiver() (*webhook.Receiver, error) {
	var rolesChanged func()
	if s.reconciler != nil {
		rolesChanged = s.reconciler.RolesChanged
	}
	return webhook.NewReceiver(webhook.Config{
		RolesChanged:  rolesChanged,
		Keys:          s.keys.get,
		EnvironmentID: s.config.environmentID,
		Sink:          s.catalog,
		Now:           time.Now,
		Logger:        s.logger.With("listener", "webhook"),
		Meter:         s.telemetry.Meter(),
	})
}

func (s *sidecar) add(name string, a listener.Address, handler http.Handler, within time.Duration) error {
	mode := s.config.socketMode
	if name == lastListener {
		mode = 0o600
	}
	l, err := a.Listen(mode)
	if err != nil {
		return fmt.Errorf("%s listener: %w", name, err)
	}
	if most := mostConnections[name]; most > 0 {
		l = listener.Limit(l, most)
	}
	server := listener.NewServer(handler, within, s.logger.With("listener", name))
	if name == "webhook" && s.cert != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			certificate := s.cert.get()
			return &certificate, nil
		}}
	}
	s.listeners = append(s.listeners, served{name, l, server})
	return nil
}

// serve answers until ctx ends, then drains and closes everything. Its error says what
// ended it early or what did not close.
func (s *sidecar) serve(ctx context.Context, hangups <-chan os.Signal) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, l := range s.listeners {
		go func() {
			if err := l.serve(); !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("%s listener: %w", l.name, err))
			}
		}()
		s.logger.Info("listening", "listener", l.name, "addr", l.listener.Addr().String())
	}
	if s.reconciler != nil {
		go s.reconciler.Run(ctx)
	}
	if s.tokens != nil {
		go s.tokens.Run(ctx)
	}
	go s.policies.Run(ctx)
	go s.awaitTruth(ctx)
	go s.maintain(ctx, hangups)
	<-ctx.Done()
	var failed error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		failed = cause
	}
	s.logger.Info("stopping")
	err := errors.Join(failed, s.close(context.WithoutCancel(ctx)))
	s.logger.Info("stopped")
	return err
}

func (l served) serve() error {
	if l.server.TLSConfig != nil {
		return l.server.ServeTLS(l.listener, "", "")
	}
	return l.server.Serve(l.listener)
}

// maintain follows files and reloads on SIGHUP until ctx ends.
func (s *sidecar) maintain(ctx context.Context, hangups <-chan os.Signal) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	var values []reloader
	if s.keys != nil {
		values = append(values, s.keys)
	}
	if s.apiToken != nil {
		values = append(values, s.apiToken)
	}
	if s.cert != nil {
		values = append(values, s.cert)
	}
	if s.clientSecret != nil {
		values = append(values, s.clientSecret)
	}
	if s.policyToken != nil {
		values = append(values, s.policyToken)
	}
	if s.verification != nil {
		values = append(values, s.verification)
	}
	go follow(ctx, ticker.C, values, s.logger)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			s.policies.Reload()
			s.refreshKeys(ctx)
			if s.reconciler != nil {
				s.reconciler.Ask()
			}
		}
	}
}

// close stops accepting, lets what is in flight finish, and closes the catalog last.
func (s *sidecar) close(ctx context.Context) error {
	s.stopping.Store(true)
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	if s.bundles != nil {
		s.bundles.Stop() // nobody may wait for a change any more
	}
	closed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { closed <- l.close(ctx) }()
	}
	var errs []error
	for range s.listeners {
		errs = append(errs, <-closed)
	}
	if s.decisions != nil {
		errs = append(errs, s.decisions.Close(ctx))
	}
	if s.catalog != nil {
		errs = append(errs, s.catalog.Close())
	}
	if s.telemetry != nil {
		errs = append(errs, s.telemetry.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// close drains a server, and cuts off what is still in flight when ctx ends: the exit
// must not depend on a peer.
func (l served) close(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.server.Close()
	}
	// A server that never served doesn't know its listener.
	if closeErr := l.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}
