package scalekit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
)

// bottomless is a listing that doesn't end: each page has a new token, and one permission.
// Each page but the first fails as often as it says before it comes, and takes its time.
type bottomless struct {
	failures, failed, pages int
	takes                   time.Duration
}

func (b *bottomless) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := sleep(r.Context(), b.takes); err != nil {
		return nil, err
	}
	status, body := http.StatusOK, `{"access_token":"t","token_type":"Bearer","expires_in":86399}`
	switch {
	case r.URL.Path == "/oauth/token":
	case b.pages > 0 && b.failed < b.failures:
		b.failed++
		status, body = http.StatusInternalServerError, ""
	default:
		b.failed = 0
		b.pages++
		body = fmt.Sprintf(`{"permissions":[{"id":"perm_%d","is_scalekit_permission":true}],"next_page_token":"%d"}`, b.pages, b.pages)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Date": {"Mon, 15 Jan 2024 10:30:00 GMT"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

// Whatever a server does, a walk ends.
func TestBounds(t *testing.T) {
	for want, test := range map[string]struct {
		change func(*limits)
		server bottomless
	}{
		"listing permissions: page 6: endless: want at most 5 pages":                {change: func(l *limits) { l.pages = 5 }},
		"listing permissions: page 8: endless: want at most 7 permissions":          {change: func(l *limits) { l.permissions = 7 }},
		"listing permissions: page 4: endless: want at most 250 bytes in all pages": {change: func(l *limits) { l.bytes = 250 }},
		"listing permissions: page 52: server_error: status 500":                    {change: func(*limits) {}, server: bottomless{failures: 2}},             // 100 retries are over
		"listing permissions: page 112: timeout: no whole answer in time":           {change: func(*limits) {}, server: bottomless{takes: 16 * time.Second}}, // half an hour is over, and the token took as long as a page
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := NewClient(ClientConfig{
				BaseURL: "https://example.com", ClientID: "skc_1", ClientSecret: func() (string, error) { return "secret", nil },
				Timeout: time.Minute, Transport: &test.server, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
			})
			if err != nil {
				t.Fatal(err)
			}
			test.change(&c.limits)
			if _, err := c.Permissions(t.Context()); fmt.Sprint(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func FuzzReadToken(f *testing.F) {
	f.Add([]byte(`{"access_token":"a.b-c_d~e+f/g=","token_type":"Bearer","expires_in":86399}`))
	f.Add([]byte(`{"access_token":"a b","token_type":"bearer","expires_in":0}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, life, err := readToken(text)
		if err != nil {
			var came struct {
				Token string `json:"access_token"`
			}
			if json.Unmarshal(text, &came) == nil && len(came.Token) >= shortestSecret && strings.Contains(err.Error(), came.Token) {
				t.Errorf("%v quotes the token", err)
			}
			return
		}
		if token == "" || strings.ContainsAny(token, " \r\n\x00") || life <= 0 || life > longestLife {
			t.Errorf("got %q for %s", token, life)
		}
	})
}

func FuzzReadCode(f *testing.F) {
	f.Add([]byte(`{"code":16,"message":"m","details":[{"error_code":"UNAUTHENTICATED"}]}`))
	f.Add([]byte(`{"details":[1,{"error_code":"lower"},{"error_code":"NOT_FOUND"}]}`))
	f.Add([]byte(`{"error":"invalid_client"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		code := readCode(body)
		if _, known := oauthCodes[code]; code != "" && !known && !errorCode.MatchString(code) {
			t.Errorf("got %q", code)
		}
	})
}

func FuzzReadRoles(f *testing.F) {
	f.Add([]byte(`{"roles":[{"id":"role_1","name":"admin","extends":"viewer","permissions":[{"id":"perm_1","name":"a","role_name":"viewer"}]},{"id":"2","name":"b","is_org_role":true}]}`))
	f.Add([]byte(`{"roles":[{"id":"role_1","name":"admin","permissions":["a","b"]},{"id":"role_2","name":"b","permissions":null}],"next_page_token":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		roles, err := readRoles(text)
		if err != nil {
			return
		}
		for _, role := range roles {
			if err := role.Check(); err != nil {
				t.Errorf("%+v: %v", role, err)
			}
		}
		if !slices.IsSortedFunc(roles, func(a, b permission.Role) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("got %+v", roles)
		}
	})
}
