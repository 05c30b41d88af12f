package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	defaultPage = 100
	largestPage = 1000
	// pagesAtOnce bounds the pages that are read and encoded at once: listing is a walk over
	// the catalog, and decisions come first.
	pagesAtOnce = 2
	// cursorVersion begins each cursor, so that a later form can be told from this one.
	cursorVersion = "1"
)

// permissionReader answers GET /v1/permissions and GET /v1/permissions/{name}.
type permissionReader struct {
	catalog *catalog.Catalog
	turns   chan struct{}
	log     *listener.FailureLog
}

func newPermissionReader(c *catalog.Catalog, logger *slog.Logger) *permissionReader {
	return &permissionReader{c, make(chan struct{}, pagesAtOnce), listener.NewFailureLog(logger, time.Now)}
}

// permissionRecord is a live permission as policies see it, data.scalekit.permissions[name].
type permissionRecord struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Description string            `json:"description"`
	CreatedAt   *string           `json:"created_at"` // null when its creation was never seen
	UpdatedAt   string            `json:"updated_at"`
	EventID     *string           `json:"event_id"` // null when it rests on a listing
	Source      permission.Source `json:"source"`
}

// deletionRecord is a deletion as policies see it, data.scalekit.deleted[name].
type deletionRecord struct {
	ID        string  `json:"id"`
	DeletedAt string  `json:"deleted_at"`
	EventID   *string `json:"event_id"`
}

// permissionsPage is the answer of GET /v1/permissions. All of it is of one revision.
type permissionsPage struct {
	Permissions  []permissionRecord `json:"permissions"`
	NextCursor   *string            `json:"next_cursor"` // null at the end, and only there
	DataRevision uint64             `json:"data_revision"`
}

// permissionAnswer is the answer of GET /v1/permissions/{name} for a live one.
type permissionAnswer struct {
	Permission   permissionRecord `json:"permission"`
	DataRevision uint64           `json:"data_revision"`
}

func recordOf(s permission.State) permissionRecord {
	r := permissionRecord{
		ID: s.ID, Name: s.Name, Description: s.Description,
		UpdatedAt: s.OccurredAt.String(), EventID: orNull(s.EventID), Source: s.Source,
	}
	if s.CreatedAt != 0 {
		r.CreatedAt = orNull(s.CreatedAt.String())
	}
	return r
}

func deletionOf(s permission.State) deletionRecord {
	at, eventID := s.Deletion()
	return deletionRecord{s.ID, at.String(), orNull(eventID)}
}

// orNull returns nil for an empty text, which JSON tells as null.
func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// serveList answers GET /v1/permissions.
func (p *permissionReader) serveList(w http.ResponseWriter, r *http.Request) {
	after, limit, refused := parsePage(r.URL.RawQuery)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	answer, err := p.page(r.Context(), after, limit)
	if err != nil {
		p.unavailable(w, err)
		return
	}
	listener.WriteJSON(w, http.StatusOK, answer)
}

// page waits for a turn and reads a page. The turn is over before the answer is sent: a peer
// that reads slowly must not keep others waiting.
func (p *permissionReader) page(ctx context.Context, after string, limit int) (answer permissionsPage, err error) {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return answer, ctx.Err() // nobody waits for the answer
	}
	page, err := p.catalog.List(ctx, after, limit)
	if err != nil {
		return answer, err
	}
	answer = permissionsPage{Permissions: make([]permissionRecord, 0, len(page.Permissions)), DataRevision: page.Revision}
	for _, s := range page.Permissions {
		answer.Permissions = append(answer.Permissions, recordOf(s))
	}
	if page.Next != "" {
		answer.NextCursor = orNull(encodeCursor(page.Next))
	}
	return answer, nil
}

