package main

import (
	"context"
	"time"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/decisionlog"
	"github.com/postern-authz/postern/sidecar/source"
)

// openDecisionLog starts the decision log, if the OPA configuration asks for one.
func (s *sidecar) openDecisionLog(ctx context.Context, asked source.OPAConfig) (err error) {
	if asked.DecisionLogs == nil {
		return nil
	}
	s.decisions, err = decisionlog.New(ctx, decisionlog.Options{
		Services:     asked.Services,
		Keys:         asked.Keys,
		DecisionLogs: asked.DecisionLogs,
		ID:           s.catalog.Sync().Epoch,
		Logger:       s.logger,
		Meter:        s.telemetry.Meter(),
	})
	return err
}

// recorder is nil without a decision log.
func (s *sidecar) recorder() authz.Recorder {
	if s.decisions == nil {
		return nil
	}
	return decisionRecorder{s.decisions, s.config.policy.decision}
}

// decisionRecorder hands what was answered to the decision log.
type decisionRecorder struct {
	log  *decisionlog.Log
	rule string // that answers
}

// Record never waits.
func (r decisionRecorder) Record(d authz.Decision, answer []byte, question int) {
	r.log.Record(decisionlog.Entry{
		DecisionID: d.ID,
		Decision:   r.rule,
		Revision:   d.PolicyRevision,
		Input:      d.Input(),
		Answer:     answer,
		At:         time.Now(),
	}, question)
}
