package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/metric"
)

// Names of the measurements of the catalog.
const (
	metricPermissions = "postern.catalog.permissions"
	metricRevision    = "postern.catalog.revision"
)

// ObserveCatalog publishes the number of live permissions and the revision, which read
// returns, whenever somebody asks for the metrics.
func (t *Telemetry) ObserveCatalog(read func() (permissions, revision int64)) error {
	meter := t.Meter()
	permissions, err := meter.Int64ObservableGauge(metricPermissions, metric.WithDescription("Live permissions in the catalog."), metric.WithUnit("{permission}"))
	if err != nil {
		return err
	}
	revision, err := meter.Int64ObservableGauge(metricRevision, metric.WithDescription("Revision of the catalog: commits that changed it."), metric.WithUnit("{revision}"))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		live, at := read()
		o.ObserveInt64(permissions, live)
		o.ObserveInt64(revision, at)
		return nil
	}, permissions, revision)
	return err
}
