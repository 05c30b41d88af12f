package simulator_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

// signingKey is what endpoint and simulator share.
var signingKey = []byte("0123456789abcdef0123456789abcdef")

// mac is the signature of Standard Webhooks v1, written for the tests alone.
func mac(id, timestamp, body string) string {
	h := hmac.New(sha256.New, signingKey)
	_, _ = io.WriteString(h, id+"."+timestamp+"."+body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func signed(id string, at time.Time, body []byte) http.Header {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {mac(id, timestamp, string(body))},
	}
}

// attempt is one request that an endpoint got.
type attempt struct {
	id, timestamp, body string
	genuine             bool
}

func (a attempt) event(t *testing.T) (e event) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

type event struct {
	ID, Type   string
	OccurredAt string `json:"occurred_at"`
	Data       struct{ ID, Name, Description string }
}

// endpoint is an http.RoundTripper and so needs no network: time in a bubble goes on then.
// It takes what is genuine, unless answer says otherwise.
type endpoint struct {
	answer func(a attempt, n int) int // the n-th attempt, from 1; 0: the connection fails

	mu  sync.Mutex
	got []attempt
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a := attempt{id: r.Header.Get("Webhook-Id"), timestamp: r.Header.Get("Webhook-Timestamp"), body: string(body)}
	a.genuine = r.Header.Get("Webhook-Signature") == mac(a.id, a.timestamp, a.body)
	e.mu.Lock()
	e.got = append(e.got, a)
	n := len(e.got)
	e.mu.Unlock()
	status := 201
	if !a.genuine {
		status = 401
	}
	if e.answer != nil {
		status = e.answer(a, n)
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	header := http.Header{}
	if status == 302 {
		header.Set("Location", "http://elsewhere/hook")
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

func (e *endpoint) attempts() []attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// told is what came, in short: types and names, and whether it was genuine.
func (e *endpoint) told(t *testing.T) string {
	t.Helper()
	var out []string
	for _, a := range e.attempts() {
		told := a.event(t)
		line := strings.TrimPrefix(told.Type, "permission.") + " " + told.Data.Name
		if !a.genuine {
			line += "!"
		}
		out = append(out, line)
	}
	return strings.Join(out, ", ")
}

// inBubble runs a simulator that posts to e, in a bubble of time.
func inBubble(t *testing.T, e *endpoint, test func(t *testing.T, s *simulator.Simulator), change ...func(*simulator.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := config("http://127.0.0.1:1", time.Now)
		c.Webhooks = simulator.Webhooks{URL: "http://endpoint/hook", Sign: signed, Transport: e, InFlight: 1}
		for _, do := range change {
			do(&c)
		}
		s, err := simulator.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			s.Run(ctx)
			close(done)
		}()
		test(t, s)
		stop()
		<-done
	})
}

// life creates, updates and deletes a permission named a.
func life(t *testing.T, s *simulator.Simulator) {
	t.Helper()
	p, err := s.Create("a", "first")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(p.ID, simulator.Change{Description: new("second")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(p.ID); err != nil {
		t.Fatal(err)
	}
}

func settle(t *testing.T, s *simulator.Simulator) {
	t.Helper()
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEventsHaveScalekitsForm(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		life(t, s)
		settle(t, s)
	})
	var instants []string
	for i, want := range []string{
		`{"spec_version":"1","id":"%s","type":"permission.created","object":"Permission","environment_id":"env_1","occurred_at":"%s","data":{"id":"%s","name":"a","description":"first"}}`,
		`{"spec_version":"1","id":"%s","type":"permission.updated","object":"Permission","environment_id":"env_1","occurred_at":"%s","data":{"id":"%s","name":"a","description":"second"}}`,
		`{"spec_version":"1","id":"%s","type":"permission.deleted","object":"Permission","environment_id":"env_1","occurred_at":"%s","data":{"id":"%s","name":"a","description":"second"}}`,
	} {
		a := e.attempts()[i]
		told := a.event(t)
		if want = fmt.Sprintf(want, told.ID, told.OccurredAt, told.Data.ID); a.body != want {
			t.Errorf("got  %s\nwant %s", a.body, want)
		}
		if !a.genuine || !strings.HasPrefix(a.id, "msg_") || !strings.HasPrefix(told.ID, "evt_") || !strings.HasPrefix(told.Data.ID, "perm_") || len(told.ID) > 32 || len(told.Data.ID) > 32 {
			t.Errorf("got %+v", a)
		}
		instants = append(instants, told.OccurredAt)
	}
	// The clock of the bubble stands still; that of events doesn't.
	if want := []string{"2000-01-01T00:00:00Z", "2000-01-01T00:00:00.000000001Z", "2000-01-01T00:00:00.000000002Z"}; !slices.Equal(instants, want) {
		t.Errorf("got %v", instants)
	}
}

func TestEventsOfRoles(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		if _, err := s.CreateRole(simulator.Role{Name: "admin", DisplayName: "Admin", Permissions: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.UpdateRole("admin", simulator.RoleChange{Permissions: &[]string{}}); err != nil {
			t.Fatal(err) // nobody is told of that
		}
		if _, err := s.UpdateRole("admin", simulator.RoleChange{Description: new("x")}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.DeleteRole("admin"); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
	}, withPermissions("a"))
	if got := e.told(t); got != "role.created admin, role.updated admin, role.deleted admin" {
		t.Errorf("got %s", got)
	}
	if got := e.attempts()[0].body; strings.Contains(got, "permissions") || !strings.Contains(got, `"object":"Role"`) || !strings.Contains(got, `"display_name":"Admin"`) {
		t.Errorf("got %s", got)
	}
}

func TestRetriesRenewTheTimestampAndKeepTheID(t *testing.T) {
	e := &endpoint{answer: func(_ attempt, n int) int { return []int{0, 500, 404, 302, 204}[n-1] }}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		began := time.Now()
		if _, err := s.Create("a", ""); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		// 1 + 2 + 4 + 5 s
		if took := time.Since(began); took != 12*time.Second {
			t.Errorf("took %s", took)
		}
		if got := s.Counts(); got != (simulator.Counts{Delivered: 1, Attempts: 5}) {
			t.Errorf("got %+v", got)
		}
		if d := s.Deliveries()[0]; d.State != simulator.Delivered || d.Attempts != 5 || d.Status != 204 || d.Error != "" {
			t.Errorf("got %+v", d)
		}
	}, func(c *simulator.Config) {
		c.Webhooks.Attempts, c.Webhooks.First, c.Webhooks.Longest = 5, time.Second, 5*time.Second
	})
	var stamps []string
	for _, a := range e.attempts() {
		stamps = append(stamps, a.timestamp)
		if a.id != e.attempts()[0].id || a.body != e.attempts()[0].body || !a.genuine {
			t.Errorf("got %+v", a)
		}
	}
	if got := strings.Join(stamps, " "); got != "946684800 946684801 946684803 946684807 946684812" {
		t.Errorf("got %s", got)
	}
}

func TestGivenUpEventsAreLostAndListed(t *testing.T) {
	e := &endpoint{answer: func(attempt, int) int { return 503 }}
	var ended []simulator.Delivery
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		if _, err := s.Create("a", ""); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		if got := s.Counts(); got != (simulator.Counts{Lost: 1, Attempts: 3}) {
			t.Errorf("got %+v", got)
		}
		if !slices.Equal(ended, s.Deliveries()) || ended[0].State != simulator.Lost || ended[0].Status != 503 || ended[0].Name != "a" {
			t.Errorf("got %+v, %+v", ended, s.Deliveries())
		}
		// As in the dashboard: it is sent again by hand.
		e.answer = nil
		if err := s.Resend(ended[0].EventID); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		if got := s.Counts(); got.Delivered != 1 || got.Lost != 1 || ended[1].WebhookID != ended[0].WebhookID {
			t.Errorf("got %+v", got)
		}
		if err := s.Resend("evt_0"); !errors.Is(err, simulator.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}, func(c *simulator.Config) {
		c.Webhooks.Attempts = 3
		c.Webhooks.Observe = func(d simulator.Delivery) { ended = append(ended, d) }
	})
}

func TestDeliveryNeverBlocksOrders(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		release := make(chan struct{})
		e.answer = func(_ attempt, n int) int {
			if n == 1 {
				<-release
			}
			return 201
		}
		life(t, s)
		synctest.Wait()
		if got := s.Counts(); got.Pending != 3 || len(e.attempts()) != 1 {
			t.Errorf("got %+v", got)
		}
		close(release)
		settle(t, s)
	})
}

