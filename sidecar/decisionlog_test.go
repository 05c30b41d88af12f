package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the whole binary answers stands in the decision log, masked as the policy says, and
// the end of the process uploads what is left.
func TestDecisionLogOfTheWholeBinary(t *testing.T) {
	events := make(chan map[string]any, 100)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []map[string]any
		unzipped, err := gzip.NewReader(r.Body)
		if err == nil {
			err = json.NewDecoder(unzipped).Decode(&batch)
		}
		if err != nil || r.URL.Path != "/logs" || r.Header.Get("Authorization") != "Bearer sesame" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		for _, event := range batch {
			events <- event
		}
	}))
	defer service.Close()
	dir := t.TempDir()
	opaConfig, policy := filepath.Join(dir, "opa.yaml"), filepath.Join(dir, "policy")
	must(0, os.MkdirAll(policy, 0o700))
	for path, content := range map[string]string{
		opaConfig: fmt.Sprintf(`{"services":{"sink":{"url":%q,"credentials":{"bearer":{"token":"sesame"}}}},
			"decision_logs":{"service":"sink","reporting":{"min_delay_seconds":300,"max_delay_seconds":300}}}`, service.URL),
		filepath.Join(policy, "authz.rego"): "package authz\n\ndecision := {\"decision\": false, \"reasons\": {\"closed\"}}\n",
		filepath.Join(policy, "log.rego"):   "package system.log\n\nmask contains \"/input/subject/properties/pin\"\n",
	} {
		must(0, os.WriteFile(path, []byte(content), 0o600))
	}
	c := sidecarStarter(t, "--opa-config="+opaConfig, "--policy="+policy)()
	const question = `{"subject":{"type":"user","id":"u","properties":{"pin":"4711"}},"action":{"name":"a"},"resource":{"type":"r","id":"1"}}`
	answer := fetchUntil(t, http.MethodPost, "http://"+c.addr("authorize")+"/v1/authorize", question, "closed")
	must(0, c.stop())
	var event map[string]any
	select {
	case event = <-events:
	case <-time.After(startWithin):
		t.Fatal("nothing was uploaded")
	}
	var answered struct {
		Context struct {
			ID string `json:"decision_id"`
		} `json:"context"`
	}
	must(0, json.Unmarshal([]byte(answer), &answered))
	told := string(must(json.Marshal(event)))
	if event["decision_id"] != answered.Context.ID || event["path"] != "authz/decision" || !strings.Contains(told, `"reasons":["closed"]`) {
		t.Errorf("got %s in the log, want what was answered: %s", told, answer)
	}
	if strings.Contains(told, "4711") {
		t.Errorf("got %s, want it without what the policy masks", told)
	}
}
