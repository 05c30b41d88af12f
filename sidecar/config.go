package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

// config is what `postern run` runs with.
type config struct {
	authorizeAddrs    []listener.Address
	socketMode        fs.FileMode
	allowRemote       bool
	apiTokenFile      string
	webhookAddr       listener.Address
	webhookPath       string
	webhookSecret     string
	webhookSecretFile string
	webhookTLSCert    string
	webhookTLSKey     string
	environmentID     string
	adminAddr         listener.Address
	dataDir           string
	controlSocket     string
	rebuild           bool
	lruSize           int
	maxDocument       catalog.Limit
	evaluationTimeout time.Duration
	allowExplain      bool
	onIncomplete      string
	logLevel          slog.Level
	logFormat         string

	scalekitURL        string
	scalekitClientID   string
	scalekitSecretFile string
	bootstrapWait      time.Duration
	reconcileInterval  time.Duration
	staleAfter         time.Duration
	maxDrift           float64
	onStale            string

	policy policyConfig
	token  tokenConfig
}

// settings is the one table that says what can be configured. README and docs tell the
// same and a test compares them.
func (c *config) settings() []setting { //nolint:funlen // a table is read row by row
	return slices.Concat([]setting{
		configSetting(),
		{
			name: "authorize-addr", initial: "127.0.0.1:8181", repeat: true, set: addresses(&c.authorizeAddrs),
			help: "decision API: host:port or unix:///path.sock; several, comma-separated. A TCP address that isn't loopback needs --allow-remote",
		},
		{
			name: "socket-mode", initial: "0660", set: fileMode(&c.socketMode),
			help: "mode of a Unix socket of --authorize-addr",
		},
		{
			name: "allow-remote", initial: "false", bare: true, set: boolean(&c.allowRemote),
			help: "let --authorize-addr be reachable from other machines; needs --api-token-file",
		},
		{
			name: "api-token-file", set: text(&c.apiTokenFile),
			help: "file with the bearer token that the decision API then asks for; its changes are followed",
		},
		{
			name: "webhook-addr", initial: "0.0.0.0:8480", set: address(&c.webhookAddr),
			help: "webhook receiver; off while there is no secret",
		},
		{
			name: "webhook-path", initial: "/webhooks/scalekit", set: urlPath(&c.webhookPath),
			help: "path of the webhook receiver",
		},
		{
			name: "webhook-secret", repeat: true, secret: true, set: joined(&c.webhookSecret),
			help: "signing secrets, whsec_…, at most 8; --webhook-secret-file is safer, since arguments can be seen by other processes",
		},
		{
			name: "webhook-secret-file", set: text(&c.webhookSecretFile),
			help: "file with one or more signing secrets, comma- or newline-separated; its changes are followed",
		},
		{
			name: "webhook-tls-cert", set: text(&c.webhookTLSCert),
			help: "PEM file with the receiver's certificate chain; its changes are followed",
		},
		{
			name: "webhook-tls-key", set: text(&c.webhookTLSKey),
			help: "PEM file with the key of --webhook-tls-cert",
		},
		environmentSetting(&c.environmentID),
		{
			name: "admin-addr", initial: "0.0.0.0:8282", set: address(&c.adminAddr),
			help: "probes and metrics",
		},
		dataDirSetting(&c.dataDir),
		controlSocketSetting(&c.controlSocket),
		{
			name: "rebuild", initial: "false", bare: true, set: boolean(&c.rebuild),
			help: "move a damaged catalog file aside, and begin empty and incomplete; a sound file stays",
		},
		{
			name: "lru-size", initial: "10000", set: positive(&c.lruSize),
			help: "hot permission records kept in memory",
		},
		{
			name: "max-document", initial: "100000,32MiB", set: documentLimit(&c.maxDocument),
			help: "largest whole-document read: records, and bytes with an optional KiB, MiB or GiB",
		},
	}, c.policy.settings(), []setting{
		{
			name: "evaluation-timeout", initial: "1s", set: duration(&c.evaluationTimeout),
			help: "longest evaluation of one question; it is denied then",
		},
		{
			name: "allow-explain", initial: "false", bare: true, set: boolean(&c.allowExplain),
			help: "answer POST /v1/authorize?explain=true with an explanation, which shows values of question, claims and catalog to whoever asks; for development",
		},
		{
			name: "on-incomplete", initial: "deny", set: oneOf(&c.onIncomplete, "deny", "defer"),
			help: "while the catalog is incomplete, a permission never seen is denied (deny) or judged by the grant alone (defer)",
		},
		{
			name: "scalekit-url", secret: true, set: scalekitURL(&c.scalekitURL),
			help: "URL of the Scalekit environment, to fetch the permissions from its API and to notice webhooks that never came; needs the next two",
		},
		{
			name: "scalekit-client-id", set: text(&c.scalekitClientID),
			help: "id of the API credentials",
		},
		{
			name: "scalekit-client-secret-file", set: text(&c.scalekitSecretFile),
			help: "file with the secret of the API credentials; its changes are followed",
		},
		{
			name: "bootstrap-wait", initial: "30s", set: duration(&c.bootstrapWait),
			help: "longest wait for the first listing when there is no catalog on disk; questions are answered 503 meanwhile, and from an incomplete catalog afterwards",
		},
		{
			name: "reconcile-interval", initial: "5m", set: duration(&c.reconcileInterval),
			help: "time between two reconciliations with Scalekit's API, give or take a tenth",
		},
		{
			name: "stale-after", initial: "15m", set: duration(&c.staleAfter),
			help: "data.scalekit.sync.state is stale when the last reconciliation that succeeded is as long ago",
		},
		{
			name: "max-drift", initial: "20%", set: percentage(&c.maxDrift),
			help: "a listing that would remove a larger part of the live permissions (and more than 10) is held back until `postern catalog accept`",
		},
		{
			name: "on-stale", initial: "serve", set: oneOf(&c.onStale, "serve", "deny"),
			help: "while the catalog is stale, questions are answered all the same (serve) or denied whatever the policy says (deny)",
		},
	}, c.token.settings(), []setting{
		{
			name: "log-level", initial: "info", set: logLevel(&c.logLevel),
			help: "debug, info, warn or error",
		},
		{
			name: "log-format", initial: "json", set: oneOf(&c.logFormat, "json", "text"),
			help: "json or text",
		},
	})
}

