package simulator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// keyBits is the size of a signing key.
const keyBits = 2048

// Unpublished asks [Simulator.Mint] for a signature with a key that /keys never shows.
const Unpublished = "unpublished"

// Key is a signing key, without its secret part.
type Key struct {
	ID        string // the kid: the key's thumbprint (RFC 7638)
	Published bool   // /keys shows it
	Current   bool   // it signs what names no key
}

// keyring holds every key that was ever made: an old one can still sign what a test wants
// to be refused. Keys are made when they are first needed, since that takes a while.
type keyring struct {
	mu       sync.Mutex
	all      []*signingKey
	current  *signingKey
	stranger *signingKey // never in all
}

type signingKey struct {
	id        string
	secret    *rsa.PrivateKey
	published bool
}

func makeKey() (*signingKey, error) {
	secret, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	thumbprint, err := (&jose.JSONWebKey{Key: secret.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	return &signingKey{id: base64.RawURLEncoding.EncodeToString(thumbprint), secret: secret, published: true}, nil
}

// rotate makes a new current key, and takes the others out of what is published unless they
// are kept.
func (k *keyring) rotate(keep bool) (*signingKey, error) {
	made, err := makeKey()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, old := range k.all {
		old.published = old.published && keep
	}
	k.all = append(k.all, made)
	k.current = made
	return made, nil
}

// find returns the key to sign with: by id, the current one for "", or [Unpublished].
func (k *keyring) find(id string) (*signingKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch id {
	case "":
		return k.currentLocked()
	case Unpublished:
		if k.stranger == nil {
			made, err := makeKey()
			if err != nil {
				return nil, err
			}
			k.stranger = made
		}
		return k.stranger, nil
	}
	i := slices.IndexFunc(k.all, func(s *signingKey) bool { return s.id == id })
	if i < 0 {
		return nil, fmt.Errorf("%w: no signing key has the id %.64q", ErrNotFound, id)
	}
	return k.all[i], nil
}

func (k *keyring) currentLocked() (*signingKey, error) {
	if k.current != nil {
		return k.current, nil
	}
	made, err := makeKey()
	if err != nil {
		return nil, err
	}
	k.all, k.current = append(k.all, made), made
	return made, nil
}

// published returns what /keys shows (RFC 7517).
func (k *keyring) published() (jose.JSONWebKeySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	if _, err := k.currentLocked(); err != nil {
		return set, err
	}
	for _, key := range k.all {
		if key.published {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.secret.Public(), KeyID: key.id, Algorithm: string(jose.RS256), Use: "sig"})
		}
	}
	return set, nil
}

func (k *keyring) list() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := make([]Key, len(k.all))
	for i, key := range k.all {
		keys[i] = Key{ID: key.id, Published: key.published, Current: key == k.current}
	}
	return keys
}

// RotateKeys makes a new signing key, which signs from now on, and returns its id. With
// keep, /keys goes on showing the ones before.
func (s *Simulator) RotateKeys(keep bool) (string, error) {
	made, err := s.keys.rotate(keep)
	if err != nil {
		return "", err
	}
	return made.id, nil
}

// Keys returns every signing key that was made, oldest first. The first one is made when it
// is first needed.
func (s *Simulator) Keys() []Key { return s.keys.list() }
