package webhook

import (
	"context"
	"log/slog"

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

// log writes a line per change, and few lines per flood: anybody can send what fails.
type log struct {
	changes  *slog.Logger
	failures *listener.FailureLog
}

func (l log) failure(refused *listener.Error, cause error, d delivery) {
	attributes := []any{"status", refused.Status, "code", refused.Code, "error", cause}
	if d.webhookID != "" {
		attributes = append(attributes, "webhook_id", printable(d.webhookID))
	}
	if d.eventType != "" {
		attributes = append(attributes, "type", printable(d.eventType), "event_id", printable(d.event.ID))
	}
	l.failures.Warn(refused.Code, "webhook refused", attributes...)
}

func (l log) success(d delivery, outcome string) {
	if outcome == string(permission.OutcomeApplied) {
		l.changes.Info("permission changed", "type", d.eventType, "permission_id", d.event.PermissionID, "name", d.event.Name, "event_id", d.event.ID)
	}
	if outcome == string(permission.OutcomeConflict) {
		l.failures.Warn(outcome, "event id came with two contents", "event_id", d.event.ID)
	}
	for _, warning := range d.warnings {
		l.failures.Warn(warning, "event not as documented, taken all the same", "warning", warning, "event_id", d.event.ID)
	}
}
