package authz_test

import (
	"context"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/authz"
)

func BenchmarkBuiltin(b *testing.B) {
	l, err := bundle.Load(b.Context(), policies.FS(), bundle.LoadOptions{Name: "policies"})
	if err != nil {
		b.Fatal(err)
	}
	p, err := l.Compile(bundle.Options{Schemas: policies.Schemas(), Decision: "authz/decision"})
	if err != nil {
		b.Fatal(err)
	}
	e := authz.NewEngine(authz.Options{Timeout: time.Second, MaxInFlight: 8})
	data := map[string]any{"scalekit": map[string]any{"permissions": map[string]any{"data:manage": map[string]any{"id": "perm_1", "event_id": "e"}}, "deleted": map[string]any{}, "roles": map[string]any{}, "sync": map[string]any{"revision": 1, "complete": true}}, "postern": map[string]any{"settings": map[string]any{"on_incomplete": "deny"}}}
	if err := e.Use(b.Context(), authz.Policy{Compiler: p.Compiler, Store: inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true)), Decision: p.Decision, Revision: "r"}); err != nil {
		b.Fatal(err)
	}
	raw := []byte(`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":["a:b","c:d","data:manage"],"organization_id":"org_1"}},"action":{"name":"data:manage"},"resource":{"type":"dataset","id":"ds_7","properties":{"organization_id":"org_1"}},"context":{}}`)
	b.ReportAllocs()
	for b.Loop() {
		d, err := e.Decide(context.Background(), raw, "")
		if err != nil || !d.Allow {
			b.Fatal(d, err)
		}
	}
}
