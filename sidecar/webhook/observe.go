package webhook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
)

// Names of the receiver's metrics.
const (
	metricDeliveries = "postern.webhook.deliveries"
	attributeType    = "type"    // permission.created, .updated, .deleted, other, or unverified
	attributeOutcome = "outcome" // what became of it, or the code that it was refused with
)

const typeUnverified = "unverified"

type metrics struct{ deliveries metric.Int64Counter }

func newMetrics(meter metric.Meter) (m metrics, err error) {
	m.deliveries, err = meter.Int64Counter(metricDeliveries,
		metric.WithDescription("Webhook deliveries by event type and outcome."), metric.WithUnit("{delivery}"))
	return m, err
}

// count counts a delivery. Both labels have few values, whatever a sender sends.
func (m metrics) count(ctx context.Context, eventType, outcome string, err error) {
	label := typeUnverified
	if eventType != "" {
		label = knownType(eventType)
	}
	if err != nil {
		outcome = refuse(err).Code
	}
	m.deliveries.Add(ctx, 1, metric.WithAttributes(attribute.String(attributeType, label), attribute.String(attributeOutcome, outcome)))
}

// repeatAfter is how often one kind of failure is worth a line.
const repeatAfter = 10 * time.Second

// limitedLog writes a line per change and few lines per flood: anybody can send what
// fails. It counts what it leaves out.
type limitedLog struct {
	logger *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	kinds map[string]*repetition // by code, of which there are few
}

type repetition struct {
	last       time.Time
	suppressed int
}

// due reports whether a line of this kind is to be written, and how many weren't.
func (l *limitedLog) due(kind string) (suppressed int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = map[string]*repetition{}
	}
	now := l.now()
	r, known := l.kinds[kind]
	if known && now.Sub(r.last) < repeatAfter {
		r.suppressed++
		return 0, false
	}
	if known {
		suppressed = r.suppressed
	}
	l.kinds[kind] = &repetition{last: now}
	return suppressed, true
}

func (l *limitedLog) failure(refused *listener.Error, cause error, d delivery) {
	suppressed, due := l.due(refused.Code)
	if !due {
		return
	}
	attributes := []any{"status", refused.Status, "code", refused.Code, "error", cause, "suppressed", suppressed}
	if d.eventType != "" {
		attributes = append(attributes, "type", printable(d.eventType), "event_id", printable(d.event.ID))
	}
	l.logger.Warn("webhook refused", attributes...)
}

func (l *limitedLog) success(d delivery, outcome string) {
	if outcome == string(permission.OutcomeApplied) {
		l.logger.Info("permission changed", "type", d.eventType, "permission_id", d.event.PermissionID, "name", d.event.Name, "event_id", d.event.ID)
	}
	if outcome == string(permission.OutcomeConflict) {
		l.logger.Warn("event id came with two contents", "event_id", d.event.ID)
	}
	for _, warning := range d.warnings {
		if suppressed, due := l.due(warning); due {
			l.logger.Warn("event not as documented, taken all the same", "warning", warning, "event_id", d.event.ID, "suppressed", suppressed)
		}
	}
}
