package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins/rest"
	"go.yaml.in/yaml/v3"

	"github.com/postern-authz/postern/bundle"
)

// LargestOPAConfig is the largest configuration file, in bytes.
const LargestOPAConfig = 1 << 20

const (
	deepestOPAConfig = 32
	mostBundles      = 64
	// OPA's own defaults (https://www.openpolicyagent.org/docs/configuration#bundles).
	opaLeastDelay = time.Minute
	opaMostDelay  = 2 * time.Minute
)

// OPAConfig is what is taken of a standard OPA configuration file.
type OPAConfig struct {
	Places   []Place
	Warnings []string // about keys that are passed over

	// What a decision log is made of, as JSON: services, keys, and decision_logs, which isn't
	// looked into. The last two are nil where the file doesn't have them.
	Services, Keys, DecisionLogs json.RawMessage
}

// refusal says why a key isn't taken that would do something else than it does in OPA.
func refusal(key string) string {
	return map[string]string{
		"discovery":           "discovery isn't taken: who serves it could replace the keys that bundles are verified with",
		"plugins":             "plugins aren't taken: Postern has none",
		"status":              "status isn't taken: /readyz?verbose and /metrics tell how bundles stand",
		"bundle":              "bundle isn't taken: it was replaced by bundles",
		"storage":             "storage isn't taken: data is kept in memory, and the catalog in --data-dir",
		"distributed_tracing": "distributed_tracing isn't taken: OTEL_… variables configure tracing",
		"metrics_export":      "metrics_export isn't taken: /metrics is on --admin-addr",
	}[key]
}

// insteadOf says what has the place of a key that only tunes OPA's own server.
func insteadOf(key string) string {
	return map[string]string{
		"labels":                         "they tell OPA instances apart in reports, which aren't sent",
		"default_decision":               "--decision names the rule that answers",
		"default_authorization_decision": "--api-token-file guards the API",
		"caching":                        "nothing is cached between evaluations",
		"nd_builtin_cache":               "it belongs to decision logs",
		"persistence_directory":          "bundles are kept in --data-dir",
		"server":                         "OPA's server isn't run",
	}[key]
}

// ReadOPAConfig takes services, bundles, keys and decision_logs of a standard OPA configuration file, YAML or
// JSON, and refuses what it would have to leave out silently. Environment variables aren't
// substituted. Errors say file and line, and quote no value.
func ReadOPAConfig(text []byte, name string) (OPAConfig, error) {
	sections, warnings, err := readSections(text, name)
	if err != nil {
		return OPAConfig{}, err
	}
	known := map[string]*keys.Config{}
	if section, ok := sections["keys"]; ok {
		if known, err = keys.ParseKeysConfig(section.json); err != nil {
			return OPAConfig{}, section.errorf("%w", err)
		}
	}
	services, err := readServices(sections["services"], known)
	if err != nil {
		return OPAConfig{}, err
	}
	places, err := readBundles(sections["bundles"], services, known)
	if err != nil {
		return OPAConfig{}, err
	}
	logs := sections["decision_logs"].json
	if len(places) == 0 && logs == nil {
		return OPAConfig{}, fmt.Errorf("%s: want at least one of bundles, got none", name)
	}
	return OPAConfig{Places: places, Warnings: warnings, Services: sections["services"].json, Keys: sections["keys"].json, DecisionLogs: logs}, nil
}

// section is a part of the file. The zero section isn't there.
type section struct {
	where string // file, line and key
	json  json.RawMessage
}

func (s section) errorf(format string, arguments ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{s.where}, arguments...)...)
}

// children are the members of a section that is an object, or of one that is a list of
// objects with a name, as OPA takes services.
func (s section) children() (map[string]section, error) {
	result := map[string]section{}
	var object map[string]json.RawMessage
	if len(s.json) == 0 || json.Unmarshal(s.json, &object) == nil {
		for key, value := range object {
			result[key] = section{s.where + "." + key, value}
		}
		return result, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(s.json, &list); err != nil {
		return nil, s.errorf("want names and what each means")
	}
	for i, value := range list {
		var named struct{ Name string }
		if err := json.Unmarshal(value, &named); err != nil || named.Name == "" {
			return nil, s.errorf("[%d]: want a name in it", i)
		}
		if _, twice := result[named.Name]; twice {
			return nil, s.errorf("want the name %.80q once", named.Name)
		}
		result[named.Name] = section{s.where + "." + named.Name, value}
	}
	return result, nil
}

// strictly decodes a section, and refuses members that into doesn't have.
func (s section) strictly(into any) error {
	decoder := json.NewDecoder(bytes.NewReader(s.json))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return s.errorf("%w", withoutPrefix(err))
	}
	return nil
}

