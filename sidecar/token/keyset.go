package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

const (
	largestKeySet = 1 << 20 // bytes
	keySetDepth   = 8
	mostKeys      = 100
	leastRSA      = 2048 // bits (RFC 7518, section 3.3)
	mostRSA       = 8192 // a larger one only costs time
)

// keySet is what an issuer published at one time. It is never changed.
type keySet struct {
	keys []publicKey
	raw  []byte
}

// publicKey verifies signatures.
type publicKey struct {
	id          string
	public      any
	algorithm   jose.SignatureAlgorithm // empty: any that fits the key
	fingerprint string                  // RFC 7638
}

var errNoKeys = errors.New("want at least one public key that can verify signatures")

// parseKeySet reads a JWK Set (RFC 7517, section 5). Keys that are of no use here are left
// out, as that section says: those for encryption, of unknown types, too weak ones, and any
// that tells its private part.
func parseKeySet(text []byte) (*keySet, error) {
	if len(text) > largestKeySet {
		return nil, fmt.Errorf("want a key set of at most %d bytes", largestKeySet)
	}
	if err := strictjson.Check(text, keySetDepth); err != nil {
		return nil, err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(document["keys"], &list); err != nil || list == nil {
		return nil, fmt.Errorf("keys: want an array, got %s", strictjson.KindOf(document["keys"]))
	}
	if len(list) > mostKeys {
		return nil, fmt.Errorf("keys: want at most %d, got %d", mostKeys, len(list))
	}
	set := &keySet{raw: slices.Clone(text)}
	for _, raw := range list {
		if key, ok := parseKey(raw); ok && !slices.ContainsFunc(set.keys, key.same) {
			set.keys = append(set.keys, key)
		}
	}
	if len(set.keys) == 0 {
		return nil, errNoKeys
	}
	return set, nil
}

// parseKey reads a key, and reports whether it can be used.
func parseKey(raw json.RawMessage) (publicKey, bool) {
	members, err := strictjson.Parse(raw)
	if err != nil || !verifies(members) {
		return publicKey{}, false
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(raw); err != nil || !parsed.Valid() || !parsed.IsPublic() || !strong(parsed.Key) {
		return publicKey{}, false
	}
	thumbprint, err := parsed.Thumbprint(crypto.SHA256)
	if err != nil || (parsed.Use != "" && parsed.Use != "sig") || len(parsed.KeyID) > longestKeyID {
		return publicKey{}, false
	}
	return publicKey{parsed.KeyID, parsed.Key, jose.SignatureAlgorithm(parsed.Algorithm), base64.RawURLEncoding.EncodeToString(thumbprint)}, true
}

// same reports whether other is the same key, told again.
func (k publicKey) same(other publicKey) bool {
	return k.id == other.id && k.algorithm == other.algorithm && k.fingerprint == other.fingerprint
}

// verifies reports whether key_ops, if they are told, allow that (RFC 7517, section 4.3).
func verifies(members strictjson.Object) bool {
	raw, told := members["key_ops"]
	if !told {
		return true
	}
	var operations []string
	return json.Unmarshal(raw, &operations) == nil && slices.Contains(operations, "verify")
}

func strong(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= leastRSA && k.N.BitLen() <= mostRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// fits reports whether the key can be meant by an algorithm: by its own word, and by its type.
// What a token says never chooses how a key is used.
func (k publicKey) fits(a jose.SignatureAlgorithm) bool {
	if k.algorithm != "" && k.algorithm != a {
		return false
	}
	switch key := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(string(a), "RS") || strings.HasPrefix(string(a), "PS")
	case *ecdsa.PublicKey:
		bits := map[jose.SignatureAlgorithm]int{jose.ES256: 256, jose.ES384: 384, jose.ES512: 521}
		return bits[a] == key.Curve.Params().BitSize
	case ed25519.PublicKey:
		return a == jose.EdDSA
	}
	return false
}

// find returns the key that a header means. One that names no key means the only one that
// fits its algorithm.
func (s *keySet) find(h header) (publicKey, bool) {
	var found []publicKey
	if s != nil {
		for _, k := range s.keys {
			if k.fits(h.algorithm) && (h.keyID == "" || k.id == h.keyID) {
				found = append(found, k)
			}
		}
	}
	if len(found) != 1 {
		return publicKey{}, false
	}
	return found[0], true
}

// equal reports whether other has the same keys, however it tells them.
func (s *keySet) equal(other *keySet) bool {
	if other == nil || len(s.keys) != len(other.keys) {
		return false
	}
	for _, k := range s.keys { // none comes twice
		if !slices.ContainsFunc(other.keys, k.same) {
			return false
		}
	}
	return true
}

// has reports whether a key is still among them.
func (s *keySet) has(fingerprint string) bool {
	return s != nil && slices.ContainsFunc(s.keys, func(k publicKey) bool { return k.fingerprint == fingerprint })
}
