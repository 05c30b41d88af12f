package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/permission"
)

// bundleServer is the real handler over a catalog in dir.
type bundleServer struct {
	*testing.T
	catalog *catalog.Catalog
	sidecar *sidecar
	url     string
	stop    func()
}

func newBundleServer(t *testing.T, dir string) bundleServer {
	t.Helper()
	c, err := catalog.Open(t.Context(), catalog.Options{Dir: dir, EnvironmentID: demoEnvironment, LRUSize: 10, MaxDocument: catalog.Limit{Records: 1000, Bytes: 1 << 20}, Eager: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{catalog: c, logger: slog.New(slog.DiscardHandler), engine: authz.NewEngine(authz.Options{MaxInFlight: 1}), config: config{dataDir: dir}}
	s.bootstrapped.Store(true)
	s.bundles = s.newCatalogFeed()
	server := httptest.NewUnstartedServer(nil)
	server.Config = listener.NewServer(s.authorizeRoutes(), answerWithin, s.logger)
	server.Start()
	b := bundleServer{T: t, catalog: c, sidecar: s, url: server.URL + "/v1/bundles/permissions.tar.gz"}
	b.stop = sync.OnceFunc(func() {
		s.bundles.Stop()
		server.Close()
		_ = c.Close()
	})
	t.Cleanup(b.stop)
	return b
}

func (b bundleServer) apply(events ...permission.Event) {
	b.Helper()
	for _, e := range events {
		if _, err := b.catalog.Apply(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
}

// ask returns the status, the tag and the body.
func (b bundleServer) ask(method string, headers ...string) (status int, tag string, body []byte) {
	b.Helper()
	request := must(http.NewRequestWithContext(b.Context(), method, b.url, nil))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("ETag"), body
}

// opened reads a bundle as OPA does.
func opened(t *testing.T, body []byte) opabundle.Bundle {
	t.Helper()
	read, err := opabundle.NewReader(bytes.NewReader(body)).Read()
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// The bundle is what policies see, to the last member.
func TestTheBundleIsTheDocument(t *testing.T) {
	b := newBundleServer(t, t.TempDir())
	compare := func() {
		t.Helper()
		d := b.catalog.Document(inmem.New())
		txn := must(d.NewTransaction(t.Context()))
		defer d.Abort(t.Context(), txn)
		want := must(ast.JSON(must(d.Read(t.Context(), txn, storage.Path{"scalekit"})).(ast.Value)))
		status, _, body := b.ask(http.MethodGet)
		if status != http.StatusOK {
			t.Fatalf("got %d %s", status, body)
		}
		read := opened(t, body)
		if got := read.Data["scalekit"]; !reflect.DeepEqual(got, want) || len(read.Data) != 1 {
			t.Errorf("got  %v\nwant %v", read.Data, want)
		}
		at := b.catalog.Sync()
		if m := read.Manifest; m.Revision != fmt.Sprintf("%d@%s", at.Revision, at.Epoch) || !reflect.DeepEqual(*m.Roots, []string{"scalekit"}) {
			t.Errorf("got the manifest %+v", m)
		}
	}
	compare()
	b.apply(permissionEvent(permission.Created, 1, "1", "a"), permissionEvent(permission.Updated, 2, "1", "a"),
		permissionEvent(permission.Updated, 3, "2", "</script>\"\\ü\u2028 "), permissionEvent(permission.Deleted, 4, "3", "c"),
		permissionEvent(permission.Deleted, 5, "4", "d"))
	compare()
	roles := []permission.Role{{ID: "role_2", Name: "viewer"}, {ID: "role_1", Name: "admin", Permissions: []string{"<", "a"}}}
	if _, err := b.catalog.Repair(t.Context(), catalog.Repair{Roles: roles, Complete: true}, nil); err != nil {
		t.Fatal(err)
	}
	compare()
	b.catalog.SetState(catalog.StateFresh)
	compare()
}

// Equal contents have equal tags and bytes, in another process, too; whatever changes has others.
func TestTagsOfBundles(t *testing.T) {
	dir := t.TempDir()
	b := newBundleServer(t, dir)
	seen := map[string]bool{}
	for name, change := range map[string]func(){
		"an event": func() { b.apply(permissionEvent(permission.Created, 1, "1", "a")) },
		"a state":  func() { b.catalog.SetState(catalog.StateStale) },
		"roles": func() {
			_ = must(b.catalog.Repair(t.Context(), catalog.Repair{Roles: []permission.Role{{ID: "role_1", Name: "admin"}}}, nil))
		},
	} {
		change()
		if _, tag, _ := b.ask(http.MethodHead); seen[tag] {
			t.Errorf("%s: the tag is one of before", name)
		} else {
			seen[tag] = true
		}
	}
	b.catalog.SetState(catalog.StateUnverified)
	_, tag, body := b.ask(http.MethodGet)
	if status, same, _ := b.ask(http.MethodGet, "If-None-Match: "+tag); status != http.StatusNotModified || same != tag {
		t.Errorf("got %d %s", status, same)
	}
	b.stop()
	again := newBundleServer(t, dir)
	if _, sameTag, sameBody := again.ask(http.MethodGet); sameTag != tag || !bytes.Equal(body, sameBody) {
		t.Errorf("after a restart: got %s, want %s; the same bytes: %v", sameTag, tag, bytes.Equal(body, sameBody))
	}
	if left := must(filepath.Glob(filepath.Join(dir, "spool-*"))); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Each bundle is of one revision while commits follow each other: what it says of itself is
// the count and the digest of what it holds. A follower sees the last of them.
func TestBundlesWhileCommitsLand(t *testing.T) {
	b := newBundleServer(t, t.TempDir())
	const commits = 200
	var followers sync.WaitGroup
	for range 3 {
		followers.Go(func() {
			for tag, last := "", uint64(0); last < commits; {
				status, newTag, body := b.ask(http.MethodGet, "If-None-Match: "+tag, "Prefer: modes=snapshot,delta;wait=20")
				if status != http.StatusOK {
					t.Errorf("got %d %s", status, body)
					return
				}
				revision, err := judgeBundle(opened(t, body))
				if err != nil || revision <= last && tag != "" {
					t.Errorf("revision %d after %d: %v", revision, last, err)
					return
				}
				tag, last = newTag, revision
			}
		})
	}
	for i := range commits {
		kind := []permission.Kind{permission.Created, permission.Updated, permission.Deleted}[i%3]
		b.apply(permissionEvent(kind, i, fmt.Sprint(i%7, "_", i/21), fmt.Sprint("name:", i%7)))
	}
	followers.Wait()
}

func judgeBundle(read opabundle.Bundle) (revision uint64, err error) {
	document := read.Data["scalekit"].(map[string]any)
	var digest permission.Digest
	live := document["permissions"].(map[string]any)
	for name, record := range live {
		p := record.(map[string]any)
		if _, both := document["deleted"].(map[string]any)[name]; both {
			return 0, fmt.Errorf("%s is both", name)
		}
		digest = digest.Plus(permission.ContentDigest(p["id"].(string), p["name"].(string), p["description"].(string)))
	}
	told := document["sync"].(map[string]any)
	if told["digest"] != digest.String() || told["count"] != json.Number(fmt.Sprint(len(live))) {
		return 0, fmt.Errorf("%v says %v, and holds %s", told["revision"], told, digest)
	}
	_, err = fmt.Sscan(told["revision"].(json.Number).String(), &revision)
	return revision, err
}

func TestRefusedBundles(t *testing.T) {
	b := newBundleServer(t, t.TempDir())
	if status, _, body := b.ask(http.MethodGet, "If-None-Match: "+strings.Repeat(`"x",`, 250_000)); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d %s", status, body)
	}
	if status, _, body := b.ask(http.MethodPost); status != http.StatusMethodNotAllowed {
		t.Errorf("got %d %s", status, body)
	}
	if status, _, body := b.ask(http.MethodGet, "Range: bytes=9999999-"); status != http.StatusOK || len(opened(t, body).Data) != 1 {
		t.Errorf("a range is passed over; got %d %s", status, body)
	}
	b.sidecar.bootstrapped.Store(false)
	if status, tag, body := b.ask(http.MethodGet); status != http.StatusServiceUnavailable || tag != "" || !bytes.Contains(body, []byte(`"not_ready"`)) {
		t.Errorf("got %d %s %s", status, tag, body)
	}
	b.sidecar.bootstrapped.Store(true)
	b.url += "?wait=10"
	if status, _, body := b.ask(http.MethodGet); status != http.StatusBadRequest || !bytes.Contains(body, []byte(`"unknown_parameter"`)) {
		t.Errorf("got %d %s", status, body)
	}
}

// A small bundle needs no room on the disk; a larger one without room is refused, and the
// cause is told to the log alone.
func TestBundlesWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	b := newBundleServer(t, dir)
	b.sidecar.bundles.Stop()
	b.sidecar.config.dataDir = filepath.Join(dir, "absent")
	b.sidecar.bundles = b.sidecar.newCatalogFeed()
	b.apply(permissionEvent(permission.Created, 1, "1", "a"))
	if status, _, body := b.ask(http.MethodGet); status != http.StatusOK {
		t.Errorf("got %d %s", status, body)
	}
	var states []permission.State
	for i := range 5000 {
		e := permissionEvent(permission.Created, 1, fmt.Sprint("more_", i), fmt.Sprint("more:", i))
		states = append(states, e.State())
	}
	_ = must(b.catalog.Repair(t.Context(), catalog.Repair{States: states}, nil))
	if status, tag, body := b.ask(http.MethodGet); status != http.StatusServiceUnavailable || tag != "" || bytes.Contains(body, []byte(dir)) {
		t.Errorf("got %d %s %s", status, tag, body)
	}
}

// Whoever waits for a change doesn't hold up the end.
func TestTheEndWithFollowersWaiting(t *testing.T) {
	c := sidecarStarter(t)()
	url := "http://" + c.addr("authorize") + "/v1/bundles/permissions.tar.gz"
	response := must(http.Get(url))
	_ = must(io.Copy(io.Discard, response.Body))
	var waiting sync.WaitGroup
	for range 5 {
		request := must(http.NewRequest(http.MethodGet, url, nil))
		request.Header.Set("If-None-Match", response.Header.Get("ETag"))
		request.Header.Set("Prefer", "wait=50")
		waiting.Go(func() {
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Error(err)
			} else if answer.StatusCode != http.StatusNotModified {
				t.Errorf("got %d", answer.StatusCode)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // nothing tells from outside that they wait
	began := time.Now()
	if err := c.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-c.exited
	waiting.Wait()
	if took := time.Since(began); took > drainWithin/2 {
		t.Errorf("it took %s", took)
	}
}
