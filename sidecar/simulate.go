package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/simulator"
)

// simulateConfig is what `postern simulate` runs with.
type simulateConfig struct {
	addr              listener.Address
	allowRemote       bool
	environmentURL    string
	environmentID     string
	clientID          string
	clientSecretFile  string
	tokenLifetime     time.Duration
	webhookSecret     string
	webhookSecretFile string
	webhooks          simulator.Webhooks
	faults            simulator.Faults
	fixtureFile       string
	permissions       int
	seed              uint64
	logLevel          slog.Level
	logFormat         string
}

// simulatedSecret is the client secret when no file holds another one.
const simulatedSecret = "simulated"

// settings is the table. What the sidecar calls the same has the same name, so that one
// configuration file serves both.
func (c *simulateConfig) settings() []setting { //nolint:funlen // a table is read row by row
	return []setting{
		configSetting(),
		{
			name: "addr", initial: "127.0.0.1:8580", set: address(&c.addr),
			help: "where it listens; with port 0 the kernel chooses, and the first line of the output tells",
		},
		{
			name: "allow-remote", initial: "false", bare: true, set: boolean(&c.allowRemote),
			help: "let --addr be reachable from other machines; orders under /simulator/ are taken from this one alone all the same",
		},
		{
			name: "environment-url", set: environmentURL(&c.environmentURL),
			help: "environment URL, the issuer of tokens (default http://ADDR)",
		},
		{
			name: "environment-id", initial: "env_simulated", set: environmentID(&c.environmentID),
			help: "the environment that the events come from, env_…",
		},
		{
			name: "scalekit-client-id", initial: "skc_simulated", set: text(&c.clientID),
			help: "client id of the management API",
		},
		{
			name: "scalekit-client-secret-file", set: text(&c.clientSecretFile),
			help: "file with the client secret of the management API (default the secret " + simulatedSecret + ")",
		},
		{
			name: "api-token-lifetime", initial: "23h59m59s", set: duration(&c.tokenLifetime),
			help: "how long a token of the management API is good for",
		},
		{
			name: "webhook-url", set: webhookURL(&c.webhooks.URL),
			help: "the endpoint that webhooks go to; without it none are sent",
		},
		{
			name: "webhook-secret", repeat: true, secret: true, set: joined(&c.webhookSecret),
			help: "signing secret, whsec_…; --webhook-secret-file is safer",
		},
		{
			name: "webhook-secret-file", set: text(&c.webhookSecretFile),
			help: "file with the signing secret; the first one signs",
		},
		{
			name: "webhook-timeout", initial: "10s", set: duration(&c.webhooks.Timeout),
			help: "of one attempt to deliver",
		},
		{
			name: "retry-attempts", initial: "8", set: positive(&c.webhooks.Attempts),
			help: "attempts to deliver a webhook before it is lost for ever",
		},
		{
			name: "retry-first", initial: "200ms", set: duration(&c.webhooks.First),
			help: "wait after the first failed attempt; it doubles with each one",
		},
		{
			name: "retry-longest", initial: "10s", set: duration(&c.webhooks.Longest),
			help: "longest wait between two attempts",
		},
		{
			name: "in-flight", initial: "8", set: positive(&c.webhooks.InFlight),
			help: "webhooks on their way at once; with 1 they arrive in order, unless a fault or a retry intervenes",
		},
		{
			name: "fault", repeat: true, set: faultRules(&c.faults),
			help: "what goes wrong and how often, NAME=RULE, repeatable; RULE is a part such as 5%, a number of times such as 3, or always; NAME is one of " + faultNames(),
		},
		{
			name: "fault-delay", initial: "2s", set: duration(&c.faults.Delay),
			help: "longest wait of the faults webhook_delay and webhook_reorder",
		},
		{
			name: "fault-retry-after", initial: "1s", set: duration(&c.faults.RetryAfter),
			help: "Retry-After of the fault rate_limit",
		},
		{
			name: "fault-hang", initial: "20s", set: duration(&c.faults.Hang),
			help: "how long the fault hang holds a request",
		},
		{
			name: "fixture", set: text(&c.fixtureFile),
			help: "YAML or JSON file with the permissions and roles to begin with",
		},
		{
			name: "permissions", set: positive(&c.permissions),
			help: "begin with so many made-up permissions instead",
		},
		{
			name: "seed", set: seed(&c.seed),
			help: "a number that makes ids and faults repeat (default a new one, which the first line of the output tells)",
		},
		{
			name: "log-level", initial: "info", set: logLevel(&c.logLevel),
			help: "debug, info, warn or error",
		},
		{
			name: "log-format", initial: "json", set: oneOf(&c.logFormat, "json", "text"),
			help: "json or text",
		},
	}
}

func faultNames() string {
	var b bytes.Buffer
	for i, fault := range simulator.AllFaults() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(fault))
	}
	return b.String()
}

func faultRules(into *simulator.Faults) func([]string) error {
	return func(values []string) error {
		into.Rules = map[simulator.Fault]simulator.Rule{}
		for _, value := range values {
			fault, rule, err := simulator.ParseFault(value)
			if err != nil {
				return err
			}
			into.Rules[fault] = rule
		}
		return nil
	}
}

