package simulator

import (
	"crypto/rand"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TokenRequest is what an access token shall say.
type TokenRequest struct {
	Subject        string // "usr_…"; required
	OrganizationID string // the claim oid; empty: none
	Roles          []string
	// Permissions are names, which needn't exist: a token keeps a deleted one. Nil: those that
	// Roles have now.
	Permissions []string
	Audience    []string      // nil: the client id, as Scalekit's
	Lifetime    time.Duration // from iat to exp; zero: 5 minutes, as Scalekit's
	// Age is how long ago it was issued. One older than its lifetime has expired; one with a
	// negative age isn't valid yet.
	Age    time.Duration
	Key    string         // a key's id, [Unpublished], or empty for the current one
	Claims map[string]any // more of them, or other values for the above
}

const defaultLifetime = 5 * time.Minute

// Mint returns a signed access token. Its error wraps [ErrInvalid], or [ErrNotFound] for the
// key.
func (s *Simulator) Mint(r TokenRequest) (string, error) {
	if r.Subject == "" {
		return "", fmt.Errorf("%w: sub: want a string that isn't empty, got none", ErrInvalid)
	}
	if r.Lifetime < 0 {
		return "", fmt.Errorf("%w: lifetime_seconds: want a positive one; an expired token has an age_seconds above it", ErrInvalid)
	}
	if r.Lifetime == 0 {
		r.Lifetime = defaultLifetime
	}
	key, err := s.keys.find(r.Key)
	if err != nil {
		return "", err
	}
	return sign(key, s.claims(r))
}

func (s *Simulator) claims(r TokenRequest) map[string]any {
	issued := s.config.Now().Add(-r.Age)
	claims := s.times(issued, r.Lifetime)
	claims["sub"], claims["sid"] = r.Subject, "ses_"+rand.Text()
	claims["aud"] = r.Audience
	if r.Audience == nil {
		claims["aud"] = []string{s.config.ClientID}
	}
	if r.OrganizationID != "" {
		claims["oid"] = r.OrganizationID
	}
	if r.Roles != nil {
		claims["roles"] = r.Roles
	}
	if r.Permissions == nil {
		r.Permissions = s.permissionsOf(r.Roles)
	}
	claims["permissions"] = r.Permissions
	maps.Copy(claims, r.Claims)
	return claims
}

// times returns the claims that every token has.
func (s *Simulator) times(issued time.Time, lifetime time.Duration) map[string]any {
	return map[string]any{
		"iss": s.config.URL, "client_id": s.config.ClientID, "jti": "tkn_" + rand.Text(),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(lifetime).Unix(),
	}
}

// permissionsOf returns the effective permissions of roles; one that doesn't exist has none.
func (s *Simulator) permissionsOf(roles []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	seen := map[string]bool{}
	for _, name := range roles {
		r, err := s.world.role(name)
		if err != nil {
			continue
		}
		for _, h := range s.world.effective(r) {
			if !seen[h.permission.Name] {
				seen[h.permission.Name] = true
				names = append(names, h.permission.Name)
			}
		}
	}
	return names
}

func sign(key *signingKey, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.secret, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"),
	)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

// apiTokens are the bearer tokens that the token endpoint gave out.
type apiTokens struct {
	mu    sync.Mutex
	valid map[string]time.Time // until when
}

func (a *apiTokens) add(token string, now, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.valid, func(_ string, until time.Time) bool { return !now.Before(until) })
	a.valid[token] = until
}

func (a *apiTokens) knows(token string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.valid[token]
	return ok && now.Before(until)
}

// issue gives out a token of the management API.
func (s *Simulator) issue() (string, error) {
	key, err := s.keys.find("")
	if err != nil {
		return "", err
	}
	now := s.config.Now()
	claims := s.times(now, s.config.TokenLifetime)
	claims["sub"], claims["scopes"] = s.config.ClientID, []string{}
	token, err := sign(key, claims)
	if err != nil {
		return "", err
	}
	s.tokens.add(token, now, now.Add(s.config.TokenLifetime))
	return token, nil
}

// RevokeAPITokens ends every token that the token endpoint gave out. New ones can be had.
func (s *Simulator) RevokeAPITokens() {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	clear(s.tokens.valid)
}
