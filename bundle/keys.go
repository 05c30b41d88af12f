package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The least that a key must be worth, about 112 bits against who guesses.
const (
	minRSABits     = 2048
	minSecretBytes = 32
	maxKeyBytes    = 64 << 10
)

// family is a kind of keys, and the algorithms of signatures that go with it.
type family struct {
	name       string
	algorithms []string
}

func rsaFamily() family {
	return family{"an RSA key", []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}}
}

// curveFamily has one algorithm: RFC 7518 ties each to its curve.
func curveFamily(curve elliptic.Curve) (family, error) {
	algorithm := map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}[curve]
	if algorithm == "" {
		return family{}, fmt.Errorf("want an EC key on P-256, P-384 or P-521, got one on %s", curve.Params().Name)
	}
	return family{"an EC key on " + curve.Params().Name, []string{algorithm}}, nil
}

func (f family) allows(algorithm string) error {
	if slices.Contains(f.algorithms, algorithm) {
		return nil
	}
	return fmt.Errorf("%s goes with %s, not with %.20q", f.name, strings.Join(f.algorithms, ", "), algorithm)
}

// publicFamily says what a verification key is: a public key as PEM, else an HMAC secret.
// What looks like PEM is never a secret, or everyone who has a public key could sign.
func publicFamily(content []byte) (family, error) {
	block, err := pemBlock(content)
	if err != nil {
		return family{}, err
	}
	if block == nil {
		return secretFamily(content)
	}
	var key any
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	default:
		return family{}, fmt.Errorf("want a public key as PEM, or an HMAC secret, got a PEM block %.40q; who verifies has no need of the private one", block.Type)
	}
	if err != nil {
		return family{}, fmt.Errorf("want a public key as PEM: %w", err)
	}
	return familyOf(key)
}

// privateKey says what a signing key is, a private key as PEM, else an HMAC secret, and
// returns it. No error quotes it.
func privateKey(content []byte) (family, any, error) {
	block, err := pemBlock(content)
	if err != nil {
		return family{}, nil, err
	}
	if block == nil {
		kind, err := secretFamily(content)
		return kind, content, err
	}
	var key any
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return family{}, nil, fmt.Errorf("want a private key as PEM, without a password, or an HMAC secret, got a PEM block %.40q", block.Type)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return family{}, nil, errors.New("want a private RSA or EC key as PEM, got one that can't be read")
	}
	kind, err := familyOf(signer.Public())
	return kind, signer, err
}

// pemBlock returns nil for what isn't meant as PEM.
func pemBlock(content []byte) (*pem.Block, error) {
	if len(content) > maxKeyBytes {
		return nil, fmt.Errorf("want a key of at most %d bytes, got %d", maxKeyBytes, len(content))
	}
	if !bytes.Contains(content, []byte("-----BEGIN")) {
		return nil, nil
	}
	block, rest := pem.Decode(content)
	if block == nil {
		return nil, errors.New("want a key as PEM, got a damaged one")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one key as PEM, got something behind it; without the parameters that openssl ecparam writes before one")
	}
	return block, nil
}

// secretFamily allows the algorithms whose digest is no longer than the secret, by RFC 7518,
// section 3.2.
func secretFamily(content []byte) (family, error) {
	f := family{name: fmt.Sprintf("an HMAC secret of %d bytes", len(content))}
	for i, algorithm := range []string{"HS256", "HS384", "HS512"} {
		if len(content) >= minSecretBytes+16*i {
			f.algorithms = append(f.algorithms, algorithm)
		}
	}
	if len(f.algorithms) == 0 {
		return family{}, fmt.Errorf("want a key as PEM, or an HMAC secret of at least %d bytes, got %d bytes", minSecretBytes, len(content))
	}
	return f, nil
}

func familyOf(key any) (family, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return family{}, fmt.Errorf("want an RSA key of at least %d bits, got %d", minRSABits, bits)
		}
		return rsaFamily(), nil
	case *ecdsa.PublicKey:
		return curveFamily(key.Curve)
	}
	return family{}, fmt.Errorf("want an RSA or EC key, got %T", key)
}
