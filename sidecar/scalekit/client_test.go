package scalekit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/scalekit"
)

func TestNewClient(t *testing.T) {
	for url, want := range map[string]string{
		"https://name.scalekit.com":     "<nil>",
		"https://auth.example.com:8443": "<nil>",
		"https://name.scalekit.com/":    "<nil>",
		"http://127.0.0.1:8080":         "<nil>",
		"http://[::1]:8080":             "<nil>",
		"http://localhost":              "<nil>",
		"http://name.scalekit.com":      "want https (http on a loopback address alone), such as https://NAME.scalekit.com",
		"http://127.0.0.1.example.com":  "want https (http on a loopback address alone), such as https://NAME.scalekit.com",
		"ftp://127.0.0.1":               "want https (http on a loopback address alone), such as https://NAME.scalekit.com",
		"https://u:pass@example.com":    "want no user or password in it",
		"https://example.com/api/v1":    "want nothing behind the host, such as https://NAME.scalekit.com",
		"https://example.com?a=b":       "want nothing behind the host, such as https://NAME.scalekit.com",
		"https://example.com?":          "want nothing behind the host, such as https://NAME.scalekit.com",
		"https://example.com#a":         "want nothing behind the host, such as https://NAME.scalekit.com",
		"name.scalekit.com":             "want an absolute URL such as https://NAME.scalekit.com",
		"https://":                      "want an absolute URL such as https://NAME.scalekit.com",
		"https:name":                    "want an absolute URL such as https://NAME.scalekit.com",
		"https://pass\x00word@x":        "want an absolute URL such as https://NAME.scalekit.com",
		"":                              "want an absolute URL such as https://NAME.scalekit.com",
	} {
		if got := fmt.Sprint(scalekit.CheckURL(url)); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
	for want, change := range map[string]func(*scalekit.ClientConfig){
		"the URL of the environment: want no user or password in it": func(c *scalekit.ClientConfig) { c.BaseURL = "https://u@example.com" },
		"the client id: want 1 to 256 bytes, got 0":                  func(c *scalekit.ClientConfig) { c.ClientID = "" },
		"want a client secret and a timeout":                         func(c *scalekit.ClientConfig) { c.ClientSecret = nil },
		"want a client secret and a timeout ":                        func(c *scalekit.ClientConfig) { c.Timeout = 0 },
	} {
		config := configOf("https://example.com")
		change(&config)
		if c, err := scalekit.NewClient(config); fmt.Sprint(err) != strings.TrimSpace(want) || c != nil {
			t.Errorf("got %v, %v, want %s", c, err, want)
		}
	}
}

func TestPermissions(t *testing.T) {
	a := newAPI(t)
	a.permissions = oneAfterTheOther(
		failing(200, permissionPage("second page&more", 3, listed("perm_2", "b"), `{"id":"perm_own","is_scalekit_permission":true}`), "Date: Mon, 15 Jan 2024 10:30:00 GMT"),
		failing(200, permissionPage("third", 3), "Date: Mon, 15 Jan 2024 10:30:01 GMT"),
		failing(200, permissionPage("", 3, listed("perm_1", "a"), listed("perm_2", "b")), "Date: Mon, 15 Jan 2024 10:30:03 GMT"),
	)
	got, err := newClient(t, configOf(a.URL)).Permissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state := func(id, name string) permission.State {
		return permission.State{
			ID: id, Name: name, Kind: permission.Updated, Source: permission.SourceReconcile,
			CreatedAt: 1704067200e9, OccurredAt: 1704153600_500000000, Content: permission.ContentDigest(id, name, ""),
		}
	}
	if !slices.Equal(got.States, []permission.State{state("perm_1", "a"), state("perm_2", "b")}) {
		t.Errorf("got %+v", got.States)
	}
	if got.Began.String() != "2024-01-15T10:30:00.000000000Z" || got.Ended.String() != "2024-01-15T10:30:03.000000000Z" || got.Pages != 3 {
		t.Errorf("from %s to %s, %d pages", got.Began, got.Ended, got.Pages)
	}
	if want := []string{
		"/oauth/token",
		"/api/v1/permissions?page_size=100&type=ENVIRONMENT",
		"/api/v1/permissions?page_size=100&page_token=second+page%26more&type=ENVIRONMENT",
		"/api/v1/permissions?page_size=100&page_token=third&type=ENVIRONMENT",
	}; !slices.Equal(a.asked(), want) {
		t.Errorf("asked for %q", a.asked())
	}
}

func TestRequests(t *testing.T) {
	a := newAPI(t)
	var form, header string
	a.token = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = fmt.Sprint(r.PostForm, r.Header.Get("Content-Type"), r.Header.Get("User-Agent"), r.Header.Get("Authorization"))
		fmt.Fprint(w, tokenAnswer(testToken, 86399))
	}
	a.permissions = func(w http.ResponseWriter, r *http.Request) {
		header = fmt.Sprint(r.Header.Get("Authorization"), r.Header.Get("Accept"), r.Header.Get("Accept-Encoding"), r.Header.Get("Cache-Control"), r.Header.Get("User-Agent"))
		fmt.Fprint(w, permissionPage("", 0))
	}
	if _, err := newClient(t, configOf(a.URL+"/")).Permissions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "map[client_id:[skc_1] client_secret:[" + testSecret + "] grant_type:[client_credentials]]application/x-www-form-urlencodedpostern/test"; form != want {
		t.Errorf("got  %s\nwant %s", form, want)
	}
	if want := "Bearer " + testToken + "application/jsonidentityno-cachepostern/test"; header != want {
		t.Errorf("got  %s\nwant %s", header, want)
	}
}

