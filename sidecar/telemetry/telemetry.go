// Package telemetry owns the OpenTelemetry SDK. Other rooms know OpenTelemetry's API alone
// and get a meter from here.
//
// What is counted is published: each instrument made from [Telemetry.Meter] stands on
// /metrics in the Prometheus text format.
package telemetry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// scope names Postern as the source of its measurements.
const scope = "github.com/postern-authz/postern"

// Telemetry is the running SDK.
type Telemetry struct {
	registry *prometheus.Registry
	provider *sdk.MeterProvider
}

// New starts the SDK with a registry of its own.
func New() (*Telemetry, error) {
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("starting the metrics exporter: %w", err)
	}
	return &Telemetry{registry: registry, provider: sdk.NewMeterProvider(sdk.WithReader(reader))}, nil
}

// Meter makes instruments whose measurements are published.
func (t *Telemetry) Meter() metric.Meter { return t.provider.Meter(scope) }

// Handler serves the measurements in the Prometheus text format.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Shutdown ends the SDK.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("stopping the metrics: %w", err)
	}
	return nil
}
