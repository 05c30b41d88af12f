package main

import (
	"net/http"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
)

// syncRecord is what the catalog says of itself as policies see it, data.scalekit.sync. Epoch and
// digest are what two sidecars can compare; the revision counts the commits of this one.
type syncRecord struct {
	Epoch    string  `json:"epoch"`
	Revision uint64  `json:"revision"`
	Digest   string  `json:"digest"`
	State    string  `json:"state"`
	Complete bool    `json:"complete"`
	Count    uint64  `json:"count"`
	EventID  *string `json:"event_id"`
	AsOf     *string `json:"as_of"`
}

// syncAnswer is the answer of GET /v1/sync.
type syncAnswer struct {
	syncRecord

	// Reconcile is how the reconciliation stands; null without credentials for Scalekit's API.
	Reconcile *reconcileAnswer `json:"reconcile"`
}

func (s *sidecar) serveSync(w http.ResponseWriter, _ *http.Request) {
	answer := syncAnswer{syncRecord: recordOfSync(s.catalog.Sync())}
	if s.reconciler != nil {
		standing := answerReconcile(s.reconciler.Status())
		answer.Reconcile = &standing
	}
	listener.WriteJSON(w, http.StatusOK, answer)
}

func recordOfSync(at catalog.Sync) syncRecord {
	record := syncRecord{
		Epoch: at.Epoch, Revision: at.Revision, Digest: at.Digest.String(),
		State: string(at.State), Complete: at.Complete, Count: at.Count,
	}
	if at.EventID != "" {
		asOf := at.AsOf.String()
		record.EventID, record.AsOf = &at.EventID, &asOf
	}
	return record
}
