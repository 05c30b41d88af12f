package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/authz"
)

// policyHealth is how the last load of the policy went.
type policyHealth struct {
	mu      sync.Mutex
	failure error // of the last load; nil: it is in use
}

func (h *policyHealth) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = err
}

func (h *policyHealth) get() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failure
}

// loadPolicy reads, compiles and puts to use the policy that the settings name. Each load
// gets a data document of its own, so that a question in flight keeps policy and data of
// the load that it began with. After an error the previous policy stays.
func (s *sidecar) loadPolicy(ctx context.Context) (err error) {
	defer func() { s.policy.set(err) }()
	policy, err := compilePolicy(ctx, s.config)
	if err != nil {
		return err
	}
	data := policy.Data
	data["postern"] = map[string]any{"settings": map[string]any{"on_incomplete": s.config.onIncomplete}}
	err = s.engine.Use(ctx, authz.Policy{
		Compiler: policy.Compiler,
		Store:    s.catalog.Document(inmem.NewFromObject(data)),
		Decision: policy.Decision,
		Revision: policy.Revision,
	})
	if err != nil {
		return err
	}
	s.logger.Info("policy loaded", "policy", s.config.policyDir, "policy_revision", policy.Revision)
	return nil
}

// reloadPolicy is loadPolicy for a sidecar that runs: a policy that can't be used is
// reported and changes nothing.
func (s *sidecar) reloadPolicy(ctx context.Context) {
	if err := s.loadPolicy(ctx); err != nil {
		s.logger.Error("policy not usable, the previous one stays", "error", err)
	}
}

func compilePolicy(ctx context.Context, c config) (*bundle.Policy, error) {
	source := policies.FS()
	if c.policyDir != builtinPolicy {
		source = os.DirFS(c.policyDir)
	}
	loaded, err := bundle.Load(ctx, source, bundle.LoadOptions{Name: c.policyDir})
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	return loaded.Compile(bundle.Options{Schemas: policies.Schemas(), AllowBuiltins: c.allowBuiltins, Decision: c.decision})
}
