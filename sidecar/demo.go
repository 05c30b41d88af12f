package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/simulator"
	"github.com/postern-authz/postern/sidecar/webhook"
)

// demoConfig is what `postern demo` runs with.
type demoConfig struct{ serve bool }

func (c *demoConfig) settings() []setting {
	return []setting{{
		name: "serve", initial: "false", bare: true, set: boolean(&c.serve),
		help: "keep the sidecar running afterwards, until interrupted",
	}}
}

// The demonstration's cast. Ids are as in Scalekit's documentation.
const (
	demoEnvironment = "env_1234567890"
	demoAudience    = "app.example"
	demoClient      = "skc_1234567890"
	demoPermission  = "data:manage"
	demoOther       = "data:export"
	demoThird       = "data:share"
)

// stage is where the story plays: a simulated Scalekit in this process, and a sidecar in one
// of its own, so that it can be killed.
type stage struct {
	std      streams
	dir      string
	url      string // of the simulated Scalekit
	scalekit *simulator.Simulator
	postman  *postman
	sidecar  *child
	newest   string // event of demoPermission

	ada, bob, mallory person
}

// run tells the story. Its error says which answer wasn't the expected one.
func (c *demoConfig) run(ctx context.Context, _ []string, std streams) (err error) {
	dir, err := os.MkdirTemp("", "postern-demo-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stage{std: std, dir: dir, postman: &postman{}}
	end, err := s.startScalekit(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := errors.Join(s.issueTokens(), s.start(ctx)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.sidecar.stop()) }()
	if err := s.tell(ctx); err != nil {
		return fmt.Errorf("the story didn't come true: %w", err)
	}
	s.say("\nEvery answer was the expected one.\n")
	if c.serve {
		s.keepServing(ctx)
	}
	return nil
}

func newSecret() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails, by its documentation
	return "whsec_" + base64.StdEncoding.EncodeToString(key[:])
}

func (s *stage) webhookSecretFile() string { return filepath.Join(s.dir, "webhook-secret") }
func (s *stage) clientSecretFile() string  { return filepath.Join(s.dir, "client-secret") }

// startScalekit serves a simulated one until end is called. The permissions of the story exist
// already, and one more: a list with nothing in it would be held back.
func (s *stage) startScalekit(ctx context.Context) (end func() error, err error) {
	webhookSecret, clientSecret := newSecret(), rand.Text()
	keys, err := webhook.ParseKeys(webhookSecret)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		os.WriteFile(s.webhookSecretFile(), []byte(webhookSecret+"\n"), 0o600),
		os.WriteFile(s.clientSecretFile(), []byte(clientSecret+"\n"), 0o600),
	); err != nil {
		return nil, err
	}
	at, err := listener.Address{Network: "tcp", Address: "127.0.0.1:0"}.Listen(0)
	if err != nil {
		return nil, err
	}
	s.url = "http://" + at.Addr().String()
	discarded := slog.New(slog.DiscardHandler)
	s.scalekit, err = simulator.New(simulator.Config{
		URL: s.url, EnvironmentID: demoEnvironment, ClientID: demoClient, ClientSecret: clientSecret,
		Webhooks: simulator.Webhooks{URL: "http://" + postmansAddress + "/webhooks/scalekit", Sign: keys.Sign, InFlight: 1, Transport: s.postman},
		Fixture:  simulator.Fixture{Permissions: []simulator.FixturePermission{{Name: demoPermission}, {Name: demoOther}, {Name: demoThird}, {Name: "data:read"}}},
		Now:      time.Now, Logger: discarded,
	})
	if err != nil {
		return nil, errors.Join(err, at.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- simulate(ctx, s.scalekit, at, discarded) }()
	return func() error { stop(); return <-ended }, nil
}

// issueTokens has Scalekit issue what Ada and Bob got when they logged in. Mallory's is signed
// with a key of her own.
func (s *stage) issueTokens() error {
	issue := func(into *person, name, key string, permissions ...string) (err error) {
		into.name = name
		into.token, err = s.scalekit.Mint(simulator.TokenRequest{
			Subject: subject(name), Audience: []string{demoAudience}, Permissions: permissions, Key: key,
			Age: 3 * time.Hour, Lifetime: 8 * time.Hour,
		})
		return err
	}
	return errors.Join(
		issue(&s.ada, "Ada", "", demoPermission, demoOther, demoThird),
		issue(&s.bob, "Bob", ""),
		issue(&s.mallory, "Mallory", simulator.Unpublished, demoPermission),
	)
}

func subject(name string) string { return "usr_" + strings.ToLower(name) }

// start starts the sidecar on the stage's directory, and waits until it has a catalog.
func (s *stage) start(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	s.sidecar, err = startChild(ctx, executable,
		"--authorize-addr=127.0.0.1:0", "--webhook-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--data-dir="+filepath.Join(s.dir, "data"),
		"--webhook-secret-file="+s.webhookSecretFile(), "--environment-id="+demoEnvironment,
		"--issuer="+s.url, "--audience="+demoAudience,
		"--scalekit-url="+s.url, "--scalekit-client-id="+demoClient, "--scalekit-client-secret-file="+s.clientSecretFile(),
	)
	if err != nil {
		return err
	}
	s.postman.deliverTo(s.sidecar.addr("webhook"))
	health := healthConfig{adminAddr: listener.Address{Network: "tcp", Address: s.sidecar.addr("admin")}}
	return await(ctx, 20*time.Millisecond, func(ctx context.Context) error { return health.run(ctx, nil, streams{stdout: io.Discard}) })
}

// await tries again and again until it succeeds. Its error is that of the last try.
func await(ctx context.Context, every time.Duration, try func(context.Context) error) error {
	again := time.NewTicker(every)
	defer again.Stop()
	for deadline := time.Now().Add(startWithin); ; {
		err := try(ctx)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// keepServing leaves both sides to the reader until ctx ends.
func (s *stage) keepServing(ctx context.Context) {
	s.say("\nScalekit and the sidecar go on until you press Ctrl-C. In another terminal, create the permission again:\n\n"+
		"  curl -s %s/simulator/permissions -d '{\"name\":\"%s\"}'\n\nand ask with a token that holds it:\n\n"+
		"  TOKEN=$(curl -s %s/simulator/tokens -d '{\"sub\":\"usr_ada\",\"permissions\":[\"%s\"],\"aud\":[\"%s\"]}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n"+
		"  curl -s http://%s/v1/authorize -H 'Content-Type: application/json' -H \"Postern-Access-Token: $TOKEN\" -d '%s'\n",
		s.url, demoPermission, s.url, demoPermission, demoAudience, s.sidecar.addr("authorize"), asking(subject("Ada"), demoPermission))
	<-ctx.Done()
}
