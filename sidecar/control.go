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
	States   int    `json:"states"`  // in the dump
	Changed  int    `json:"changed"` // in the catalog
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
	dump, err := catalog.ReadDump(http.MaxBytesReader(w, r.Body, largestDump))
	if err != nil {
		listener.WriteError(w, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_dump", Message: err.Error()})
		return
	}
	report, err := restoreInto(r.Context(), s.catalog, dump)
	switch {
	case errors.Is(err, catalog.ErrEnvironment):
		listener.WriteError(w, &listener.Error{Status: http.StatusUnprocessableEntity, Code: "wrong_environment", Message: err.Error()})
	case err != nil:
		s.refuseMaintenance(w, "restore", err)
	default:
		s.logger.Info("dump restored", "states", report.States, "changed", report.Changed, "revision", report.Revision)
		listener.WriteJSON(w, http.StatusOK, report)
	}
}

func restoreInto(ctx context.Context, c *catalog.Catalog, dump *catalog.DumpContent) (restored, error) {
	changed, err := c.Restore(ctx, dump)
	at := c.Sync()
	return restored{States: dump.Header.States, Changed: changed, Revision: at.Revision, Digest: at.Digest.String()}, err
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
