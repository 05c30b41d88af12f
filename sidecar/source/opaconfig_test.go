package source_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/source"
)

// A configuration such as opa run takes: service, token file, own header, keys, scope.
func TestOPAConfig(t *testing.T) {
	server := serve(t, signed(t, "1", secret, "read"))
	tokenFile := filepath.Join(t.TempDir(), "token")
	write(t, tokenFile, "hush-hush\n")
	read, err := source.ReadOPAConfig(fmt.Appendf(nil, `
labels: {app: x}
services:
  acme:
    url: %s/v1/
    headers: {X-Team: authz}
    credentials:
      bearer: {token_path: %s}
keys:
  main: {algorithm: HS256, key: %s}
  other: {algorithm: HS256, key: %s}
bundles:
  authz:
    service: acme
    resource: /authz.tar.gz
    persist: true
    polling: {min_delay_seconds: 10, max_delay_seconds: 20}
    signing: {keyid: main, scope: read}
`, server.URL, tokenFile, secret, strings.Repeat("y", 32)), "opa.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(read.Warnings) != 1 || !strings.HasPrefix(read.Warnings[0], "opa.yaml:2: labels is passed over: ") {
		t.Errorf("the warnings are %q", read.Warnings)
	}
	if len(read.Places) != 1 || read.Places[0].Name() != server.URL+"/v1/authz.tar.gz" {
		t.Fatalf("the places are %v", read.Places)
	}
	s := newScene(t, source.Config{Places: read.Places, Token: func() string { return "of --policy" }}).start()
	if d := s.round(); d < 10*time.Second || d > 20*time.Second {
		t.Errorf("waits %v", d)
	}
	s.wantUsed("1")
	if got := server.last(); got.Get("Authorization") != "Bearer hush-hush" || got.Get("X-Team") != "authz" {
		t.Errorf("the request has %v", got)
	}
	write(t, tokenFile, "another\n")
	server.set(signed(t, "2", strings.Repeat("y", 32), "read")) // the key that isn't named
	s.again()
	s.wantFailure("--opa-config: bundles.authz: ")
	if got := server.last().Get("Authorization"); got != "Bearer another" {
		t.Errorf("the token is %q", got)
	}
	server.set(signed(t, "3", secret, "write"))
	s.again()
	s.wantFailure("scope")
	server.set(policy(t, "4"))
	s.again()
	s.wantFailure("isn't signed")
	s.wantUsed("1")
}

// OPA takes services as a list, too, and its defaults where nothing is said.
func TestOPAConfigDefaults(t *testing.T) {
	read, err := source.ReadOPAConfig([]byte(`{"services":[{"name":"acme","url":"https://bundles.example.com"}],"bundles":{"authz":{}}}`), "opa.json")
	if err != nil || len(read.Places) != 1 || read.Places[0].Name() != "https://bundles.example.com/bundles/authz" {
		t.Errorf("got %v, %v", read.Places, err)
	}
}

// A decision log is made elsewhere, of what stands here.
func TestOPAConfigHandsDecisionLogsOn(t *testing.T) {
	read, err := source.ReadOPAConfig([]byte("services: {a: {url: 'https://a'}}\ndecision_logs: {service: a}\n"), "c.yaml")
	if err != nil || len(read.Places) != 0 || string(read.DecisionLogs) != `{"service":"a"}` || string(read.Services) != `{"a":{"url":"https://a"}}` {
		t.Errorf("got %+v, %v", read, err)
	}
}

