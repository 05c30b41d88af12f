package decisionlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/topdown"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/listener"
)

// Names of the metrics.
const (
	metricDropped  = "postern.decision_log.dropped"
	attributeCause = "cause"
)

// Lines of OPA's plugin for an entry that it leaves out (plugins/logs, Log).
const (
	dropFailed = "Log drop decision failed: %v."
	maskFailed = "Log event masking failed: %v."
)

// opaDrops are OPA's own counters of what its plugin drops (plugins/logs), and what that
// is called here.
func opaDrops() map[string]string {
	return map[string]string{
		"decision_logs_dropped_rate_limit_exceeded":              "rate_limit",
		"decision_logs_dropped_buffer_size_limit_exceeded":       "buffer",
		"decision_logs_dropped_buffer_size_limit_bytes_exceeded": "buffer",
		"decision_logs_encoding_failure":                         "encoding",
	}
}

// observe publishes what was dropped.
func (l *Log) observe(meter metric.Meter) error {
	_, err := meter.Int64ObservableCounter(metricDropped,
		metric.WithDescription("Decisions that the decision log lost, by cause."), metric.WithUnit("{decision}"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for cause, n := range l.drops() {
				o.Observe(n, metric.WithAttributes(attribute.String(attributeCause, cause)))
			}
			return nil
		}))
	if err != nil {
		return fmt.Errorf("counting what the decision log drops: %w", err)
	}
	return nil
}

// drops counts what was lost, by cause.
func (l *Log) drops() map[string]int64 {
	causes := map[string]int64{"queue": l.dropped.Load(), "refused": l.failed.Load()}
	for counter, cause := range opaDrops() {
		if n, ok := l.counts.Counter(counter).Value().(uint64); ok {
			causes[cause] += int64(n)
		}
	}
	return causes
}

// opaLogger writes OPA's log lines to ours: what failed, and nothing below. Failures come
// with each decision or upload, so that their repetition is limited, by the format.
type opaLogger struct {
	failures *listener.FailureLog
	lost     *atomic.Int64 // entries that OPA's plugin left out and tells of in its log alone
	fields   []any
}

// Debug drops the line.
func (opaLogger) Debug(string, ...any) {}

// Info drops the line: it tells of each upload.
func (opaLogger) Info(string, ...any) {}

// Error writes the line.
func (l opaLogger) Error(format string, a ...any) {
	if format == dropFailed || format == maskFailed {
		l.lost.Add(1)
	}
	for i, argument := range a {
		a[i] = withoutValues(argument)
	}
	l.failures.Warn(format, fmt.Sprintf(format, a...), l.fields...)
}

// Warn writes the line.
func (l opaLogger) Warn(format string, a ...any) { l.Error(format, a...) }

// WithFields adds fields to the lines.
func (l opaLogger) WithFields(fields map[string]any) logging.Logger {
	all := slices.Clone(l.fields)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, key, fields[key])
	}
	return opaLogger{l.failures, l.lost, all}
}

// GetLevel says that nothing below warnings is wanted.
func (opaLogger) GetLevel() logging.Level { return logging.Warn }

// SetLevel changes nothing.
func (opaLogger) SetLevel(logging.Level) {}

// withoutValues says of a failed evaluation what failed and where: OPA's own text may
// quote the question, which has no business in a log.
func withoutValues(argument any) any {
	err, ok := argument.(error)
	var evaluation *topdown.Error
	if !ok || !errors.As(err, &evaluation) {
		return argument
	}
	if evaluation.Location == nil {
		return evaluation.Code
	}
	return fmt.Sprintf("%s at %s", evaluation.Code, evaluation.Location)
}