func TestAccessTokenIsKept(t *testing.T) {
	a := newAPI(t)
	now := time.Unix(1_700_000_000, 0)
	secret, tokens, life := "the first secret", 0, 0
	a.token = func(w http.ResponseWriter, r *http.Request) {
		tokens++
		if got := r.PostFormValue("client_secret"); got != secret {
			t.Errorf("got the secret %q, want %q", got, secret)
		}
		fmt.Fprint(w, tokenAnswer(fmt.Sprint("token-", tokens), life))
	}
	a.roles = func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Authorization"), fmt.Sprint("Bearer token-", tokens); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		fmt.Fprint(w, `{"roles":[]}`)
	}
	config := configOf(a.URL)
	config.Now = func() time.Time { return now }
	config.ClientSecret = func() (string, error) { return secret, nil }
	c := newClient(t, config)
	for _, step := range []struct {
		after  time.Duration
		life   int // of a token that is asked for now, in seconds
		tokens int
	}{
		{0, 3600, 1},
		{59*time.Minute - 1, 3600, 1},
		{1, 100, 2}, // a minute before its end
		{90*time.Second - 1, 100, 2},
		{1, 1 << 30, 3}, // a tenth of its life before its end
		{24*time.Hour - time.Minute - 1, 3600, 3},
		{1, 3600, 4}, // no token is kept for longer than a day
	} {
		now, life = now.Add(step.after), step.life
		if step.tokens == 2 {
			secret = "a changed secret"
		}
		if _, err := c.Roles(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tokens != step.tokens {
			t.Errorf("%s later: %d tokens, want %d", step.after, tokens, step.tokens)
		}
	}
}

// A token that was revoked costs one more authentication, and a walk doesn't begin anew.
func TestUnauthorizedOnce(t *testing.T) {
	a := newAPI(t)
	a.token = oneAfterTheOther(answering(tokenAnswer("token-1", 86399)), answering(tokenAnswer("token-2", 86399)))
	withToken := func(token, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				t.Errorf("want %s, got %s", token, r.Header.Get("Authorization"))
			}
			fmt.Fprint(w, body)
		}
	}
	a.permissions = oneAfterTheOther(
		withToken("token-1", permissionPage("x", 2, listed("perm_1", "a"))),
		failing(401, errorBody("UNAUTHENTICATED")),
		withToken("token-2", permissionPage("", 2, listed("perm_2", "b"))),
	)
	got, err := newClient(t, configOf(a.URL)).Permissions(t.Context())
	if err != nil || len(got.States) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}