// The settings that several verbs share.

func configSetting() setting {
	return setting{name: configFlag, help: "YAML file with settings; flags and environment go before it"}
}

func environmentSetting(into *string) setting {
	return setting{
		name: "environment-id", set: environmentID(into),
		help: "the Scalekit environment that the events come from, env_…; required with the receiver",
	}
}

func dataDirSetting(into *string) setting {
	return setting{
		name: "data-dir", initial: "./postern-data", set: text(into),
		help: "directory of the durable catalog, for one process at a time",
	}
}

func controlSocketSetting(into *string) setting {
	return setting{
		name: "control-socket", set: text(into),
		help: "Unix socket for maintenance (default DATA_DIR/control.sock)",
	}
}

func allowBuiltinSetting(into *[]string) setting {
	return setting{
		name: "allow-builtin", repeat: true, set: list(into),
		help: "Rego builtin to allow that is left out for safety, such as http.send; repeatable",
	}
}

func decisionSetting(into *string) setting {
	return setting{name: "decision", initial: "authz/decision", set: text(into), help: "the Rego rule that answers"}
}

// check looks at what the settings mean together.
func (c *config) check() error {
	if c.controlSocket == "" {
		c.controlSocket = controlSocketIn(c.dataDir)
	}
	for _, a := range c.authorizeAddrs {
		if a.Local() {
			continue
		}
		if !c.allowRemote {
			return usagef("--authorize-addr: %s can be reached from other machines; use a loopback address, or set --allow-remote and --api-token-file", a)
		}
		if c.apiTokenFile == "" {
			return usagef("--allow-remote: want --api-token-file with it, got none")
		}
	}
	if c.receives() && c.environmentID == "" {
		return usagef("--environment-id: want the Scalekit environment that the webhooks come from (env_…), got none; validly signed samples of another one would be taken otherwise")
	}
	if (c.webhookTLSCert == "") != (c.webhookTLSKey == "") {
		return usagef("--webhook-tls-cert, --webhook-tls-key: want both or none")
	}
	if err := c.checkTruth(); err != nil {
		return err
	}
	if err := c.policy.check(); err != nil {
		return err
	}
	return c.token.check()
}

// receives reports whether the webhook receiver is on.
func (c *config) receives() bool { return c.webhookSecret != "" || c.webhookSecretFile != "" }

func controlSocketIn(dataDir string) string { return filepath.Join(dataDir, "control.sock") }

// What follows parses the values of settings. Each error says what was expected.

func single(parse func(string) error) func([]string) error {
	return func(values []string) error { return parse(values[len(values)-1]) }
}

