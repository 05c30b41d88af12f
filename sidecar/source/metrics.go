package source

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Names of the metrics.
const (
	metricReloads    = "postern.policy.reloads"
	metricSuccessful = "postern.policy.last_reload.successful"
	metricSuccess    = "postern.policy.last_reload.success"
	metricMistake    = "postern.policy.mistake"

	attributeOutcome = "outcome"
	attributeFile    = "file"
	attributeLine    = "line"

	outcomeOK          = "ok"
	outcomeInvalid     = "invalid"     // it can't be read, verified, joined or compiled
	outcomeRollback    = "rollback"    // older than the one in use
	outcomeUnavailable = "unavailable" // the server or the file can't be reached
)

type metrics struct{ reloads metric.Int64Counter }

func newMetrics(meter metric.Meter, f *Follower) (m metrics, err error) {
	var err1, err2, err3, err4 error
	m.reloads, err1 = meter.Int64Counter(metricReloads,
		metric.WithDescription("Policies put to use (ok), and attempts that failed: invalid, rollback, unavailable."), metric.WithUnit("{reload}"))
	successful, err2 := meter.Int64ObservableGauge(metricSuccessful,
		metric.WithDescription("1 while the newest policy of every source is in use, 0 while one is refused or can't be had."))
	success, err3 := meter.Int64ObservableGauge(metricSuccess,
		metric.WithDescription("Unix time when a policy was put to use last, 0 before the first."), metric.WithUnit("s"))
	mistake, err4 := meter.Int64ObservableGauge(metricMistake,
		metric.WithDescription("1 for the file and line of the first mistake in Rego, while a policy is refused for it."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return m, err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		at := f.Status()
		value := int64(0)
		if at.Used && at.Failure == nil {
			value = 1
		}
		o.ObserveInt64(successful, value)
		if where, ok := placeOf(at.Failure); ok {
			o.ObserveInt64(mistake, 1, where)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		value = 0
		if !f.success.IsZero() {
			value = f.success.Unix()
		}
		o.ObserveInt64(success, value)
		return nil
	}, successful, success, mistake)
	return m, err
}

// placeOf returns the file and line of the first mistake that OPA's parser or compiler found.
func placeOf(failure error) (metric.MeasurementOption, bool) {
	var mistake *ast.Error
	if !errors.As(failure, &mistake) || mistake.Location == nil {
		return nil, false
	}
	return metric.WithAttributes(attribute.String(attributeFile, mistake.Location.File), attribute.Int(attributeLine, mistake.Location.Row)), true
}

func (m metrics) count(ctx context.Context, outcome string) {
	m.reloads.Add(ctx, 1, metric.WithAttributes(attribute.String(attributeOutcome, outcome)))
}

func outcomeOf(err error) string {
	var unavailable *unavailableError
	switch {
	case errors.As(err, &unavailable):
		return outcomeUnavailable
	case errors.Is(err, errRollback):
		return outcomeRollback
	}
	return outcomeInvalid
}

// unavailableError is a place that can't be reached: what is there isn't known.
type unavailableError struct{ cause error }

// Error says why.
func (e *unavailableError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *unavailableError) Unwrap() error { return e.cause }
