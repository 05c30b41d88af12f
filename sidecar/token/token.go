// Package token verifies access tokens: JSON Web Tokens of one issuer, for one of a few
// audiences.
//
// Invariants:
//
//   - A token is good or it isn't; what isn't has one code, and nobody learns its claims.
//   - Who signs is decided by the issuer's keys and the listed algorithms, never by the token:
//     it names a key and brings none.
//   - A key server that is away takes nothing from keys that are known, and a question whose
//     key is known never waits for it.
//   - A raw token is never kept: what is remembered of a good one is its hash, and its claims
//     until it expires.
//
// The rules are those of RFC 7519 (claims), RFC 7515 (signature) and RFC 8725 (what to refuse).
package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/metric"
)

// Codes of what is wrong with a token.
const (
	CodeInvalid         = "token_invalid"          // it isn't one, or not signed by the issuer
	CodeExpired         = "token_expired"          // exp has passed
	CodeNotYetValid     = "token_not_yet_valid"    // nbf or iat is to come
	CodeWrongIssuer     = "token_wrong_issuer"     // iss is another one
	CodeWrongAudience   = "token_wrong_audience"   // aud names none of the audiences
	CodeKeysUnavailable = "token_keys_unavailable" // the key that it names isn't known and can't be asked for
)

// MaxToken is the longest token, in bytes. Scalekit's have about a thousand.
const MaxToken = 16 << 10

var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Algorithms returns the names of the signature algorithms that can be listed: those with a
// public key (RFC 7518, section 3.1; RFC 8037).
func Algorithms() (names []string) {
	for _, a := range algorithms {
		names = append(names, string(a))
	}
	return names
}

// Config is what a [Verifier] is made of. Issuer, Audiences, Remember, RememberBytes, Decode, Now,
// Logger and Meter are required.
type Config[C any] struct {
	Issuer     string   // what iss must be, to the byte; https, or http on a loopback address
	Audiences  []string // aud must hold one of them
	Algorithms []string // some of [Algorithms]; none: RS256
	Leeway     time.Duration

	// Where the keys are: in one of the two, else where the discovery document of the issuer
	// says (OpenID Connect Discovery 1.0, section 4), which must be of the issuer's origin.
	KeysURL  string
	KeysFile string
	// CacheFile keeps the last keys that were fetched, for a start without the issuer; empty: none.
	CacheFile string

	Remember      int // verified tokens
	RememberBytes int // of the text of those tokens, together; their claims take about five times that
	// Decode turns claims into what is returned of them, once for each token. What it refuses is
	// [CodeInvalid].
	Decode func(claims []byte) (C, error)

	Transport http.RoundTripper // of fetching keys; nil: one with the system's certificates
	Now       func() time.Time
	Logger    *slog.Logger
	Meter     metric.Meter
}

// Verifier judges access tokens. Its methods may be called concurrently.
type Verifier[C any] struct {
	config     Config[C]
	algorithms []jose.SignatureAlgorithm
	keys       *keys
	remembered *lru.Cache[[sha256.Size]byte, remembered[C]]
	bytes      atomic.Int64 // of the text of what is remembered
	metrics    metrics
}

// remembered is what is kept of a good token.
type remembered[C any] struct {
	claims  C
	expires time.Time // leeway included
	key     string    // fingerprint of the key that signed it
	bytes   int       // of its text
}

// New checks the configuration and reads the keys that were kept on disk, or those of KeysFile,
// which must be there. It fetches nothing.
func New[C any](c Config[C]) (*Verifier[C], error) {
	v := &Verifier[C]{config: c, algorithms: []jose.SignatureAlgorithm{jose.RS256}}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		return nil, errors.New("want at least one audience, and none that is empty")
	}
	if len(c.Algorithms) > 0 {
		v.algorithms = nil
	}
	for _, name := range c.Algorithms {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(name)) {
			return nil, fmt.Errorf("algorithm: want some of %v, got %.40q", Algorithms(), name)
		}
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(name))
	}
	source, err := newSource(c.Issuer, c.KeysURL, c.KeysFile, c.Transport)
	if err != nil {
		return nil, err
	}
	v.keys, err = newKeys(source, c.Now, c.Logger, cacheFile{path: c.CacheFile, issuer: c.Issuer, source: source.name()})
	if err != nil {
		return nil, err
	}
	if v.remembered, err = lru.NewWithEvict(c.Remember, v.forgotten); err != nil {
		return nil, fmt.Errorf("making room for tokens: %w", err)
	}
	if v.metrics, err = newMetrics(c.Meter, v.keys); err != nil {
		return nil, fmt.Errorf("making the metrics of tokens: %w", err)
	}
	return v, nil
}