// withoutPrefix makes the decoder's text one of a configuration: it names the member or the
// types, never a value.
func withoutPrefix(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: want %v, got %s", wrong.Field, wrong.Type.Kind(), strings.SplitN(wrong.Value, " ", 2)[0])
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// readSections splits the file into its keys, and judges those that aren't taken.
func readSections(text []byte, name string) (map[string]section, []string, error) {
	if len(text) > LargestOPAConfig {
		return nil, nil, fmt.Errorf("%s: want at most %d bytes", name, LargestOPAConfig)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, nil, fmt.Errorf("%s: want YAML or JSON: %s", name, firstLine(err))
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s: want an OPA configuration, with services, bundles and keys", name)
	}
	sections, warnings := map[string]section{}, []string(nil)
	content := document.Content[0].Content
	for i := 0; i+1 < len(content); i += 2 {
		key, where := content[i].Value, fmt.Sprintf("%s:%d: %.80s", name, content[i].Line, content[i].Value)
		switch {
		case refusal(key) != "":
			return nil, nil, fmt.Errorf("%s:%d: %s", name, content[i].Line, refusal(key))
		case insteadOf(key) != "":
			warnings = append(warnings, where+" is passed over: "+insteadOf(key))
			continue
		case !slices.Contains([]string{"services", "bundles", "keys", "decision_logs"}, key):
			return nil, nil, fmt.Errorf("%s: unknown key; services, bundles, keys and decision_logs are taken", where)
		}
		if _, twice := sections[key]; twice {
			return nil, nil, fmt.Errorf("%s: want it once", where)
		}
		value, err := toJSON(content[i+1], name)
		if err != nil {
			return nil, nil, err
		}
		sections[key] = section{where, value}
	}
	return sections, warnings, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(line, "yaml: ")
}

// toJSON turns a part of the file into what OPA's parsers read.
func toJSON(node *yaml.Node, name string) (json.RawMessage, error) {
	if err := checkNode(node, name, 0); err != nil {
		return nil, err
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, fmt.Errorf("%s:%d: want YAML or JSON: %s", name, node.Line, firstLine(err))
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: want texts as keys", name, node.Line)
	}
	return text, nil
}

// checkNode refuses what would mean something else in OPA's command, which substitutes
// variables, and what is nested without end.
func checkNode(node *yaml.Node, name string, depth int) error {
	switch {
	case depth > deepestOPAConfig:
		return fmt.Errorf("%s:%d: want at most %d nested values", name, node.Line, deepestOPAConfig)
	case node.Kind == yaml.AliasNode:
		return fmt.Errorf("%s:%d: want no YAML aliases", name, node.Line)
	case node.Kind == yaml.ScalarNode && strings.Contains(node.Value, "${"):
		return fmt.Errorf("%s:%d: environment variables aren't substituted; name a file, such as by token_path", name, node.Line)
	}
	for _, child := range node.Content {
		if err := checkNode(child, name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// service is a server of OPA's configuration, ready to be asked.
type service struct {
	url          string
	client       *http.Client
	prepare      func(*http.Request) error
	header       map[string]string
	answerWithin time.Duration
}

func readServices(s section, known map[string]*keys.Config) (map[string]service, error) {
	children, err := s.children()
	if err != nil {
		return nil, err
	}
	services := make(map[string]service, len(children))
	for _, name := range slices.Sorted(maps.Keys(children)) {
		if services[name], err = readService(children[name], known); err != nil {
			return nil, err
		}
	}
	return services, nil
}

// readService lets OPA's client make what puts credentials on requests, and certificates.
func readService(s section, known map[string]*keys.Config) (service, error) {
	var parsed rest.Config
	if err := s.strictly(&parsed); err != nil {
		return service{}, err
	}
	switch {
	case parsed.AllowInsecureTLS:
		return service{}, s.errorf("allow_insecure_tls isn't taken: whoever is on the way could replace the policy; name a certificate in tls.ca_cert")
	case parsed.Type != "":
		return service{}, s.errorf("type isn't taken: bundles are downloaded over HTTP alone")
	case parsed.Credentials.Plugin != nil:
		return service{}, s.errorf("credentials.plugin isn't taken: Postern has no plugins")
	}
	if _, err := parseURL(parsed.URL); err != nil {
		return service{}, s.errorf("url: %w", err)
	}
	client, err := rest.New(s.json, known, rest.Logger(logging.NewNoOpLogger()))
	if err != nil {
		return service{}, s.errorf("%w", err)
	}
	config := client.Config()
	plugin, err := config.AuthPlugin(nil)
	if err != nil {
		return service{}, s.errorf("credentials: %w", err)
	}
	made, err := plugin.NewClient(*config)
	if err != nil {
		return service{}, s.errorf("%w", err)
	}
	return service{
		url: config.URL, client: bounded(made), prepare: plugin.Prepare, header: config.Headers,
		answerWithin: seconds(config.ResponseHeaderTimeoutSeconds),
	}, nil
}

// seconds is nothing for nothing.
func seconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(min(max(*n, 0), int64(time.Hour/time.Second))) * time.Second
}

// opaBundle is one of bundles, as OPA writes it.
type opaBundle struct {
	Service  string  `json:"service"`
	Resource string  `json:"resource"`
	Trigger  *string `json:"trigger"`
	Persist  bool    `json:"persist"` // a download is always kept
	Polling  struct {
		Least *int64 `json:"min_delay_seconds"`
		Most  *int64 `json:"max_delay_seconds"`
		Wait  *int64 `json:"long_polling_timeout_seconds"`
	} `json:"polling"`
	Signing *struct {
		KeyID   string   `json:"keyid"`
		Scope   string   `json:"scope"`
		Exclude []string `json:"exclude_files"`
	} `json:"signing"`
	SizeLimit int64 `json:"size_limit_bytes"`
}

func readBundles(s section, services map[string]service, known map[string]*keys.Config) ([]Place, error) {
	children, err := s.children()
	if err != nil {
		return nil, err
	}
	if len(children) > mostBundles {
		return nil, s.errorf("want at most %d, got %d", mostBundles, len(children))
	}
	var places []Place
	for _, name := range slices.Sorted(maps.Keys(children)) {
		place, err := readBundle(children[name], name, services, known)
		if err != nil {
			return nil, err
		}
		places = append(places, place)
	}
	return places, nil
}

func readBundle(s section, name string, services map[string]service, known map[string]*keys.Config) (Place, error) {
	var b opaBundle
	if err := s.strictly(&b); err != nil {
		return Place{}, err
	}
	if b.Trigger != nil && *b.Trigger != "periodic" {
		return Place{}, s.errorf("trigger: want periodic, the others aren't taken")
	}
	from, err := b.pick(s, services)
	if err != nil {
		return Place{}, err
	}
	if b.Resource == "" {
		b.Resource = "bundles/" + name
	}
	if strings.Contains(b.Resource, "://") {
		return Place{}, s.errorf("resource: want a path at the service; --policy takes files and URLs")
	}
	at, err := parseURL(strings.TrimRight(from.url, "/") + "/" + strings.Trim(b.Resource, "/"))
	if err != nil {
		return Place{}, s.errorf("resource: %w", err)
	}
	pace, err := b.pace()
	if err != nil {
		return Place{}, s.errorf("polling: %w", err)
	}
	verification, err := b.verification(known)
	if err != nil {
		return Place{}, s.errorf("signing: %w", err)
	}
	return Place{setting: "--opa-config: bundles." + name, name: nameOf(at), remote: &address{
		url: at, client: from.client, prepare: from.prepare, header: from.header, answerWithin: from.answerWithin,
		polling: pace, largest: b.largest(), verification: verification,
	}}, nil
}

// pick returns the service; none named means the only one there is.
func (b *opaBundle) pick(s section, services map[string]service) (service, error) {
	if b.Service == "" && len(services) == 1 {
		for _, only := range services {
			return only, nil
		}
	}
	from, ok := services[b.Service]
	if !ok {
		return from, s.errorf("service: want one of services (%s), got %.80q", strings.Join(slices.Sorted(maps.Keys(services)), ", "), b.Service)
	}
	return from, nil
}

func (b *opaBundle) largest() int64 {
	if b.SizeLimit <= 0 {
		return largestBundle
	}
	return min(b.SizeLimit, 1<<30)
}

// pace follows OPA's rules: both delays or none.
func (b *opaBundle) pace() (polling, error) {
	p := polling{least: opaLeastDelay, most: opaMostDelay, wait: seconds(b.Polling.Wait)}
	least, most := b.Polling.Least, b.Polling.Most
	switch {
	case (least == nil) != (most == nil):
		return p, errors.New("want both min_delay_seconds and max_delay_seconds, or none")
	case least != nil && (*least < 1 || *most < *least):
		return p, errors.New("want min_delay_seconds from 1, and max_delay_seconds no less")
	case b.Polling.Wait != nil && *b.Polling.Wait < 1:
		return p, errors.New("want long_polling_timeout_seconds from 1")
	case least != nil:
		p.least, p.most = seconds(least), seconds(most)
	}
	return p, nil
}

// verification makes the keys of the file count, nil if there are none: then those of the
// settings do. Unlike in OPA, where keys are given every bundle has to be signed.
func (b *opaBundle) verification(known map[string]*keys.Config) (func() *bundle.Verification, error) {
	scope := ""
	if b.Signing != nil {
		if len(b.Signing.Exclude) > 0 {
			return nil, errors.New("exclude_files isn't taken: what isn't signed isn't used")
		}
		scope = b.Signing.Scope
		if id := b.Signing.KeyID; id != "" {
			if known[id] == nil {
				return nil, fmt.Errorf("keyid: want one of keys (%s), got %.80q", strings.Join(slices.Sorted(maps.Keys(known)), ", "), id)
			}
			known = map[string]*keys.Config{"": known[id]} // whatever key a signature names, as in OPA
		}
	}
	var list []bundle.VerificationKey
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if key := known[id]; key.Key != "" { // one with a private key alone is for signing requests
			list = append(list, bundle.VerificationKey{ID: id, Algorithm: key.Algorithm, Content: []byte(key.Key), Scope: key.Scope})
		}
	}
	if len(list) == 0 {
		if b.Signing != nil {
			return nil, errors.New("want keys, got none")
		}
		return nil, nil
	}
	verification, err := bundle.NewVerification(list, scope)
	if err != nil {
		return nil, err
	}
	return func() *bundle.Verification { return verification }, nil
}
