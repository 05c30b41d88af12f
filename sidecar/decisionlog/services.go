package decisionlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/rest"
)

// uploadWithin bounds one upload, its answer included: OPA's client bounds the time to the
// first byte alone.
const uploadWithin = time.Minute

// upload is how a service is asked: as OPA does, but within a time, and without going where
// a redirect leads, since decisions and the headers of the configuration would go along.
type upload struct{ rest.HTTPAuthPlugin }

// NewClient returns OPA's client for the service, bounded.
func (u upload) NewClient(c rest.Config) (*http.Client, error) {
	client, err := u.HTTPAuthPlugin.NewClient(c)
	if err != nil {
		return nil, err
	}
	client.Timeout = uploadWithin
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

// Start does nothing.
func (upload) Start(context.Context) error { return nil }

// Stop does nothing.
func (upload) Stop(context.Context) {}

// Reconfigure does nothing.
func (upload) Reconfigure(context.Context, any) {}

// guarded returns the configuration of the plugin manager, in which a plugin asks each
// service, and these plugins by their names. OPA takes services by name, or as a list of
// objects with a name.
func guarded(o Options) (config []byte, uploads map[string]plugins.Plugin, err error) {
	signing, err := keys.ParseKeysConfig(o.Keys)
	if err != nil {
		return nil, nil, fmt.Errorf("keys: %w", err)
	}
	services := map[string]map[string]any{}
	if json.Unmarshal(o.Services, &services) != nil {
		var list []map[string]any
		if err := json.Unmarshal(o.Services, &list); err != nil {
			return nil, nil, errors.New("services: want names and what each means")
		}
		for _, service := range list {
			services[fmt.Sprint(service["name"])] = service
		}
	}
	uploads = map[string]plugins.Plugin{}
	for name, service := range services {
		plugin, err := authPlugin(service, signing)
		if err != nil {
			return nil, nil, fmt.Errorf("services.%s: %w", name, err)
		}
		asked := "upload to " + name
		uploads[asked] = upload{plugin}
		service["credentials"] = map[string]any{"plugin": asked}
	}
	config, err = json.Marshal(map[string]any{"services": services})
	return config, uploads, err
}

// authPlugin returns what OPA puts the service's credentials on requests with.
func authPlugin(service map[string]any, signing map[string]*keys.Config) (rest.HTTPAuthPlugin, error) {
	section, err := json.Marshal(service)
	if err != nil {
		return nil, err
	}
	client, err := rest.New(section, signing, rest.Logger(logging.NewNoOpLogger()))
	if err != nil {
		return nil, err
	}
	return client.Config().AuthPlugin(nil)
}