func environmentURL(into *string) func([]string) error {
	return single(func(value string) error {
		*into = value
		return simulator.CheckURL(value)
	})
}

func webhookURL(into *string) func([]string) error {
	return single(func(value string) error {
		*into = value
		return simulator.CheckWebhookURL(value)
	})
}

// mostSeed is the greatest number that every reader of JSON keeps exact.
const mostSeed = 1<<53 - 1

func seed(into *uint64) func([]string) error {
	return single(func(value string) error {
		parsed, err := strconv.ParseUint(value, 10, 64)
		if err != nil || parsed == 0 || parsed > mostSeed {
			return fmt.Errorf("want a whole number from 1 to %d", mostSeed)
		}
		*into = parsed
		return nil
	})
}

// check looks at what the settings mean together.
func (c *simulateConfig) check() error {
	switch signs := c.webhookSecret != "" || c.webhookSecretFile != ""; {
	case c.addr.Network != "tcp":
		return usagef("--addr: want host:port, got %q", c.addr)
	case !c.addr.Local() && !c.allowRemote:
		return usagef("--addr: %s can be reached from other machines; use a loopback address, or set --allow-remote", c.addr)
	case !c.addr.Local() && c.environmentURL == "":
		return usagef("--allow-remote: want --environment-url with it, got none: tokens name it as their issuer, and %s is no name", c.addr)
	case c.webhooks.URL != "" && !signs:
		return usagef("--webhook-url: want --webhook-secret-file with it, got none")
	case c.fixtureFile != "" && c.permissions > 0:
		return usagef("--fixture, --permissions: want one of them, got both")
	}
	if c.seed == 0 {
		c.seed = 1 + rand.Uint64N(mostSeed) //nolint:gosec // it makes ids and faults, and is told
	}
	return nil
}

// run simulates until ctx ends. The first line of the output says where.
func (c *simulateConfig) run(ctx context.Context, _ []string, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	settings, err := c.simulator(newLogger(std.stderr, c.logFormat, c.logLevel))
	if err != nil {
		return err
	}
	l, err := c.addr.Listen(0)
	if err != nil {
		return err
	}
	if settings.URL == "" {
		settings.URL = "http://" + l.Addr().String()
	}
	s, err := simulator.New(settings)
	if err != nil {
		return errors.Join(usagef("%v", err), l.Close())
	}
	if err := tellWhere(std.stdout, l.Addr(), settings); err != nil {
		return errors.Join(err, l.Close())
	}
	return simulate(ctx, s, l, settings.Logger)
}

// simulator reads the files that the settings name.
func (c *simulateConfig) simulator(logger *slog.Logger) (simulator.Config, error) {
	out := simulator.Config{
		URL: c.environmentURL, EnvironmentID: c.environmentID, ClientID: c.clientID, ClientSecret: simulatedSecret,
		TokenLifetime: c.tokenLifetime, Webhooks: c.webhooks, Faults: c.faults, Fixture: simulator.Numbered(c.permissions),
		Seed: c.seed, Now: time.Now, Logger: logger,
	}
	if c.clientSecretFile != "" {
		content, err := readSmallFile(c.clientSecretFile, largestFollowedFile)
		if err != nil {
			return out, usagef("--scalekit-client-secret-file: %v", err)
		}
		out.ClientSecret = string(bytes.TrimSpace(content))
	}
	if c.webhooks.URL != "" {
		keys, err := signingKeys(c.webhookSecret, c.webhookSecretFile)
		if err != nil {
			return out, usagef("--webhook-secret, --webhook-secret-file: %v", err)
		}
		out.Webhooks.Sign = keys.Sign
	}
	if c.fixtureFile != "" {
		content, err := readSmallFile(c.fixtureFile, simulator.MaxFixture)
		if err != nil {
			return out, usagef("--fixture: %v", err)
		}
		if out.Fixture, err = simulator.ReadFixture(content); err != nil {
			return out, usagef("--fixture: %s: %v", c.fixtureFile, err)
		}
	}
	return out, nil
}

// tellWhere writes one line of JSON, which is how ports that the kernel chose become known.
func tellWhere(stdout io.Writer, addr net.Addr, c simulator.Config) error {
	return json.NewEncoder(stdout).Encode(struct {
		Message       string `json:"msg"`
		Listener      string `json:"listener"`
		Addr          string `json:"addr"`
		URL           string `json:"url"`
		EnvironmentID string `json:"environment_id"`
		Seed          uint64 `json:"seed"`
	}{"listening", "simulator", addr.String(), c.URL, c.EnvironmentID, c.Seed})
}

// simulate serves and delivers until ctx ends.
func simulate(ctx context.Context, s *simulator.Simulator, l net.Listener, logger *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := listener.NewServer(s, answerWithin, logger)
	// So that a request that hangs on purpose ends with ctx.
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	at := served{"simulator", l, server}
	go func() {
		if err := at.serve(); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("simulator listener: %w", err))
		}
	}()
	s.Run(ctx)
	var failed error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		failed = cause
	}
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWithin)
	defer cancel()
	err := errors.Join(failed, at.close(draining))
	logger.Info("stopped", "webhooks_pending", s.Counts().Pending)
	return err
}