// A token that is refused as soon as it was made is an error; the next walk tries a new one.
func TestUnauthorizedAgain(t *testing.T) {
	a := newAPI(t)
	a.permissions = oneAfterTheOther(failing(401, ""), failing(401, ""), answering(permissionPage("", 0)))
	c := newClient(t, configOf(a.URL))
	if _, err := c.Permissions(t.Context()); asAPIError(t, err).Kind != scalekit.KindUnauthorized {
		t.Errorf("got %v", err)
	}
	if _, err := c.Permissions(t.Context()); err != nil {
		t.Error(err)
	}
	tokens := 0
	for _, path := range a.asked() {
		if path == "/oauth/token" {
			tokens++
		}
	}
	if tokens != 3 || len(a.asked()) != 6 {
		t.Errorf("asked for %q", a.asked())
	}
}

func TestConcurrentCallersShareATokenRequest(t *testing.T) {
	a := newAPI(t)
	c := newClient(t, configOf(a.URL))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.Roles(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if asked := a.asked(); len(asked) != 9 {
		t.Errorf("asked for %q", asked)
	}
}

// Two that were refused with one token authenticate once.
func TestConcurrentCallersReplaceATokenOnce(t *testing.T) {
	a := newAPI(t)
	a.token = oneAfterTheOther(answering(tokenAnswer("token-1", 86399)), answering(tokenAnswer("token-2", 86399)), failing(500, ""))
	var both sync.WaitGroup
	both.Add(2)
	replaced := make(chan struct{})
	refuseLate := func(w http.ResponseWriter, _ *http.Request) {
		both.Done()
		<-replaced
		w.WriteHeader(http.StatusUnauthorized)
	}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		both.Done()
		both.Wait()
		w.WriteHeader(http.StatusUnauthorized)
	}
	take := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-2" {
			t.Errorf("got %s", r.Header.Get("Authorization"))
		}
		fmt.Fprint(w, `{"roles":[]}`)
	}
	a.roles = oneAfterTheOther(refuseLate, refuse, func(w http.ResponseWriter, r *http.Request) {
		take(w, r)
		close(replaced)
	}, take)
	c := newClient(t, configOf(a.URL))
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, err := c.Roles(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// One failure doesn't throw away the pages before it.
func TestAPageIsTriedAgain(t *testing.T) {
	first, last := answering(permissionPage("x", 2, listed("perm_1", "a"))), answering(permissionPage("", 2, listed("perm_2", "b")))
	limited := failing(429, errorBody("RATE_LIMITED"))
	for _, test := range []struct {
		name     string
		failures []http.HandlerFunc
		waits    []time.Duration // with half of each window
		kind     scalekit.ErrorKind
	}{
		{"after 429", []http.HandlerFunc{limited}, []time.Duration{time.Second / 2}, ""},
		{"after 429 with Retry-After, which the jitter comes on top of", []http.HandlerFunc{failing(429, "", "Retry-After: 60")}, []time.Duration{60*time.Second + time.Second/2}, ""},
		{"as long as there is patience with limits", slices.Repeat([]http.HandlerFunc{limited}, 9), []time.Duration{
			500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second,
		}, ""},
		{"and no longer", slices.Repeat([]http.HandlerFunc{limited}, 10), []time.Duration{
			500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second,
		}, scalekit.KindRateLimited},
		{"but not after a long Retry-After", []http.HandlerFunc{failing(429, "", "Retry-After: 121")}, nil, scalekit.KindRateLimited},
		{"after 500 and a broken connection, and net/http tries itself where one was idle", []http.HandlerFunc{failing(500, ""), hangUp, hangUp}, []time.Duration{time.Second / 2, time.Second}, ""},
		{"four times at most", slices.Repeat([]http.HandlerFunc{failing(502, "")}, 4), []time.Duration{time.Second / 2, time.Second, 2 * time.Second}, scalekit.KindServerError},
		{"but not after 403", []http.HandlerFunc{failing(403, "")}, nil, scalekit.KindForbidden},
		{"nor what isn't JSON", []http.HandlerFunc{answering("x")}, nil, scalekit.KindMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPI(t)
			a.permissions = oneAfterTheOther(slices.Concat([]http.HandlerFunc{first}, test.failures, []http.HandlerFunc{last})...)
			config, slept := configOf(a.URL), &waits{}
			config.Sleep = slept.sleep
			got, err := newClient(t, config).Permissions(t.Context())
			if !slices.Equal(slept.all, test.waits) {
				t.Errorf("waited %v, want %v", slept.all, test.waits)
			}
			if test.kind == "" && (err != nil || len(got.States) != 2) {
				t.Errorf("got %v, %v", got, err)
			}
			if test.kind != "" {
				if failure := asAPIError(t, err); failure.Kind != test.kind || failure.Page != 2 || got != nil {
					t.Errorf("got %v, %v", got, err)
				}
			}
		})
	}
}

