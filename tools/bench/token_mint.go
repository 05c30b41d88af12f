package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"time"
)

const (
	tokenIssuer   = "https://benchmark.scalekit.com" //nolint:gosec // no credential
	tokenAudience = "app_benchmark"
	tokenSubject  = "usr_000001"
	tokenKeyID    = "key_benchmark"
	tokenKeyBits  = 2048
	tokenLifetime = 24 * time.Hour // longer than any run
)

// mint issues access tokens (RS256; RFC 7515, RFC 7519), each for the same subject, with the
// same claims but for its jti. It signs with the standard library: the servers verify with
// libraries of their own.
type mint struct {
	key  *rsa.PrivateKey
	held []string // permissions of the subject
}

func newMint(held []string) (*mint, error) {
	key, err := rsa.GenerateKey(rand.Reader, tokenKeyBits)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return &mint{key: key, held: held}, nil
}

// keySet is the public key as issuers publish theirs (RFC 7517).
func (m *mint) keySet() ([]byte, error) {
	return json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": tokenKeyID,
		"n": encoded(m.key.N.Bytes()), "e": encoded(big.NewInt(int64(m.key.E)).Bytes()),
	}}})
}

// issue signs a token that no other number has.
func (m *mint) issue(number int, now time.Time) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": tokenKeyID, "typ": "JWT"})
	if err != nil {
		return "", fmt.Errorf("rendering a token: %w", err)
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenIssuer, "aud": []string{tokenAudience}, "sub": tokenSubject, "oid": "org_000001",
		"jti": fmt.Sprintf("tkn_%09d", number), "roles": []string{"editor"}, "permissions": m.held,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenLifetime).Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("rendering a token: %w", err)
	}
	signed := encoded(header) + "." + encoded(claims)
	hash := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, m.key, crypto.SHA256, hash[:])
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed + "." + encoded(signature), nil
}

// issueAll signs so many tokens, all of them different, on all cores.
func (m *mint) issueAll(count int) ([]string, error) {
	tokens, now := make([]string, count), time.Now()
	ended := make(chan error)
	workers := runtime.NumCPU()
	for worker := range workers {
		go func() {
			var err error
			for i := worker; i < count && err == nil; i += workers {
				tokens[i], err = m.issue(i, now)
			}
			ended <- err
		}()
	}
	var errs []error
	for range workers {
		errs = append(errs, <-ended)
	}
	return tokens, errors.Join(errs...)
}

func encoded(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }
