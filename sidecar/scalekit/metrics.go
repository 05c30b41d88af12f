package scalekit

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Names of the reconciler's metrics.
const (
	metricReconciliations = "postern.reconcile.runs"
	metricDuration        = "postern.reconcile.duration"
	metricDrift           = "postern.reconcile.drift"
	metricLastSuccess     = "postern.reconcile.last_success"
	metricState           = "postern.sync.state"

	attributeOutcome = "outcome" // ok, or the kind of the failure
	attributeKind    = "kind"    // missing, surplus or different
	attributeState   = "state"
)

type metrics struct {
	runs     metric.Int64Counter
	duration metric.Float64Histogram
}

func newMetrics(meter metric.Meter, r *Reconciler) (m metrics, err error) {
	var err1, err2, err3, err4, err5 error
	m.runs, err1 = meter.Int64Counter(metricReconciliations,
		metric.WithDescription("Reconciliations with Scalekit's API by outcome: ok, or the kind of the failure."), metric.WithUnit("{run}"))
	m.duration, err2 = meter.Float64Histogram(metricDuration,
		metric.WithDescription("Time of a reconciliation, listing included."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300))
	drift, err3 := meter.Int64ObservableGauge(metricDrift,
		metric.WithDescription("Permissions that differed at the last reconciliation: missing here, surplus here, or different."), metric.WithUnit("{permission}"))
	last, err4 := meter.Float64ObservableGauge(metricLastSuccess,
		metric.WithDescription("Unix time of the last reconciliation that succeeded, 0 before the first."), metric.WithUnit("s"))
	state, err5 := meter.Int64ObservableGauge(metricState,
		metric.WithDescription("1 for the state that the catalog is in."))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return m, err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		d := r.board.lastDrift()
		o.ObserveInt64(drift, int64(d.Missing.Count), labeled(attributeKind, "missing"))
		o.ObserveInt64(drift, int64(d.Surplus.Count), labeled(attributeKind, "surplus"))
		o.ObserveInt64(drift, int64(d.Different.Count), labeled(attributeKind, "different"))
		now := r.Status()
		if o.ObserveFloat64(last, 0); !now.LastSuccess.IsZero() {
			o.ObserveFloat64(last, float64(now.LastSuccess.UnixMilli())/1000)
		}
		for _, s := range [...]State{StateBootstrapping, StateFresh, StateStale} {
			value := int64(0)
			if s == now.State {
				value = 1
			}
			o.ObserveInt64(state, value, labeled(attributeState, string(s)))
		}
		return nil
	}, drift, last, state)
	return m, err
}

func (m metrics) count(ctx context.Context, took time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = string(failureKind(err))
	}
	m.runs.Add(ctx, 1, labeled(attributeOutcome, outcome))
	m.duration.Record(ctx, took.Seconds(), labeled(attributeOutcome, outcome))
}

func labeled(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

// lastDrift returns what the last reconciliation found, and nothing if it found nothing.
func (b *board) lastDrift() Drift {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.drifting || b.status.Drift == nil {
		return Drift{}
	}
	return b.status.Drift.Drift
}
