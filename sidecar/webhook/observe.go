package webhook

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
)

// Names of the receiver's metrics.
const (
	metricDeliveries = "postern.webhook.deliveries"
	metricSkew       = "postern.webhook.clock.skew"
	attributeType    = "type"    // permission.created, .updated, .deleted, other, or unverified
	attributeOutcome = "outcome" // what became of it, or the code that it was refused with
)

const typeUnverified = "unverified"

type metrics struct{ deliveries metric.Int64Counter }

// newMetrics makes the receiver's instruments; skew returns false while it isn't known.
func newMetrics(meter metric.Meter, skew func() (time.Duration, bool)) (m metrics, err error) {
	m.deliveries, err = meter.Int64Counter(metricDeliveries,
		metric.WithDescription("Webhook deliveries by event type and outcome."), metric.WithUnit("{delivery}"))
	if err != nil {
		return m, err
	}
	_, err = meter.Float64ObservableGauge(metricSkew,
		metric.WithDescription("This machine's clock minus the timestamps of verified webhooks: the median of the last ones within an hour."), metric.WithUnit("s"),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			if known, ok := skew(); ok {
				o.Observe(known.Seconds())
			}
			return nil
		}))
	return m, err
}

// Clock says in one line what the deliveries tell of this machine's clock, for an operator.
func (rc *Receiver) Clock() string {
	now := rc.config.Now()
	rc.look(now)
	return rc.clock.tell(rc.clock.moment(now))
}

func (rc *Receiver) skew() (time.Duration, bool) {
	now := rc.config.Now()
	rc.look(now)
	return rc.clock.skewAt(rc.clock.moment(now))
}

// look notices that the wall clock jumped since somebody looked last.
func (rc *Receiver) look(now time.Time) {
	if by := rc.clock.look(rc.clock.moment(now)); by != 0 {
		rc.log.failures.Warn("clock_jumped", "this machine's clock jumped, or the machine slept", "by_seconds", by.Seconds())
	}
}

// compare compares this machine's clock with the sender's, which the delivery proved to be
// one that knows the secret.
func (rc *Receiver) compare(c claim) {
	if skew, alarm := rc.clock.verified(c.id, c.timestamp, rc.clock.moment(c.receivedAt)); alarm {
		rc.log.failures.Warn("clock_skewed", "this machine's clock and the webhooks' timestamps disagree; beyond 300 s every webhook is refused", "skew_seconds", skew.Seconds())
	}
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
