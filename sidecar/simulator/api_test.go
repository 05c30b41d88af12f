package simulator_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

func TestTokenEndpoint(t *testing.T) {
	k := start(t, func(c *simulator.Config) { c.TokenLifetime = time.Minute })
	var got map[string]any
	k.login("skc_1", "s3cret").decode(t, &got)
	if len(got) != 3 || got["token_type"] != "Bearer" || got["expires_in"] != 60.0 {
		t.Errorf("got %v", got)
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for name, c := range map[string]struct {
		got  reply
		want string
	}{
		"wrong secret":  {k.login("skc_1", "s3cre"), `401 {"code":16,"message":"the client id or the client secret is wrong","details":[{"error_code":"UNAUTHENTICATED"}]}`},
		"wrong id":      {k.login("skc_2", "s3cret"), `401 {"code":16,`},
		"no secret":     {k.login("skc_1", ""), `401 {"code":16,`},
		"another grant": {k.do("POST", "/oauth/token", "grant_type=password", form...), `400 {"code":3,"message":"grant_type: want client_credentials, got \"password\""`},
		"JSON":          {k.do("POST", "/oauth/token", "{}", "Content-Type", "application/json"), `400 {"code":3,"message":"Content-Type: want application/x-www-form-urlencoded`},
		"in the query":  {k.do("POST", "/oauth/token?grant_type=client_credentials&client_id=skc_1&client_secret=s3cret", "", form...), `400 {"code":3,`},
		"a long form":   {k.do("POST", "/oauth/token", strings.Repeat("a", 20<<10), form...), `400 {"code":3,"message":"the request body is larger`},
		"wrong method":  {k.do("GET", "/oauth/token", ""), `405 `},
	} {
		if got := fmt.Sprintf("%d %s", c.got.status, c.got.body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestBearerTokensExpireAndAreRevoked(t *testing.T) {
	k := start(t, func(c *simulator.Config) { c.TokenLifetime = time.Minute })
	token := k.token()
	ask := func(header ...string) int { return k.do("GET", "/api/v1/permissions", "", header...).status }
	if got := ask("Authorization", "Bearer "+token); got != 200 {
		t.Errorf("a good token: got %d", got)
	}
	if got := ask(); got != 401 {
		t.Errorf("no token: got %d", got)
	}
	if got := ask("Authorization", "Bearer "+token[1:]); got != 401 {
		t.Errorf("another token: got %d", got)
	}
	k.clock.move(time.Minute)
	if got := ask("Authorization", "Bearer "+token); got != 401 {
		t.Errorf("an expired token: got %d", got)
	}
	token = k.token()
	k.RevokeAPITokens()
	if got := ask("Authorization", "Bearer "+token); got != 401 {
		t.Errorf("a revoked token: got %d", got)
	}
}

func TestPagesForwardAndBack(t *testing.T) {
	k := start(t, withPermissions("a", "b", "c", "d", "e"))
	var forward []string
	l := k.list("page_size=2&type=ENVIRONMENT")
	for {
		forward = append(forward, l.names())
		if l.Total != 5 {
			t.Errorf("total_size: got %d", l.Total)
		}
		if l.Next == "" {
			break
		}
		l = k.list("page_size=2&type=ENVIRONMENT&page_token=" + l.Next)
	}
	if got := strings.Join(forward, "|"); got != "a b|c d|e" {
		t.Errorf("forward: got %s", got)
	}
	var back []string
	for l.Prev != "" {
		l = k.list("page_size=2&type=ENVIRONMENT&page_token=" + l.Prev)
		back = append(back, l.names())
	}
	if got := strings.Join(back, "|"); got != "c d|a b" {
		t.Errorf("back: got %s", got)
	}
}

func TestPagesAreNoSnapshot(t *testing.T) {
	k := start(t, withPermissions("a", "b", "c"))
	first := k.list("page_size=2&type=ENVIRONMENT")
	if _, err := k.Delete(first.Permissions[1].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Create("d", ""); err != nil {
		t.Fatal(err)
	}
	second := k.list("page_size=2&type=ENVIRONMENT&page_token=" + first.Next)
	if second.names() != "c d" || second.Next != "" {
		t.Errorf("got %q", second.names())
	}
}

func TestScalekitsOwnPermissionsComeUnlessLeftOut(t *testing.T) {
	k := start(t, withPermissions("a"))
	all := k.list("page_size=2")
	if len(all.Permissions) != 2 || !all.Permissions[0].Own || all.Total != 4 || all.Next == "" {
		t.Errorf("the first page: got %+v", all)
	}
	rest := k.list("page_size=100&page_token=" + all.Next)
	if len(rest.Permissions) != 2 || !rest.Permissions[0].Own || rest.Permissions[1].Own || rest.Permissions[1].Name != "a" || rest.Next != "" {
		t.Errorf("the rest: got %+v", rest)
	}
	l := k.list("type=ENVIRONMENT")
	if l.names() != "a" || l.Permissions[0].Own || l.Total != 1 || l.Prev != "" {
		t.Errorf("the environment's: got %+v", l)
	}
	if got := k.Digest().String(); got != digestOf(l) {
		t.Errorf("the digest %s isn't that of the listing", got)
	}
}

func TestListingRefusesWhatItDoesNotKnow(t *testing.T) {
	k := start(t)
	for query, want := range map[string]string{
		"page_size=0":          "page_size: want a whole number from 1 to 100",
		"page_size=101":        "page_size: want a whole number from 1 to 100",
		"page_size=x":          "page_size: want a whole number from 1 to 100",
		"type=ORGANIZATION":    "type: want ENVIRONMENT or none",
		"page_token=AAAA":      "page_token: want the next_page_token",
		"page_token=MDAuMC4w":  "page_token: want the next_page_token", // 00.0.0
		"page_token=%zz":       "the query can't be read",
		"page_size=1;type=a%3": "the query can't be read",
	} {
		if r := k.read("/api/v1/permissions?" + query); r.status != 400 || !strings.Contains(r.body, want) {
			t.Errorf("%s: got %d %s", query, r.status, r.body)
		}
	}
	if r := k.read("/api/v1/roles?include=everything"); r.status != 400 || !strings.Contains(r.body, "include: want permissions:all") {
		t.Errorf("roles: got %d %s", r.status, r.body)
	}
}

func TestListingTellsTheClocks(t *testing.T) {
	k := start(t, withPermissions("a"))
	r := k.read("/api/v1/permissions?type=ENVIRONMENT")
	if got := r.header.Get("Date"); got != noon.Format(http.TimeFormat) {
		t.Errorf("Date: got %s", got)
	}
	k.clock.move(time.Hour)
	l := k.list("type=ENVIRONMENT")
	if _, err := k.Update(l.Permissions[0].ID, simulator.Change{Description: new("x")}); err != nil {
		t.Fatal(err)
	}
	p := k.list("type=ENVIRONMENT").Permissions[0]
	if p.CreateTime != "2026-01-15T12:00:00.123456789Z" || p.UpdateTime != "2026-01-15T13:00:00.123456789Z" {
		t.Errorf("got %+v", p)
	}
}

func TestRolesHaveEffectivePermissions(t *testing.T) {
	k := start(t, withPermissions("read", "write"), func(c *simulator.Config) {
		c.Fixture.Roles = []simulator.Role{
			{Name: "viewer", DisplayName: "Viewer", Permissions: []string{"read"}},
			{Name: "editor", Extends: "viewer", Permissions: []string{"write"}},
		}
	})
	effective := func(query string) (got string) {
		var answer struct {
			Roles []struct {
				Name, Extends string
				Dependent     int `json:"dependent_roles_count"`
				Permissions   []struct {
					Name string
					From string `json:"role_name"`
				}
			}
		}
		k.read("/api/v1/roles"+query).decode(t, &answer)
		for _, r := range answer.Roles {
			got += fmt.Sprintf("%s<%s%d%v ", r.Name, r.Extends, r.Dependent, r.Permissions)
		}
		return got
	}
	if got := effective("?include=permissions:all"); got != "viewer<1[{read viewer}] editor<viewer0[{write editor} {read viewer}] " {
		t.Errorf("got %s", got)
	}
	if got := effective(""); got != "viewer<1[] editor<viewer0[] " {
		t.Errorf("bare: got %s", got)
	}
	if _, err := k.Delete(k.Live()[0].ID); err != nil {
		t.Fatal(err)
	}
	if got := effective("?include=permissions:all"); got != "viewer<1[] editor<viewer0[{write editor}] " {
		t.Errorf("after a deletion: got %s", got)
	}
}

// Each fault of the API, the first time and the second: a count of one ends.
func TestFaultsOfTheAPI(t *testing.T) {
	for rule, want := range map[string]string{
		"rate_limit=1":      `429 3 {"code":8,"message":"too many requests","details":[{"error_code":"RATE_LIMITED"}]}`,
		"rate_limit_bare=1": `429  {"code":8,"message":"too many requests","details":[{"error_code":"RATE_LIMITED"}]}`,
		"error_500=1":       `500  {"code":13,"message":"internal error","details":[{"error_code":"INTERNAL"}]}`,
		"error_503=1":       `503  {"code":14,"message":"the service is unavailable","details":[{"error_code":"UNAVAILABLE"}]}`,
		"error_403=1":       `403  {"code":7,"message":"this client may not do that","details":[{"error_code":"PERMISSION_DENIED"}]}`,
		"token_refused=1":   `401  {"code":16,"message":"the access token is missing, unknown or expired","details":[{"error_code":"UNAUTHENTICATED"}]}`,
		"malformed=1":       `200  {"permissions":[],"next_page_token":"`,
	} {
		k := start(t, withFaults(rule), func(c *simulator.Config) { c.Faults.RetryAfter = 2500 * time.Millisecond })
		r := k.read("/api/v1/permissions?type=ENVIRONMENT")
		if got := fmt.Sprintf("%d %s %s", r.status, r.header.Get("Retry-After"), r.body); got != want {
			t.Errorf("%s: got %s, want %s", rule, got, want)
		}
		if r := k.read("/api/v1/permissions?type=ENVIRONMENT"); r.status != 200 || !strings.HasSuffix(r.body, "}") {
			t.Errorf("%s, the second time: got %d %s", rule, r.status, r.body)
		}
	}
}

func TestBrokenOffAnswers(t *testing.T) {
	k := start(t, withFaults("truncate=1", "hang=1"), func(c *simulator.Config) { c.Faults.Hang = time.Millisecond })
	if r := k.read("/api/v1/roles"); r.err == nil {
		t.Errorf("hang: an answer came: %d %s", r.status, r.body)
	}
	if r := k.read("/api/v1/roles"); r.status != 200 || r.err == nil || r.body == "" {
		t.Errorf("truncate: got %d %q %v", r.status, r.body, r.err)
	}
	if r := k.read("/api/v1/roles"); r.status != 200 || r.err != nil {
		t.Errorf("afterwards: got %d %v", r.status, r.err)
	}
}

func TestRefusedCredentialsAndKeys(t *testing.T) {
	k := start(t, withFaults("credentials_refused=1", "keys_unavailable=2"))
	if r := k.login("skc_1", "s3cret"); r.status != 401 {
		t.Errorf("credentials_refused: got %d", r.status)
	}
	if r := k.login("skc_1", "s3cret"); r.status != 200 {
		t.Errorf("afterwards: got %d", r.status)
	}
	for _, path := range []string{"/keys", "/.well-known/openid-configuration"} {
		if r := k.do("GET", path, ""); r.status != 503 {
			t.Errorf("%s: got %d", path, r.status)
		}
	}
	if r := k.do("GET", "/keys", ""); r.status != 200 {
		t.Errorf("afterwards: got %d", r.status)
	}
}

func TestFaultsOfListings(t *testing.T) {
	five := withPermissions("a", "b", "c", "d", "e")
	walk := func(k *scalekit, most int) (pages []string, totals map[int]bool, tokens map[string]bool) {
		totals, tokens = map[int]bool{}, map[string]bool{}
		query := "type=ENVIRONMENT&page_size=2"
		for range most {
			l := k.list(query)
			pages = append(pages, l.names())
			totals[l.Total] = true
			tokens[l.Next] = true
			if l.Next == "" {
				break
			}
			query = "type=ENVIRONMENT&page_size=2&page_token=" + l.Next
		}
		return pages, totals, tokens
	}
	t.Run("a lost page", func(t *testing.T) {
		pages, totals, _ := walk(start(t, five, withFaults("lost_page=1")), 9)
		if got := strings.Join(pages, "|"); got != "c d|e" || !totals[5] || len(totals) != 1 {
			t.Errorf("got %s of %v", got, totals)
		}
	})
	t.Run("a lost last page", func(t *testing.T) {
		k := start(t, withPermissions("a"), withFaults("lost_page=1"))
		if l := k.list("type=ENVIRONMENT"); l.names() != "" || l.Total != 1 || l.Next != "" {
			t.Errorf("got %+v", l)
		}
	})
	t.Run("an empty list", func(t *testing.T) {
		pages, totals, _ := walk(start(t, five, withFaults("empty_list=1")), 9)
		if got := strings.Join(pages, "|"); got != "" || !totals[0] {
			t.Errorf("got %s of %v", got, totals)
		}
	})
	t.Run("a hidden permission", func(t *testing.T) {
		k := start(t, five, withFaults("hidden_permission=1"))
		pages, totals, _ := walk(k, 9)
		if got := strings.Fields(strings.Join(pages, " ")); len(got) != 4 || !totals[4] || len(totals) != 1 {
			t.Errorf("got %v of %v", got, totals)
		}
		if pages, _, _ := walk(k, 9); strings.Join(pages, "|") != "a b|c d|e" {
			t.Errorf("the second time: got %v", pages)
		}
	})
	t.Run("a hidden permission in each listing", func(t *testing.T) {
		k := start(t, five, withFaults("hidden_permission=always"))
		for range 5 {
			pages, totals, _ := walk(k, 9)
			seen := strings.Fields(strings.Join(pages, " "))
			if slices.Sort(seen); len(slices.Compact(seen)) != 4 || len(pages) != 2 || !totals[4] || len(totals) != 1 {
				t.Errorf("got %v of %v", pages, totals)
			}
		}
		// And back again, whichever is hidden.
		for range 20 {
			first := k.list("type=ENVIRONMENT&page_size=2")
			last := k.list("type=ENVIRONMENT&page_size=2&page_token=" + first.Next)
			if back := k.list("type=ENVIRONMENT&page_size=2&page_token=" + last.Prev); back.names() != first.names() {
				t.Errorf("forward %q, back %q", first.names(), back.names())
			}
		}
	})
	t.Run("endless pages", func(t *testing.T) {
		pages, _, tokens := walk(start(t, five, withFaults("endless_paging=always")), 9)
		if got := strings.Join(pages, "|"); got != "a b|c d|e|a b|c d|e|a b|c d|e" || len(tokens) != 9 || tokens[""] {
			t.Errorf("got %s, %d tokens", got, len(tokens))
		}
	})
}
