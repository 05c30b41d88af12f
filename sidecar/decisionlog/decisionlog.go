// Package decisionlog hands decisions to OPA's decision log, which masks, drops, batches
// and uploads them as a standard OPA configuration says.
//
// Invariants:
//
//   - A decision never waits for its log: what doesn't fit into a bounded queue is dropped
//     and counted.
//   - What the newest policy's system.log.mask and system.log.drop say holds, also for what is
//     still queued of an earlier one. Where they can't be evaluated, the decision isn't logged.
//   - The plugin manager that OPA's plugin needs holds nothing else: no bundles, no
//     discovery, no runtime information, and a store with the policy's own data alone.
//
// It knows nothing of Postern: main hands it finished entries.
package decisionlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	mostQueued      = 10_000                 // entries
	mostQueuedBytes = 16 << 20               // of questions and answers
	entryWithin     = time.Second            // to mask one entry
	stopWithin      = 200 * time.Millisecond // beyond the end of what Close was given
)

// Options make a [Log].
type Options struct {
	Services     json.RawMessage // section services of an OPA configuration
	Keys         json.RawMessage // section keys, which services may sign with; may be empty
	DecisionLogs json.RawMessage // section decision_logs
	ID           string          // of this instance, the label id of each entry
	Logger       *slog.Logger    // for failed uploads
	Meter        metric.Meter
}

// Entry is one decision.
type Entry struct {
	DecisionID string
	Decision   string    // path of the rule that answers, such as authz/decision
	Revision   string    // of the policy
	Input      ast.Value // the question as policies see it; nil when it wasn't read. It isn't changed any more
	Answer     []byte    // JSON as it was answered. It isn't changed any more
	At         time.Time
}

// size is about what an entry holds in memory, in bytes: a parsed question takes about
// eight times its JSON.
func (e Entry) size(question int) int64 { return int64(1024 + 8*question + len(e.Answer)) }

// Log is a running decision log. Its methods may be called at once.
type Log struct {
	manager  *plugins.Manager
	plugin   *logs.Plugin
	failures *listener.FailureLog
	queue    chan queued
	bytes    atomic.Int64  // in the queue
	dropped  atomic.Int64  // that didn't fit into it
	failed   *atomic.Int64 // that OPA's plugin refused
	counts   metrics.Metrics
	closing  chan struct{} // closed by Close
	done     chan struct{} // closed when the queue was drained after that
}

type queued struct {
	entry Entry
	size  int64
}

// New starts a log. Its error names the section of the configuration that is wrong.
func New(ctx context.Context, o Options) (*Log, error) {
	config, uploads, err := guarded(o)
	if err != nil {
		return nil, err
	}
	failures := listener.NewFailureLog(o.Logger, time.Now)
	refused := new(atomic.Int64)
	sink := opaLogger{failures: failures, lost: refused}
	manager, err := plugins.New(config, o.ID, inmem.New(), plugins.Logger(sink), plugins.ConsoleLogger(sink))
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	l := &Log{
		manager: manager, failures: failures, failed: refused, counts: metrics.New(),
		queue: make(chan queued, mostQueued), closing: make(chan struct{}), done: make(chan struct{}),
	}
	for name, plugin := range uploads {
		manager.Register(name, plugin)
	}
	if err := l.start(ctx, o); err != nil {
		manager.Stop(ctx)
		return nil, err
	}
	go l.drain(context.WithoutCancel(ctx))
	return l, nil
}

func (l *Log) start(ctx context.Context, o Options) error {
	config, err := parseConfig(o.DecisionLogs, l.manager.Services())
	if err != nil {
		return fmt.Errorf("decision_logs: %w", err)
	}
	if err := l.observe(o.Meter); err != nil {
		return err
	}
	l.plugin = logs.New(config, l.manager).WithMetrics(l.counts)
	l.manager.Register(logs.Name, l.plugin) // last: to stop what is registered waits until it was started
	if err := l.manager.Start(ctx); err != nil {
		return fmt.Errorf("starting the decision log: %w", err)
	}
	return nil
}

// Record queues an entry or drops it. question is the size of its question's JSON, in bytes.
func (l *Log) Record(e Entry, question int) {
	q := queued{e, e.size(question)}
	if l.bytes.Add(q.size) > mostQueuedBytes {
		l.bytes.Add(-q.size)
		l.dropped.Add(1)
		return
	}
	select {
	case l.queue <- q:
	default:
		l.bytes.Add(-q.size)
		l.dropped.Add(1)
	}
}

// Use makes what compiler and data say of system.log the mask of the entries that come from
// now on.
func (l *Log) Use(ctx context.Context, compiler *ast.Compiler, data map[string]any) error {
	params := storage.TransactionParams{Write: true, Context: storage.NewContext()}
	plugins.SetCompilerOnContext(params.Context, compiler)
	err := storage.Txn(ctx, l.manager.Store, params, func(txn storage.Transaction) error {
		return l.manager.Store.Write(ctx, txn, storage.ReplaceOp, storage.RootPath, data)
	})
	if err != nil {
		return fmt.Errorf("handing the policy to the decision log: %w", err)
	}
	return nil
}

// drain hands the queue to OPA's plugin until [Log.Close], and then what is left of it.
func (l *Log) drain(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case q := <-l.queue:
			l.hand(ctx, q)
			continue
		case <-l.closing:
		}
		for {
			select {
			case q := <-l.queue:
				l.hand(ctx, q)
			default:
				return
			}
		}
	}
}

func (l *Log) hand(ctx context.Context, q queued) {
	defer l.bytes.Add(-q.size)
	if err := l.log(ctx, q.entry); err != nil {
		l.failed.Add(1)
		l.failures.Warn("refused", "a decision could not be logged", "error", withoutValues(err), "decision_id", q.entry.DecisionID)
	}
}

func (l *Log) log(ctx context.Context, e Entry) error {
	ctx, stop := context.WithTimeout(ctx, entryWithin)
	defer stop()
	var answer any
	if err := json.Unmarshal(e.Answer, &answer); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	info := &server.Info{
		DecisionID: e.DecisionID,
		Path:       e.Decision,
		Bundles:    map[string]server.BundleInfo{"policy": {Revision: e.Revision}},
		Timestamp:  e.At,
		Results:    &answer,
	}
	if e.Input != nil {
		input, err := ast.JSON(e.Input)
		if err != nil {
			return fmt.Errorf("reading the question: %w", err)
		}
		info.Input, info.InputAST = &input, e.Input
	}
	// One transaction for drop and mask. Begun within the plugin it would be waited for with
	// the plugin's lock held, which the commit in Use wants while it holds the store's.
	txn, err := l.manager.Store.NewTransaction(ctx)
	if err != nil {
		return fmt.Errorf("beginning to read the policy's data: %w", err)
	}
	defer l.manager.Store.Abort(ctx, txn)
	info.Txn = txn
	return l.plugin.Log(ctx, info)
}

// Close hands over what is queued and uploads it, as far as ctx, which needs a deadline,
// lets it: it returns soon after that ends, whatever the service does. What is recorded later is
// lost. It may be called once.
func (l *Log) Close(ctx context.Context) error {
	close(l.closing)
	var err error
	select {
	case <-l.done:
	case <-ctx.Done():
		err = errors.New("decisions were still queued for the decision log")
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		l.manager.Stop(ctx) // which waits for the upload in hand, whose answer may have no end
	}()
	select {
	case <-stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case <-stopped: // it was about to
	case <-time.After(stopWithin):
		l.failures.Warn("stopping", "the decision log service didn't answer in time; what it didn't get is lost")
	}
	return err
}
