package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	lake "github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/telemetry"
	"github.com/postern-authz/postern/sidecar/webhook"
)

// receiveVerb makes this binary receive webhooks instead of measuring: Postern's receiver
// over Postern's catalog, with or without commits that deliveries share.
const receiveVerb = "receive"

// The ways to commit, the verb's last argument.
const (
	commitShared   = "shared"
	commitOneByOne = "one-by-one"
)

// oneByOne hands on one event at a time, so that each gets a commit with its syncs for
// itself: what a receiver without group commit would do.
type oneByOne struct {
	mu   sync.Mutex
	sink webhook.Sink
}

// Apply waits for all events before it.
func (o *oneByOne) Apply(ctx context.Context, event permission.Event) (permission.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sink.Apply(ctx, event)
}

// receive serves the receiver until ctx ends. It logs what Postern logs, where it listens
// first, and collects garbage as seldom as Postern does.
func receive(ctx context.Context, dir, secretFile, commits string, log io.Writer) (err error) {
	reserve := make([]byte, 32<<20) // never touched, see docs/decisions/0008
	defer runtime.KeepAlive(reserve)
	text, err := os.ReadFile(secretFile)
	if err != nil {
		return fmt.Errorf("reading the signing secret: %w", err)
	}
	keys, err := webhook.ParseKeys(string(text))
	if err != nil {
		return err
	}
	c, err := lake.Open(ctx, lake.Options{Dir: dir, EnvironmentID: environmentID, LRUSize: 10_000, Eager: commits != commitShared})
	if err != nil {
		return fmt.Errorf("opening the catalog: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var sink webhook.Sink = c
	if commits == commitOneByOne {
		sink = &oneByOne{sink: c}
	}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	handler, err := receiverOver(c, sink, keys, logger)
	if err != nil {
		return err
	}
	return serveDeliveries(ctx, handler, logger)
}

// receiverOver routes deliveries to Postern's receiver, and answers for the catalog's
// revision what Postern answers.
func receiverOver(c *lake.Catalog, sink webhook.Sink, keys webhook.Keys, logger *slog.Logger) (http.Handler, error) {
	measurements, err := telemetry.New()
	if err != nil {
		return nil, err
	}
	receiver, err := webhook.NewReceiver(webhook.Config{
		Keys:          func() webhook.Keys { return keys },
		EnvironmentID: environmentID,
		Sink:          sink,
		Now:           time.Now,
		Logger:        logger,
		Meter:         measurements.Meter(),
	})
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.Handle(deliveryPath, receiver)
	routes.HandleFunc("GET "+syncPath, func(w http.ResponseWriter, _ *http.Request) {
		listener.WriteJSON(w, http.StatusOK, map[string]uint64{"revision": c.Sync().Revision})
	})
	return routes, nil
}

// serveDeliveries says where it listens as Postern does, under the name of the listener that
// answers for the revision.
func serveDeliveries(ctx context.Context, handler http.Handler, logger *slog.Logger) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	logger.Info("listening", "listener", "authorize", "addr", l.Addr().String())
	s := listener.NewServer(handler, 30*time.Second, logger)
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // its listener is all it has
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("receiving webhooks: %w", err)
	}
	return nil
}