// serveOne answers GET /v1/permissions/{name}.
func (p *permissionReader) serveOne(w http.ResponseWriter, r *http.Request) {
	name, refused := askedName(r)
	if refused != nil {
		listener.WriteError(w, refused)
		return
	}
	s, revision, err := p.catalog.Find(name)
	switch {
	case err != nil:
		p.unavailable(w, err)
	case s.Live():
		listener.WriteJSON(w, http.StatusOK, permissionAnswer{recordOf(s), revision})
	case s.ID != "":
		listener.WriteErrorBeside(w,
			&listener.Error{Status: http.StatusNotFound, Code: "permission_deleted", Message: "the newest that is known of this name is a deletion"},
			map[string]any{"deleted": deletionOf(s), "data_revision": revision})
	default:
		listener.WriteErrorBeside(w,
			&listener.Error{Status: http.StatusNotFound, Code: "permission_unknown", Message: "the catalog has never seen a permission of this name; GET /v1/sync says whether it is complete"},
			map[string]any{"data_revision": revision})
	}
}

// unavailable leaves the cause to the log: it may name files of this machine.
func (p *permissionReader) unavailable(w http.ResponseWriter, err error) {
	var unreadable *catalog.UnavailableError
	if !errors.As(err, &unreadable) {
		return // the peer hung up
	}
	p.log.Warn("permissions", "permissions can't be read", "error", err)
	listener.WriteError(w, &listener.Error{Status: http.StatusServiceUnavailable, Code: "catalog_unavailable", Message: "the catalog can't be read; the log says why", RetryAfter: time.Second})
}

// askedName returns the name in the path, which stands there as one segment, escaped.
func askedName(r *http.Request) (string, *listener.Error) {
	if _, refused := parseParameters(r.URL.RawQuery); refused != nil {
		return "", refused
	}
	name, err := url.PathUnescape(mux.Vars(r)["name"])
	if err == nil {
		err = permission.CheckText("name", name, 1, permission.MaxName)
	}
	if err != nil {
		return "", &listener.Error{Status: http.StatusBadRequest, Code: "malformed_name", Message: err.Error()}
	}
	return name, nil
}

// parsePage reads the query of GET /v1/permissions: where the page begins, and how many
// records it may have.
func parsePage(query string) (after string, limit int, refused *listener.Error) {
	parameters, refused := parseParameters(query, "limit", "cursor")
	if refused != nil {
		return "", 0, refused
	}
	limit = defaultPage
	if text, given := parameters["limit"]; given {
		if limit, refused = parseLimit(text); refused != nil {
			return "", 0, refused
		}
	}
	if text, given := parameters["cursor"]; given {
		if after, refused = decodeCursor(text); refused != nil {
			return "", 0, refused
		}
	}
	return after, limit, nil
}

// parseParameters reads a query that may have each of known once, and nothing else.
func parseParameters(query string, known ...string) (map[string]string, *listener.Error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_query", Message: "want a query such as limit=100"}
	}
	parameters := map[string]string{}
	for name, given := range values {
		if !slices.Contains(known, name) {
			return nil, &listener.Error{Status: http.StatusBadRequest, Code: "unknown_parameter", Message: unknownParameter(name, known)}
		}
		if len(given) != 1 {
			return nil, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_query", Message: name + ": want it once"}
		}
		parameters[name] = given[0]
	}
	return parameters, nil
}

func unknownParameter(name string, known []string) string {
	const most = 40 // bytes of a foreign text that are told
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	if len(known) == 0 {
		return fmt.Sprintf("unknown query parameter %q; this path takes none", name)
	}
	return fmt.Sprintf("unknown query parameter %q%s; known are %s", name, didYouMean("", name, known), strings.Join(known, ", "))
}

func parseLimit(text string) (int, *listener.Error) {
	limit, err := strconv.ParseUint(text, 10, 16)
	if err != nil || limit < 1 || limit > largestPage {
		return 0, &listener.Error{Status: http.StatusBadRequest, Code: "malformed_limit", Message: fmt.Sprintf("limit: want a whole number from 1 to %d", largestPage)}
	}
	return int(limit), nil
}

// encodeCursor makes the cursor of the page that goes on behind name.
func encodeCursor(name string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + name))
}

// decodeCursor takes what encodeCursor makes, and no other spelling of it.
func decodeCursor(text string) (name string, refused *listener.Error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	name, known := strings.CutPrefix(string(decoded), cursorVersion)
	if err != nil || !known || permission.CheckText("name", name, 1, permission.MaxName) != nil || encodeCursor(name) != text {
		return "", &listener.Error{Status: http.StatusBadRequest, Code: "malformed_cursor", Message: "cursor: want next_cursor of the page before, or leave it out to begin"}
	}
	return name, nil
}
