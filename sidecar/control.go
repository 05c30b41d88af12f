package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/spool"
)

// Paths of the control socket.
const (
	controlDump      = "/v1/catalog/dump"
	controlRestore   = "/v1/catalog/restore"
	controlVerify    = "/v1/catalog/verify"
	controlCompact   = "/v1/catalog/compact"
	controlReconcile = "/v1/reconcile"
	controlAccept    = "/v1/accept"
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
	dump := spool.New(s.config.dataDir)
	defer func() {
		if err := dump.Close(); err != nil {
			s.logger.Error("closing the spooled dump", "error", err)
		}
	}()
	if err := errors.Join(s.catalog.Dump(r.Context(), dump, nil), dump.Finish()); err != nil {
		listener.WriteError(w, s.refusal(r.Context(), "dump")(err))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if _, err := io.Copy(w, dump.Reader()); err != nil {
		s.logger.Warn("a dump broke off", "error", err)
		panic(http.ErrAbortHandler) // so that the peer doesn't take it for whole
	}
}

func (s *sidecar) serveRestore(w http.ResponseWriter, r *http.Request) {
	// A dump takes longer to send than other requests may.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(maintenanceWithin)); err != nil {
		listener.WriteError(w, s.refusal(r.Context(), "restore")(err))
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
	answerWork(w, r, func(ctx context.Context, progress catalog.Progress) (restored, error) {
		report, err := restoreInto(ctx, s.catalog, from, progress)
		if err == nil {
			s.logger.Info("catalog restored", "listing", from.Listing, "states", report.States, "changed", report.Changed, "revision", report.Revision)
		}
		return report, err
	}, s.refusal(r.Context(), "restore"))
}

// restoreInto merges from into c and reports what that changed.
func restoreInto(ctx context.Context, c *catalog.Catalog, from *catalog.Restorable, progress catalog.Progress) (restored, error) {
	changed, err := c.Restore(ctx, from, progress)
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
	answerWork(w, r, func(ctx context.Context, progress catalog.Progress) (catalog.Report, error) {
		return s.catalog.Verify(ctx, progress)
	}, s.refusal(r.Context(), "verify"))
}

func (s *sidecar) serveCompact(w http.ResponseWriter, r *http.Request) {
	answerWork(w, r, func(ctx context.Context, progress catalog.Progress) (catalog.CompactReport, error) {
		report, err := s.catalog.Compact(ctx, progress)
		if err == nil {
			s.logger.Info("catalog compacted", "bytes_before", report.Before, "bytes_after", report.After)
		}
		return report, err
	}, s.refusal(r.Context(), "compact"))
}

// refusal is the status map of maintenance. It tells all: whoever may use the control socket
// may read the log.
func (s *sidecar) refusal(ctx context.Context, what string) func(error) *listener.Error {
	return func(err error) *listener.Error {
		level := slog.LevelError
		if errors.Is(err, context.Canceled) { // the peer hung up
			level = slog.LevelInfo
		}
		s.logger.Log(ctx, level, "maintenance failed", "verb", what, "error", err)
		if errors.Is(err, catalog.ErrEnvironment) {
			return &listener.Error{Status: http.StatusUnprocessableEntity, Code: "wrong_environment", Message: err.Error()}
		}
		return &listener.Error{Status: http.StatusServiceUnavailable, Code: what + "_failed", Message: err.Error(), RetryAfter: time.Second}
	}
}
