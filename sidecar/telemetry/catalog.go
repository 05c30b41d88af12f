package telemetry

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Names of the measurements of the catalog.
const (
	metricPermissions = "postern.catalog.permissions"
	metricRevision    = "postern.catalog.revision"
	metricLookups     = "postern.catalog.lookups"
	metricQueue       = "postern.catalog.queue"
	metricFile        = "postern.catalog.file.size"
	metricCommit      = "postern.catalog.commit.duration"
	metricGroup       = "postern.catalog.commit.requests"

	attributeResult = "result" // of a lookup: hit or miss; of a commit: ok or failed
)

// CatalogFigures are read whenever somebody asks for the metrics.
type CatalogFigures struct {
	Permissions int64 // live
	Revision    int64
	Hits        int64 // records found in memory
	Misses      int64 // records read from the file
	Queued      int64 // requests that wait for a commit
	FileBytes   int64
}

// ObserveCatalog publishes what read returns.
func (t *Telemetry) ObserveCatalog(read func() CatalogFigures) error {
	meter := t.Meter()
	gauge := func(name, unit, description string) (metric.Int64ObservableGauge, error) {
		return meter.Int64ObservableGauge(name, metric.WithDescription(description), metric.WithUnit(unit))
	}
	permissions, err1 := gauge(metricPermissions, "{permission}", "Live permissions in the catalog.")
	revision, err2 := gauge(metricRevision, "{revision}", "Revision of the catalog: commits that changed it.")
	queued, err3 := gauge(metricQueue, "{request}", "Events that wait for a commit.")
	size, err4 := gauge(metricFile, "By", "Size of the catalog's file.")
	lookups, err5 := meter.Int64ObservableCounter(metricLookups,
		metric.WithDescription("Records that questions asked for, found in memory (hit) or read from the file (miss)."), metric.WithUnit("{lookup}"))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	hit, miss := resultIs("hit"), resultIs("miss")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := read()
		o.ObserveInt64(permissions, now.Permissions)
		o.ObserveInt64(revision, now.Revision)
		o.ObserveInt64(queued, now.Queued)
		o.ObserveInt64(size, now.FileBytes)
		o.ObserveInt64(lookups, now.Hits, hit)
		o.ObserveInt64(lookups, now.Misses, miss)
		return nil
	}, permissions, revision, queued, size, lookups)
	return err
}

// CommitRecorder returns a function that records a commit of so many requests, how long it
// took, its sync included, and what it failed with.
func (t *Telemetry) CommitRecorder() (func(ctx context.Context, requests int, took time.Duration, err error), error) {
	duration, err1 := t.Meter().Float64Histogram(metricCommit,
		metric.WithDescription("Time of a commit of the catalog, its sync included."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5))
	group, err2 := t.Meter().Int64Histogram(metricGroup,
		metric.WithDescription("Events that shared a commit."), metric.WithUnit("{request}"),
		metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	ok, failed := resultIs("ok"), resultIs("failed")
	return func(ctx context.Context, requests int, took time.Duration, err error) {
		result := ok
		if err != nil {
			result = failed
		}
		duration.Record(ctx, took.Seconds(), result)
		group.Record(ctx, int64(requests), result)
	}, nil
}

func resultIs(result string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(attributeResult, result)))
}
