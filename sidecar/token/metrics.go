package token

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Names of the metrics.
const (
	metricVerifications = "postern.token.verifications"
	metricFetches       = "postern.token.keys.fetches"
	metricKeys          = "postern.token.keys"

	attributeOutcome = "outcome" // verified, remembered, or the code of what is wrong
	attributeResult  = "result"  // ok or failed

	outcomeVerified   = "verified"
	outcomeRemembered = "remembered"
)

type metrics struct{ verifications metric.Int64Counter }

func newMetrics(meter metric.Meter, k *keys) (m metrics, err error) {
	var err1, err2, err3 error
	m.verifications, err1 = meter.Int64Counter(metricVerifications,
		metric.WithDescription("Access tokens by outcome: verified, remembered from an earlier question, or the code of what is wrong."), metric.WithUnit("{token}"))
	fetches, err2 := meter.Int64ObservableCounter(metricFetches,
		metric.WithDescription("Fetches of the issuer's keys."), metric.WithUnit("{fetch}"))
	known, err3 := meter.Int64ObservableGauge(metricKeys,
		metric.WithDescription("Keys of the issuer that are known."), metric.WithUnit("{key}"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return m, err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(known, int64(k.status().Keys))
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, result := range [...]string{"ok", "failed"} {
			o.ObserveInt64(fetches, k.fetches[result], metric.WithAttributeSet(attribute.NewSet(attribute.String(attributeResult, result))))
		}
		return nil
	}, fetches, known)
	return m, err
}

func (m metrics) count(ctx context.Context, outcome string) {
	m.verifications.Add(ctx, 1, metric.WithAttributes(attribute.String(attributeOutcome, outcome)))
}