func TestAPageIsTriedAgainAfterATimeout(t *testing.T) {
	a := newAPI(t)
	a.permissions = oneAfterTheOther(answering(permissionPage("x", 1, listed("perm_1", "a"))), answering(permissionPage("", 1)))
	config := configOf(a.URL)
	config.Transport = &brokenOnce{at: 3, err: os.ErrDeadlineExceeded} // after the token and the first page
	if got, err := newClient(t, config).Permissions(t.Context()); err != nil || len(got.States) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTheFirstPageIsNotTriedAgain(t *testing.T) {
	a := newAPI(t)
	a.permissions = failing(503, "", "Retry-After: 7")
	config, slept := configOf(a.URL), &waits{}
	config.Sleep = slept.sleep
	_, err := newClient(t, config).Permissions(t.Context())
	if failure := asAPIError(t, err); failure.RetryAfter != 7*time.Second || len(slept.all) > 0 || len(a.asked()) != 2 {
		t.Errorf("got %v, waited %v", err, slept.all)
	}
}

// Whoever ends the walk gets the error of the context, and whose time is over learns why it was.
func TestContextEnds(t *testing.T) {
	a := newAPI(t)
	a.permissions = oneAfterTheOther(answering(permissionPage("x", 2, listed("perm_1", "a"))), failing(500, ""))
	config := configOf(a.URL)
	ctx, cancel := context.WithCancel(t.Context())
	config.Sleep = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	if got, err := newClient(t, config).Permissions(ctx); !errors.Is(err, context.Canceled) || got != nil || err.Error() != "listing permissions: context canceled" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := newClient(t, config).Roles(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := newClient(t, config).Roles(over); asAPIError(t, err).Kind != scalekit.KindTimeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	config.Sleep = func(context.Context, time.Duration) error { return context.DeadlineExceeded }
	if _, err := newClient(t, config).Permissions(t.Context()); asAPIError(t, err).Kind != scalekit.KindServerError {
		t.Errorf("got %v", err)
	}
}

// Without Sleep of its own, a client waits by the clock, and no longer than it may.
func TestSleepsByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pages := 0
		config := configOf("https://example.com")
		config.Sleep = nil
		config.Transport = answers(func(r *http.Request) (int, string) {
			switch {
			case r.URL.Path == "/oauth/token":
				return 200, tokenAnswer(testToken, 86399)
			case r.URL.Query().Get("page_token") == "":
				return 200, permissionPage("x", 0)
			}
			if pages++; pages == 1 {
				return 500, ""
			}
			return 200, permissionPage("", 0)
		})
		began := time.Now()
		if _, err := newClient(t, config).Permissions(t.Context()); err != nil || time.Since(began) != time.Second/2 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/4)
		defer cancel()
		pages = 0
		if _, err := newClient(t, config).Permissions(ctx); asAPIError(t, err).Kind != scalekit.KindServerError || time.Since(began) != 3*time.Second/4 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
