package scalekit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

const (
	largestToken = 64 << 10 // bytes of the token endpoint's answer
	tokenDepth   = 4        // Scalekit's nests once
	// longestLife is the longest that an access token is kept, whatever expires_in says.
	// Scalekit's live for a day.
	longestLife = 24 * time.Hour
	// renewBefore is how long before its end an access token is replaced, but at most a tenth
	// of its life.
	renewBefore = time.Minute
	// shortestSecret is the shortest text that [session.redact] takes out: a shorter one would
	// make words unreadable, and is no secret.
	shortestSecret = 8
)

// session is the access token in use, with what it was got for.
type session struct {
	mu     sync.Mutex
	secret string
	token  string    // empty when there is none
	until  time.Time // from then on it is replaced
}

func (s *session) live(now time.Time) (token string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token, s.token != "" && now.Before(s.until)
}

func (s *session) keepSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = secret
}

func (s *session) keep(token string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.until = token, until
}

// drop forgets a token that was refused, unless another one has replaced it already.
func (s *session) drop(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == token {
		s.until = time.Time{}
	}
}

// redact takes the credentials out of a text that a server had a part in.
func (s *session) redact(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range []string{s.secret, s.token} {
		if len(secret) >= shortestSecret {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

// get asks the API. On 401 it authenticates once more; the token may have been revoked.
func (c *Client) get(ctx context.Context, call call) (*answer, error) {
	for again := false; ; again = true {
		token, err := c.token(ctx)
		if err != nil {
			return nil, err
		}
		call.token = token
		got, err := c.exchange(ctx, call)
		if refused := new(APIError); !errors.As(err, &refused) || refused.Kind != KindUnauthorized {
			return got, err
		}
		c.session.drop(token)
		if again {
			return nil, err
		}
	}
}

// token returns the access token in use, or a new one. One caller at a time gets a new one;
// the others wait for it.
func (c *Client) token(ctx context.Context) (string, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", c.unanswered(ctx, OpToken, ctx.Err())
	}
	if token, ok := c.session.live(c.config.Now()); ok {
		return token, nil
	}
	return c.authenticate(ctx)
}

func (c *Client) authenticate(ctx context.Context) (string, error) {
	secret, err := c.config.ClientSecret()
	if secret = strings.TrimSpace(secret); err == nil && secret == "" {
		err = errors.New("want a client secret, got an empty one")
	}
	if err != nil {
		return "", &APIError{Op: OpToken, Kind: KindCredentials, detail: err.Error(), cause: err}
	}
	c.session.keepSecret(secret)
	asked := c.config.Now()
	got, err := c.exchange(ctx, call{
		op: OpToken, path: "/oauth/token", most: largestToken,
		form: url.Values{"grant_type": {"client_credentials"}, "client_id": {c.config.ClientID}, "client_secret": {secret}},
	})
	if err != nil {
		return "", err
	}
	token, life, err := readToken(got.body)
	if err != nil {
		return "", c.malformed(OpToken, err)
	}
	c.session.keep(token, asked.Add(life-min(renewBefore, life/10)))
	return token, nil
}

// bearerToken is what an Authorization header can hold (RFC 6750, section 2.1).
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// readToken reads what the token endpoint answers, {"access_token":"…","token_type":"Bearer",
// "expires_in":86399} with seconds. Its error never quotes the token.
func readToken(text []byte) (token string, life time.Duration, err error) {
	if err := strictjson.Check(text, tokenDepth); err != nil {
		return "", 0, err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return "", 0, err
	}
	if token, err = document.Text("access_token"); err != nil {
		return "", 0, err
	}
	if !bearerToken.MatchString(token) {
		return "", 0, errors.New("access_token: want letters, digits and -._~+/ alone")
	}
	kind, err := document.Text("token_type")
	if err != nil {
		return "", 0, err
	}
	if !strings.EqualFold(kind, "Bearer") {
		return "", 0, errors.New("token_type: want Bearer, got another")
	}
	seconds, err := strconv.ParseUint(string(document["expires_in"]), 10, 31)
	if err != nil || seconds == 0 {
		return "", 0, fmt.Errorf("expires_in: want a whole number of seconds above 0, got %s", strictjson.KindOf(document["expires_in"]))
	}
	return token, min(time.Duration(seconds)*time.Second, longestLife), nil
}