func TestSeveralAreInFlight(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		all := make(chan struct{})
		e.answer = func(_ attempt, n int) int {
			if n == 3 {
				close(all)
			}
			<-all
			return 201
		}
		life(t, s)
		settle(t, s)
	}, func(c *simulator.Config) { c.Webhooks.InFlight = 3 })
}

func TestFaultsOfWebhooks(t *testing.T) {
	for rule, want := range map[string]struct {
		told   string
		counts simulator.Counts
	}{
		"webhook_drop=2":                     {"deleted a", simulator.Counts{Delivered: 1, Dropped: 2, Attempts: 1}},
		"webhook_duplicate=1":                {"created a, created a, updated a, deleted a", simulator.Counts{Delivered: 4, Attempts: 4}},
		"webhook_reorder=1":                  {"updated a, created a, deleted a", simulator.Counts{Delivered: 3, Attempts: 3}},
		"webhook_delay=1":                    {"updated a, deleted a, created a", simulator.Counts{Delivered: 3, Attempts: 3}},
		"webhook_drop=1 webhook_duplicate=2": {"updated a, updated a, deleted a", simulator.Counts{Delivered: 3, Dropped: 1, Attempts: 3}},
		"webhook_delay=never":                {"created a, updated a, deleted a", simulator.Counts{Delivered: 3, Attempts: 3}},
	} {
		e := &endpoint{}
		inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
			life(t, s)
			settle(t, s)
			// In the order of the queue: while one is in flight, the next ones wait.
			if got := s.Counts(); got != want.counts {
				t.Errorf("%s: got %+v", rule, got)
			}
		}, withFaults(strings.Fields(rule)...))
		if got := e.told(t); got != want.told {
			t.Errorf("%s: got %s, want %s", rule, got, want.told)
		}
	}
}

