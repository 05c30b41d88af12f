package decisionlog

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/plugins/logs"
)

// defaultBufferBytes bounds what waits for an upload where the configuration doesn't; OPA
// itself would keep all of it while the service is away.
const defaultBufferBytes = 16 << 20

// parseConfig reads the section decision_logs (OPA's documentation, "Configuration",
// "Decision Logs").
func parseConfig(section json.RawMessage, services []string) (*logs.Config, error) {
	var asked struct {
		Plugin  *string `json:"plugin"`
		Console bool    `json:"console"`
	}
	if err := json.Unmarshal(section, &asked); err != nil {
		return nil, errors.New("want an object")
	}
	if asked.Plugin != nil {
		return nil, errors.New("plugin: there are no plugins here; name a service")
	}
	if asked.Console {
		return nil, errors.New("console: isn't taken; name a service")
	}
	bounded, err := withBound(section)
	if err != nil {
		return nil, err
	}
	config, err := logs.NewConfigBuilder().WithBytes(bounded).WithServices(services).Parse()
	if err != nil {
		return nil, err
	}
	if config == nil || config.Service == "" {
		return nil, errors.New("service: want the name of one of the services, got none")
	}
	return config, nil
}

// withBound returns the section with a bound for the buffer, if it has none.
func withBound(section json.RawMessage) (json.RawMessage, error) {
	var whole map[string]any
	if err := json.Unmarshal(section, &whole); err != nil {
		return nil, errors.New("want an object")
	}
	reporting, ok := whole["reporting"].(map[string]any)
	if !ok {
		if whole["reporting"] != nil {
			return nil, errors.New("reporting: want an object")
		}
		reporting = map[string]any{}
	}
	for _, bound := range [...]string{"buffer_size_limit_bytes", "max_decisions_per_second"} {
		if reporting[bound] != nil {
			return section, nil
		}
	}
	if reporting["buffer_type"] == "event" {
		return section, nil // which bounds the number of events by itself
	}
	reporting["buffer_size_limit_bytes"] = defaultBufferBytes
	whole["reporting"] = reporting
	bounded, err := json.Marshal(whole)
	if err != nil {
		return nil, fmt.Errorf("reporting: %w", err)
	}
	return bounded, nil
}