// Run fetches keys ahead of need until ctx ends.
func (v *Verifier[C]) Run(ctx context.Context) { v.keys.run(ctx) }

// Refresh fetches the keys now. After an error those that are known stay.
func (v *Verifier[C]) Refresh(ctx context.Context) error { return v.keys.fetch(ctx) }

// Status is how the keys stand.
type Status struct {
	Keys      int       // that are known
	FetchedAt time.Time // zero while they are none, or come from disk
	Failure   error     // of the last fetch, nil when it succeeded
}

// Status returns it.
func (v *Verifier[C]) Status() Status { return v.keys.status() }

// Verify returns the claims of a good token and "", or the code of what is wrong with it. A
// token that was good before costs a hash until it expires; one that names an unknown key may
// wait for the issuer, two seconds at most and no longer than ctx.
func (v *Verifier[C]) Verify(ctx context.Context, raw string) (claims C, code string) {
	if len(raw) > MaxToken {
		v.metrics.count(ctx, CodeInvalid)
		return claims, CodeInvalid
	}
	hash := sha256.Sum256([]byte(raw))
	if known, ok := v.recall(hash); ok {
		v.metrics.count(ctx, outcomeRemembered)
		return known, ""
	}
	good, code := v.judge(ctx, raw)
	if code == "" {
		v.remember(hash, good)
		v.metrics.count(ctx, outcomeVerified)
		return good.claims, ""
	}
	v.metrics.count(ctx, code)
	return claims, code
}

// recall returns the claims of a token that was good before and still is: it hasn't expired,
// and the issuer still shows the key that signed it.
func (v *Verifier[C]) recall(hash [sha256.Size]byte) (claims C, ok bool) {
	known, ok := v.remembered.Get(hash)
	if !ok {
		return claims, false
	}
	if !v.config.Now().Before(known.expires) || !v.keys.current().has(known.key) {
		v.remembered.Remove(hash)
		return claims, false
	}
	return known.claims, true
}

// remember keeps a good token, and as many others as there is room for beside it.
func (v *Verifier[C]) remember(hash [sha256.Size]byte, good remembered[C]) {
	if known, _ := v.remembered.ContainsOrAdd(hash, good); known {
		return // by another question, at the same time
	}
	for v.bytes.Add(int64(good.bytes)); v.bytes.Load() > int64(v.config.RememberBytes); {
		if _, _, ok := v.remembered.RemoveOldest(); !ok {
			return
		}
	}
}

func (v *Verifier[C]) forgotten(_ [sha256.Size]byte, was remembered[C]) {
	v.bytes.Add(-int64(was.bytes))
}

func (v *Verifier[C]) judge(ctx context.Context, raw string) (good remembered[C], code string) {
	head, err := readHeader(raw)
	if err != nil || !slices.Contains(v.algorithms, head.algorithm) {
		return good, CodeInvalid
	}
	signed, err := jose.ParseSignedCompact(raw, v.algorithms)
	if err != nil {
		return good, CodeInvalid
	}
	key, code := v.keys.find(ctx, head)
	if code != "" {
		return good, code
	}
	payload, err := signed.Verify(key.public)
	if err != nil {
		return good, CodeInvalid
	}
	expires, code := v.judgeClaims(payload)
	if code != "" {
		return good, code
	}
	if good.claims, err = v.config.Decode(payload); err != nil {
		return good, CodeInvalid
	}
	good.expires, good.key, good.bytes = expires, key.fingerprint, len(raw)
	return good, ""
}