func text(into *string) func([]string) error {
	return single(func(value string) error {
		if value == "" {
			return errors.New("want a value that isn't empty")
		}
		*into = value
		return nil
	})
}

func joined(into *string) func([]string) error {
	return func(values []string) error {
		*into = strings.Join(values, "\n")
		if strings.TrimSpace(*into) == "" {
			return errors.New("want a value that isn't empty")
		}
		return nil
	}
}

func list(into *[]string) func([]string) error {
	return func(values []string) error {
		*into = splitList(strings.Join(values, ","))
		return nil
	}
}

func boolean(into *bool) func([]string) error {
	return single(func(value string) error {
		parsed, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("want true or false")
		}
		*into = parsed
		return nil
	})
}

func positive(into *int) func([]string) error {
	return single(func(value string) error {
		parsed, err := strconv.Atoi(value)
		if err != nil || parsed < 1 {
			return errors.New("want a whole number from 1")
		}
		*into = parsed
		return nil
	})
}

func duration(into *time.Duration) func([]string) error {
	return single(func(value string) error {
		parsed, err := time.ParseDuration(value)
		if err != nil || parsed <= 0 {
			return errors.New("want a time such as 500ms or 2s")
		}
		*into = parsed
		return nil
	})
}

// percentage stores 0.2 for "20%".
func percentage(into *float64) func([]string) error {
	return single(func(value string) error {
		number, ok := strings.CutSuffix(value, "%")
		parsed, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil || !(parsed >= 0 && parsed <= 100) {
			return errors.New("want a part from 0% to 100%")
		}
		*into = parsed / 100
		return nil
	})
}

func scalekitURL(into *string) func([]string) error {
	return single(func(value string) error {
		*into = value
		return scalekit.CheckURL(value)
	})
}

func oneOf(into *string, allowed ...string) func([]string) error {
	return single(func(value string) error {
		for _, word := range allowed {
			if value == word {
				*into = value
				return nil
			}
		}
		return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
	})
}

func logLevel(into *slog.Level) func([]string) error {
	return single(func(value string) error {
		if err := into.UnmarshalText([]byte(value)); err != nil {
			return errors.New("want debug, info, warn or error")
		}
		return nil
	})
}

func fileMode(into *fs.FileMode) func([]string) error {
	return single(func(value string) error {
		parsed, err := strconv.ParseUint(value, 8, 9)
		if err != nil {
			return errors.New("want an octal mode such as 0660")
		}
		*into = fs.FileMode(parsed)
		return nil
	})
}

func address(into *listener.Address) func([]string) error {
	return single(func(value string) (err error) {
		*into, err = listener.ParseAddress(value)
		return err
	})
}

func addresses(into *[]listener.Address) func([]string) error {
	return func(values []string) error {
		*into = nil
		for _, value := range splitList(strings.Join(values, ",")) {
			parsed, err := listener.ParseAddress(value)
			if err != nil {
				return err
			}
			*into = append(*into, parsed)
		}
		if len(*into) == 0 {
			return errors.New("want at least one address")
		}
		return nil
	}
}

func urlPath(into *string) func([]string) error {
	return single(func(value string) error {
		if !strings.HasPrefix(value, "/") || strings.ContainsAny(value, "{}?#%") || strings.Contains(value, "//") {
			return errors.New("want a plain path such as /webhooks/scalekit")
		}
		*into = value
		return nil
	})
}

func environmentID(into *string) func([]string) error {
	return single(func(value string) error {
		if !strings.HasPrefix(value, "env_") {
			return errors.New("want an id such as env_1234567890")
		}
		*into = value
		return permission.CheckText("it", value, 1, permission.MaxID)
	})
}

func documentLimit(into *catalog.Limit) func([]string) error {
	return single(func(value string) error {
		records, size, _ := strings.Cut(value, ",")
		bytes, err := byteSize(strings.TrimSpace(size))
		limit := catalog.Limit{Bytes: bytes}
		if recordsErr := positive(&limit.Records)([]string{strings.TrimSpace(records)}); err != nil || recordsErr != nil {
			return errors.New("want records and bytes such as 100000,32MiB")
		}
		*into = limit
		return nil
	})
}

func byteSize(value string) (int64, error) {
	units := []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}
	unit := int64(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(value, u.suffix); ok {
			value, unit = number, u.bytes
		}
	}
	parsed, err := strconv.ParseInt(value, 10, 32)
	if err != nil || parsed < 1 {
		return 0, errors.New("want a positive size")
	}
	return parsed * unit, nil
}
