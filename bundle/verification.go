package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

const signaturesFile = ".signatures.json"

// VerificationKey is a key that signatures of bundles are verified with.
type VerificationKey struct {
	ID        string // that signatures name; empty: for signatures that name no other of the keys
	Algorithm string // such as ES256; empty: any of the key's own family, never another family
	Content   []byte // PEM with a public key or a certificate, or an HMAC secret, byte for byte
	Scope     string // that signatures by this key have, unless the verification has one
}

// Verification says which signatures count. It isn't changed after [NewVerification].
type Verification struct {
	keys  map[string]verifier
	scope string
}

type verifier struct {
	VerificationKey
	family family
}

// NewVerification takes the keys, of which each must have another ID, and the scope that a
// signature must have; empty: that of its key. It refuses RSA keys of less than 2048 bits,
// secrets of less than 32 bytes, and private keys.
func NewVerification(keys []VerificationKey, scope string) (*Verification, error) {
	if len(keys) == 0 {
		return nil, errors.New("want at least one verification key, got none")
	}
	v := &Verification{keys: map[string]verifier{}, scope: scope}
	for _, key := range keys {
		if _, twice := v.keys[key.ID]; twice {
			return nil, fmt.Errorf("%s is given twice: give each an id of its own, as in ID=FILE", key.label())
		}
		kind, err := publicFamily(key.Content)
		if err == nil && key.Algorithm != "" {
			err = kind.allows(key.Algorithm)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key.label(), err)
		}
		v.keys[key.ID] = verifier{key, kind}
	}
	return v, nil
}

func (k VerificationKey) label() string {
	if k.ID == "" {
		return "the verification key without an id"
	}
	return fmt.Sprintf("verification key %q", k.ID)
}

// token is a signature taken apart, before it is verified: what it says counts for nothing.
type token struct {
	algorithm string
	keyID     string
	opabundle.DecodedSignature
}