func TestAReorderedEventWaitsForNobodyForEver(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		began := time.Now()
		if _, err := s.Create("a", ""); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
	}, withFaults("webhook_reorder=always"), func(c *simulator.Config) { c.Faults.Delay = 3 * time.Second })
}

func TestDuplicatesHaveOneWebhookID(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		if _, err := s.Create("a", ""); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
	}, withFaults("webhook_duplicate=always"))
	if a := e.attempts(); len(a) != 2 || a[0].id != a[1].id || a[0].body != a[1].body {
		t.Errorf("got %+v", a)
	}
}

func TestForgeriesSayThatAnotherPermissionIsDeleted(t *testing.T) {
	for status, want := range map[int]simulator.Counts{
		401: {Delivered: 1, Refused: 2, Attempts: 3},
		200: {Delivered: 3, ForgeriesTaken: 2, Attempts: 3}, // an endpoint that doesn't check
	} {
		e := &endpoint{answer: func(a attempt, _ int) int {
			if a.genuine {
				return 201
			}
			return status
		}}
		inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
			if _, err := s.Create("mine", ""); err != nil {
				t.Fatal(err)
			}
			settle(t, s)
			if got := s.Counts(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			kinds := []simulator.Kind{}
			for _, d := range s.Deliveries() {
				kinds = append(kinds, d.Kind)
			}
			if want := []simulator.Kind{simulator.Original, simulator.FalseBody, simulator.FalseSignature}; !slices.Equal(kinds, want) {
				t.Errorf("got %v", kinds)
			}
		}, withPermissions("victim"), withFaults("webhook_forge=1"))
		if got := e.told(t); got != "created mine, deleted victim!, deleted victim!" {
			t.Errorf("got %s", got)
		}
	}
}

func TestForgeriesLeaveTheirOwnEventAlone(t *testing.T) {
	e := &endpoint{}
	inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
		for i := range 20 {
			if _, err := s.Create(fmt.Sprintf("p%d", i), ""); err != nil {
				t.Fatal(err)
			}
			settle(t, s)
		}
	}, withPermissions("other"), withFaults("webhook_forge=always"))
	var mine string
	for _, a := range e.attempts() {
		switch name := a.event(t).Data.Name; {
		case a.genuine:
			mine = name
		case name == mine:
			t.Errorf("a forgery of %s", name)
		}
	}
}

// With one seed everything that is left to chance comes out alike, and ids do.
func TestRunsRepeat(t *testing.T) {
	history := func(seed uint64) string {
		e := &endpoint{}
		var ids string
		inBubble(t, e, func(t *testing.T, s *simulator.Simulator) {
			for i := range 40 {
				p, err := s.Create(fmt.Sprintf("p%d", i), "")
				if err != nil {
					t.Fatal(err)
				}
				ids += p.ID + " "
				settle(t, s)
			}
		}, withFaults("webhook_drop=30%", "webhook_duplicate=30%", "webhook_forge=30%"), func(c *simulator.Config) { c.Seed = seed })
		return ids + e.told(t)
	}
	one, again, other := history(1), history(1), history(2)
	if one != again {
		t.Errorf("got\n%s\n%s", one, again)
	}
	if strings.Fields(one)[0] == strings.Fields(other)[0] {
		t.Errorf("two seeds make the same ids")
	}
	if n := strings.Count(one, "created "); n < 25 || n > 50 {
		t.Errorf("%d of 40 created, with duplicates", n)
	}
}

func TestWhatIsPendingAtTheEndStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		e := &endpoint{answer: func(attempt, int) int { <-hold; return 201 }}
		c := config("http://127.0.0.1:1", time.Now)
		c.Webhooks = simulator.Webhooks{URL: "http://endpoint/hook", Sign: signed, Transport: e}
		s, err := simulator.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go s.Run(ctx)
		life(t, s)
		synctest.Wait()
		stop()
		close(hold)
		synctest.Wait()
		if got := s.Counts(); got.Pending != 3 {
			t.Errorf("got %+v", got)
		}
		if err := s.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		ctx, stop = context.WithCancel(t.Context())
		defer stop()
		go s.Run(ctx)
		settle(t, s)
		if got := s.Counts(); got.Pending != 0 || got.Delivered != 3 {
			t.Errorf("after another Run: got %+v", got)
		}
		if got := e.told(t); strings.Count(got, "created a") != 2 {
			t.Errorf("what was cut off may have arrived, and has to come again: got %s", got)
		}
	})
}