func TestOPAConfigRefusals(t *testing.T) {
	const services = "services: {a: {url: 'https://a.example.com'}}\n"
	for text, want := range map[string]string{
		"":                                      "want an OPA configuration",
		"- 1":                                   "want an OPA configuration",
		"services: {":                           "c.yaml: want YAML or JSON: line",
		services:                                "at least one of bundles",
		services + "discovery: {name: x}":       "c.yaml:2: discovery isn't taken",
		services + "plugins: {}":                "c.yaml:2: plugins aren't taken",
		services + "status: {}":                 "c.yaml:2: status isn't taken",
		services + "bundels: {}":                "c.yaml:2: bundels: unknown key; services, bundles, keys",
		services + "bundles: [1]":               "c.yaml:2: bundles: [0]: want a name",
		services + "bundles: {x: {servise: a}}": `c.yaml:2: bundles.x: unknown field "servise"`,
		services + "bundles: {x: {service: b}}": `c.yaml:2: bundles.x: service: want one of services (a), got "b"`,
		services + "bundles: {x: {service: a, trigger: manual}}":                                               "bundles.x: trigger: want periodic",
		services + "bundles: {x: {resource: 'file:///etc/b'}}":                                                 "bundles.x: resource: want a path",
		services + "bundles: {x: {size_limit_bytes: big}}":                                                     "size_limit_bytes: want int64, got string",
		services + "bundles: {x: {polling: {min_delay_seconds: 1}}}":                                           "want both min_delay_seconds",
		services + "bundles: {x: {polling: {min_delay_seconds: 5, max_delay_seconds: 1}}}":                     "max_delay_seconds no less",
		services + "bundles: {x: {polling: {superseded_etag_ttl_seconds: 5}}}":                                 `unknown field "superseded_etag_ttl_seconds"`,
		services + "bundles: {x: {signing: {keyid: k}}}":                                                       `signing: keyid: want one of keys (), got "k"`,
		services + "bundles: {x: {signing: {}}}":                                                               "signing: want keys, got none",
		services + "bundles: {x: {signing: {exclude_files: [a]}}}":                                             "exclude_files isn't taken",
		services + "keys: {k: {key: short, algorithm: HS256}}\nbundles: {x: {}}":                               "32 bytes",
		services + "keys: {k: {algorithm: HS256}}\nbundles: {x: {}}":                                           "c.yaml:2: keys: ",
		"services: {a: {url: 'http://a.example.com'}}\nbundles: {x: {}}":                                       "c.yaml:1: services.a: url: want an https URL",
		"services: {a: {url: 'https://u:hush@a.example.com'}}\nbundles: {x: {}}":                               "services.a: url: want no user or password",
		"services: {a: {url: 'https://a', allow_insecure_tls: true}}\nbundles: {x: {}}":                        "allow_insecure_tls isn't taken",
		"services: {a: {url: 'https://a', type: oci}}\nbundles: {x: {}}":                                       "type isn't taken",
		"services: {a: {url: 'https://a', credentials: {plugin: p}}}\nbundles: {x: {}}":                        "credentials.plugin isn't taken",
		"services: {a: {url: 'https://a', credentials: {bearer: {tokn: hush}}}}\nbundles: {x: {}}":             `unknown field "tokn"`,
		"services:\n  a:\n    url: https://a\n    credentials: {bearer: {token: '${HUSH}'}}\nbundles: {x: {}}": "c.yaml:4: environment variables aren't substituted",
		"services: &x {a: {url: 'https://a'}}\nbundles: *x":                                                    "want no YAML aliases",
		"bundles: " + strings.Repeat("[", 40) + strings.Repeat("]", 40):                                        "nested values",
	} {
		_, err := source.ReadOPAConfig([]byte(text), "c.yaml")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func FuzzReadOPAConfig(f *testing.F) {
	f.Add([]byte("services: {a: {url: 'https://a.example.com'}}\nkeys: {k: {key: x}}\nbundles: {x: {service: a, signing: {keyid: k}}}"))
	f.Add([]byte(`{"services":[{"name":"a","url":"http://127.0.0.1","credentials":{"bearer":{"token":"x"}}}],"bundles":{"x":{"polling":{"min_delay_seconds":1,"max_delay_seconds":2}}}}`))
	f.Add([]byte("labels: {}\ndiscovery: {}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := source.ReadOPAConfig(text, "c.yaml")
		if err != nil && (!strings.HasPrefix(err.Error(), "c.yaml") || len(read.Places) > 0) {
			t.Errorf("half read, or without the file's name: %v", err)
		}
		for _, place := range read.Places {
			if !strings.HasPrefix(place.Name(), "https://") && !strings.HasPrefix(place.Name(), "http://") {
				t.Errorf("the place %q", place.Name())
			}
		}
	})
}

// Whatever lies where a download was kept, the follower comes up and uses none of it unless it
// is a good bundle.
func FuzzKept(f *testing.F) {
	dir := f.TempDir()
	const at = "http://127.0.0.1:1/b"
	f.Add([]byte("{\"format\":\"postern-download/1\"}\nx"))
	f.Add([]byte("\n"))
	place, err := source.ParsePlace(at)
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, source.KeptName(place))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newScene(t, source.Config{Keep: dir}, at)
		if err := s.follower.Load(t.Context()); err != nil || len(s.revisions()) > 0 {
			t.Errorf("used %q, %v", s.revisions(), err)
		}
	})
}