// verified returns the files without the signature, if it is as the options want it.
func (o LoadOptions) verified(files []file) ([]file, error) {
	signatures, rest, err := o.splitSignatures(files)
	switch {
	case err != nil:
		return nil, err
	case signatures == nil && o.Verification == nil:
		return rest, nil
	case signatures == nil:
		return nil, fmt.Errorf("%s: the bundle isn't signed, and --bundle-verification-key wants it to be", display(o.Name, "."))
	}
	where := at(o.Name, *signatures)
	if o.Verification == nil {
		return nil, fmt.Errorf("%s: the bundle is signed, and there is no key to verify it with: set --bundle-verification-key", where)
	}
	signed, err := o.Verification.verify(signatures.content)
	if err == nil {
		err = compareFiles(rest, signed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return rest, nil
}

func (o LoadOptions) splitSignatures(files []file) (signatures *file, rest []file, err error) {
	for _, f := range files {
		if !opabundle.IsSignaturesFile(f.name) {
			rest = append(rest, f)
			continue
		}
		if f.name != signaturesFile {
			return nil, nil, fmt.Errorf("%s: want signatures at the top of the bundle alone", display(o.Name, f.name))
		}
		signatures = &f
	}
	return signatures, rest, nil
}

// verify returns what the signature says of files, once it is known to be good.
func (v *Verification) verify(content []byte) (map[string]opabundle.FileInfo, error) {
	config, claimed, err := parseSignatures(content)
	if err != nil {
		return nil, err
	}
	key, err := v.keyFor(claimed)
	if err != nil {
		return nil, err
	}
	scope := v.scope
	if scope == "" {
		scope = key.Scope
	}
	if claimed.Scope != scope {
		return nil, fmt.Errorf("want a signature with the scope %q (--bundle-verification-scope), got %.80q", scope, claimed.Scope)
	}
	id := "key" // chosen above; OPA need not look for it
	found, err := opabundle.VerifyBundleSignature(config, opabundle.NewVerificationConfig(map[string]*opabundle.KeyConfig{
		id: {Key: string(key.Content), Algorithm: claimed.algorithm, Scope: scope},
	}, id, scope, nil))
	if err != nil {
		return nil, fmt.Errorf("the signature isn't good by %s: %w", key.label(), err)
	}
	return insideNames(found)
}

// keyFor returns the key that the signature names, if its algorithm is one that the key is for.
func (v *Verification) keyFor(t token) (verifier, error) {
	key, ok := v.keys[t.keyID]
	if !ok {
		key, ok = v.keys[""]
	}
	if !ok {
		known := slices.Sorted(maps.Keys(v.keys))
		return verifier{}, fmt.Errorf("the signature is by the key %.80q, and --bundle-verification-key knows %s", t.keyID, strings.Join(known, ", "))
	}
	if key.Algorithm != "" && key.Algorithm != t.algorithm {
		return verifier{}, fmt.Errorf("%s is for %s, and the signature is by %.20q", key.label(), key.Algorithm, t.algorithm)
	}
	if err := key.family.allows(t.algorithm); err != nil {
		return verifier{}, fmt.Errorf("%s: %w", key.label(), err)
	}
	return key, nil
}

// parseSignatures takes the one signature apart.
func parseSignatures(content []byte) (opabundle.SignaturesConfig, token, error) {
	var config opabundle.SignaturesConfig
	if err := util.UnmarshalJSON(content, &config); err != nil {
		return config, token{}, fmt.Errorf(`want JSON such as {"signatures":["…"]}: %w`, err)
	}
	if len(config.Signatures) != 1 {
		return config, token{}, fmt.Errorf("want exactly one signature, got %d", len(config.Signatures))
	}
	if config.Plugin != "" && config.Plugin != "_default" {
		return config, token{}, fmt.Errorf("want a signature of OPA's default plugin, got one of %.40q", config.Plugin)
	}
	parts := strings.Split(config.Signatures[0], ".")
	if len(parts) != 3 {
		return config, token{}, errors.New("want a signature as a compact JWT, header.payload.signature")
	}
	var header struct{ Alg, Kid string }
	var t token
	for i, into := range []any{&header, &t.DecodedSignature} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return config, token{}, fmt.Errorf("want a signature as a compact JWT: %w", err)
		}
	}
	t.algorithm, t.keyID = header.Alg, header.Kid
	if t.keyID == "" {
		t.keyID = t.KeyID // where OPA wrote it before
	}
	return config, t, nil
}

func insideNames(found map[string]opabundle.FileInfo) (map[string]opabundle.FileInfo, error) {
	files := make(map[string]opabundle.FileInfo, len(found))
	for name, info := range found {
		inside, err := insideName(name)
		if err != nil {
			return nil, err
		}
		if algorithm := opabundle.HashingAlgorithm(info.Algorithm); algorithm == opabundle.MD5 || algorithm == opabundle.SHA1 {
			return nil, fmt.Errorf("%s: the signature rests on %s, for which two files with one digest can be made", inside, info.Algorithm)
		}
		files[inside] = info
	}
	return files, nil
}

// compareFiles wants the bundle to hold what was signed, all of it and nothing else, those
// files included that aren't read.
func compareFiles(files []file, signed map[string]opabundle.FileInfo) error {
	for _, f := range files {
		if _, ok := signed[f.name]; !ok {
			return fmt.Errorf("the bundle holds %s, which the signature doesn't tell of", f.name)
		}
		if err := opabundle.VerifyBundleFile(f.name, *bytes.NewBuffer(f.content), signed); err != nil {
			return fmt.Errorf("%s isn't what was signed: %w", f.name, err)
		}
	}
	if len(signed) > 0 {
		missing := slices.Sorted(maps.Keys(signed))
		return fmt.Errorf("the signature tells of %s, which the bundle doesn't hold (names that begin with a dot aren't read from directories)", missing[0])
	}
	return nil
}
