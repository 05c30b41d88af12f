package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
)

// Paths of the control socket.
const (
	controlDump    = "/v1/catalog/dump"
	controlRestore = "/v1/catalog/restore"
	controlVerify  = "/v1/catalog/verify"
)

// largestDump bounds a dump that is restored, in bytes: a million states have about
// 300 MB.
const largestDump = 4 << 30

// restored is the answer to a restore.
type restored struct {
	States   int    `json:"states"`           // in the dump or listing
	Changed  int    `json:"changed"`          // in the catalog
	Absent   *int   `json:"absent,omitempty"` // alive in the catalog and not in the listing; told for one only
	Revision uint64 `json:"revision"`
	Digest   string `json:"digest"`
}

// serveDump spools the dump first: the catalog must not wait for the peer.
func (s *sidecar) serveDump(w http.ResponseWriter, r *http.Request) {
	spool, err := s.spoolDump(r.Context())
	if err != nil {
		s.refuseMaintenance(w, "dump", err)
		return
	}
	defer func() {
		if err := spool.Close(); err != nil {
			s.logger.Error("closing the spooled dump", "error", err)
		}
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, _ = io.Copy(w, spool) // the peer may have hung up
}

// spoolDump returns the dump as a file that nobody else sees and that is gone when closed.
func (s *sidecar) spoolDump(ctx context.Context) (*os.File, error) {
	spool, err := os.CreateTemp(s.config.dataDir, "dump-*.tmp")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	if err := s.catalog.Dump(ctx, spool); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	return spool, nil
}

func (s *sidecar) serveRestore(w http.ResponseWriter, r *http.Request) {
	// A dump takes longer to send than other requests may.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(maintenanceWithin)); err != nil {
		s.refuseMaintenance(w, "restore", err)
		return
	}
	from, err := catalog.ReadRestorable(http.MaxBytesReader(w, r.Body, largestDump))
	if err != nil {
		refused := &listener.Error{Status: http.StatusBadRequest, Code: "malformed_dump", Message: err.Error()}
		if errors.Is(err, catalog.ErrListing) {
			refused.Code = "malformed_listing"
		}
		listener.WriteError(w, refused)
		return
	}
	report, err := restoreInto(r.Context(), s.catalog, from)
	switch {
	case errors.Is(err, catalog.ErrEnvironment):
		listener.WriteError(w, &listener.Error{Status: http.StatusUnprocessableEntity, Code: "wrong_environment", Message: err.Error()})
	case err != nil:
		s.refuseMaintenance(w, "restore", err)
	default:
		s.logger.Info("catalog restored", "listing", from.Listing, "states", report.States, "changed", report.Changed, "revision", report.Revision)
		listener.WriteJSON(w, http.StatusOK, report)
	}
}

// restoreInto merges from into c and reports what that changed.
func restoreInto(ctx context.Context, c *catalog.Catalog, from *catalog.Restorable) (restored, error) {
	changed, err := c.Restore(ctx, from)
	if err != nil {
		return restored{}, err
	}
	at := c.Sync()
	report := restored{States: from.States(), Changed: changed, Revision: at.Revision, Digest: at.Digest.String()}
	if from.Listing {
		absent, err := c.Absent(ctx, from)
		if err != nil {
			return restored{}, fmt.Errorf("counting what the listing doesn't name, after it was restored: %w", err)
		}
		report.Absent = &absent
	}
	return report, nil
}

func (s *sidecar) serveVerify(w http.ResponseWriter, r *http.Request) {
	report, err := s.catalog.Verify(r.Context())
	if err != nil {
		s.refuseMaintenance(w, "verify", err)
		return
	}
	listener.WriteJSON(w, http.StatusOK, report)
}

// refuseMaintenance tells all: whoever may use the control socket may read the log.
func (s *sidecar) refuseMaintenance(w http.ResponseWriter, what string, err error) {
	s.logger.Error("maintenance failed", "verb", what, "error", err)
	listener.WriteError(w, &listener.Error{Status: http.StatusServiceUnavailable, Code: what + "_failed", Message: fmt.Sprint(err), RetryAfter: time.Second})
}
