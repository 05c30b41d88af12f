package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

// permissionServer is the authorize listener's routes over a catalog that holds events.
func permissionServer(t *testing.T, events ...permission.Event) (*httptest.Server, *catalog.Catalog) {
	t.Helper()
	c, err := catalog.Open(t.Context(), catalog.Options{Dir: t.TempDir(), EnvironmentID: demoEnvironment, LRUSize: 10, MaxDocument: catalog.Limit{Records: 1000, Bytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, e := range events {
		if _, err := c.Apply(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	s := &sidecar{catalog: c, logger: slog.New(slog.DiscardHandler), engine: authz.NewEngine(authz.Options{MaxInFlight: 1})}
	server := httptest.NewServer(s.authorizeRoutes())
	t.Cleanup(server.Close)
	return server, c
}

func permissionEvent(kind permission.Kind, minute int, id, name string) permission.Event {
	return permission.Event{
		ID: fmt.Sprint("evt_", id, "_", minute), Kind: kind, OccurredAt: permission.Instant(1_705_314_600_000_000_000 + int64(minute)*60_000_000_000),
		EnvironmentID: demoEnvironment, PermissionID: "perm_" + id, Name: name, Description: "<" + name + ">",
	}
}

// get asks for a raw request target, which no client tidies up.
func get(t *testing.T, server *httptest.Server, target string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", target)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	if _, err := fmt.Sscanf(head, "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("%s: got %q", target, answer)
	}
	return status, strings.TrimSpace(body)
}

// A record is told as policies see it, live and deleted, one by one and in the listing.
func TestPermissionsAreToldAsPoliciesSeeThem(t *testing.T) {
	server, c := permissionServer(t,
		permissionEvent(permission.Created, 1, "1", "a"), permissionEvent(permission.Updated, 2, "1", "a"),
		permissionEvent(permission.Updated, 3, "2", "b"), permissionEvent(permission.Deleted, 4, "3", "c"))
	seen := func(path ...string) any {
		d := c.Document(inmem.NewFromObject(map[string]any{}))
		txn, err := d.NewTransaction(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Abort(context.Background(), txn)
		value, err := d.Read(context.Background(), txn, path)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := ast.JSON(value.(ast.Value))
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	asked := func(target string) (answer map[string]any) {
		_, body := get(t, server, target)
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	listing := asked("/v1/permissions")["permissions"].([]any)
	for i, name := range []string{"a", "b"} {
		want := seen("scalekit", "permissions", name)
		if got := asked("/v1/permissions/" + name)["permission"]; !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if !reflect.DeepEqual(listing[i], want) {
			t.Errorf("listed %v\nwant   %v", listing[i], want)
		}
	}
	if got, want := asked("/v1/permissions/c")["deleted"], seen("scalekit", "deleted", "c"); len(listing) != 2 || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v, listed %v", got, want, listing)
	}
}

// A name stands in the path as one escaped segment, whatever bytes it has.
func TestNamesInThePath(t *testing.T) {
	names := []string{"data:manage", "a/b", "a%2Fb", "a%b", "%", "ü", "..", ".", "a b", "a+b", "a?b=c#d", "{name}", "/", "//", "\"", strings.Repeat("ü", 128)}
	var events []permission.Event
	for i, name := range names {
		events = append(events, permissionEvent(permission.Created, 1, fmt.Sprint(i), name))
	}
	server, _ := permissionServer(t, events...)
	everyByte := func(name string) (escaped string) {
		for i := range len(name) {
			escaped += fmt.Sprintf("%%%02X", name[i])
		}
		return escaped
	}
	for i, name := range names {
		for _, escaped := range []string{url.PathEscape(name), everyByte(name)} {
			status, body := get(t, server, "/v1/permissions/"+escaped)
			if want := fmt.Sprintf(`{"permission":{"id":"perm_%d",`, i); status != http.StatusOK || !strings.HasPrefix(body, want) {
				t.Errorf("%s: got %d %s", escaped, status, body)
			}
		}
	}
}

func TestRefusedQuestionsForPermissions(t *testing.T) {
	server, _ := permissionServer(t, permissionEvent(permission.Created, 1, "1", "a"), permissionEvent(permission.Deleted, 2, "2", "gone"))
	for _, test := range []struct {
		target string
		status int
		want   string
	}{
		{"/v1/permissions?limit=2", 200, `"next_cursor":null,"data_revision":2}`},
		{"/v1/permissions?limit=1000&cursor=" + encodeCursor("a"), 200, `{"permissions":[],"next_cursor":null,"data_revision":2}`},
		{"/v1/permissions?limit=0", 400, `"malformed_limit","message":"limit: want a whole number from 1 to 1000"`},
		{"/v1/permissions?limit=1001", 400, `"malformed_limit"`},
		{"/v1/permissions?limit=%2B5", 400, `"malformed_limit"`},
		{"/v1/permissions?limit=", 400, `"malformed_limit"`},
		{"/v1/permissions?limit=1&limit=2", 400, `"malformed_query","message":"limit: want it once"`},
		{"/v1/permissions?cursor=", 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=a", 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=%0A" + encodeCursor("a"), 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=" + encodeCursor("a") + "=", 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=" + encodeCursor(""), 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=" + encodeCursor("a\x00"), 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=" + encodeCursor(strings.Repeat("a", 257)), 400, `"malformed_cursor"`},
		{"/v1/permissions?cursor=MmE", 400, `"malformed_cursor"`}, // version 2
		{"/v1/permissions?limits=1", 400, `"unknown_parameter","message":"unknown query parameter \"limits\"; did you mean limit?; known are limit, cursor"`},
		{"/v1/permissions?" + strings.Repeat("x", 5000), 400, `\"` + strings.Repeat("x", 40) + `…\"`},
		{"/v1/permissions?limit=%zz", 400, `"malformed_query"`},
		{"/v1/permissions/a?verbose", 400, `"unknown_parameter","message":"unknown query parameter \"verbose\"; this path takes none"`},
		{"/v1/permissions/%00", 400, `"malformed_name","message":"name: want no control characters, got one at byte 0"`},
		{"/v1/permissions/%FF", 400, `"malformed_name","message":"name: want UTF-8"`},
		{"/v1/permissions/" + strings.Repeat("a", 257), 400, `"malformed_name"`},
		{"/v1/permissions/nobody", 404, `{"data_revision":2,"error":{"code":"permission_unknown"`},
		{"/v1/permissions/gone", 404, `{"data_revision":2,"deleted":{"id":"perm_2","deleted_at":"2024-01-15T10:32:00.000000000Z","event_id":"evt_2_2"},"error":{"code":"permission_deleted"`},
		{"/v1/permissions/", 404, `"not_found"`},
		{"/v1/permissions/a/b", 404, `"not_found"`},
	} {
		status, body := get(t, server, test.target)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%.80s: got %d %s, want %d and %s", test.target, status, body, test.status, test.want)
		}
	}
	response, err := http.Post(server.URL+"/v1/permissions/a", "", nil)
	if err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: got %v, %v", response, err)
	}
}

// A catalog that can't be read is an error, and never one without permissions.
func TestPermissionsOfAClosedCatalog(t *testing.T) {
	server, c := permissionServer(t, permissionEvent(permission.Created, 1, "1", "a"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/v1/permissions", "/v1/permissions/a"} {
		if status, body := get(t, server, target); status != http.StatusServiceUnavailable || !strings.Contains(body, `"catalog_unavailable"`) {
			t.Errorf("%s: got %d %s", target, status, body)
		}
	}
}

// Whoever walks from page to page meets each name once.
func TestCursorsLeadThroughTheListing(t *testing.T) {
	var events []permission.Event
	for i := range 25 {
		events = append(events, permissionEvent(permission.Created, 1, fmt.Sprint(i), fmt.Sprintf("n/%02d", i)))
	}
	server, _ := permissionServer(t, events...)
	var got []string
	for cursor, pages := "", 0; pages < 10; pages++ {
		_, body := get(t, server, "/v1/permissions?limit=10"+cursor)
		var page permissionsPage
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		for _, p := range page.Permissions {
			got = append(got, p.Name)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	for i, name := range got {
		if name != events[i].Name {
			t.Errorf("%d: got %s", i, name)
		}
	}
	if len(got) != len(events) {
		t.Errorf("%d of %d names came", len(got), len(events))
	}
}
