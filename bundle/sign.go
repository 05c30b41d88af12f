package bundle

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// SigningKey is a key that bundles are signed with.
type SigningKey struct {
	ID        string // that the signature names; may be empty
	Algorithm string // such as ES256; empty: the first of the key's own family
	Content   []byte // PEM with a private key, or an HMAC secret, byte for byte
	Scope     string // that the signature has; may be empty
}

// signingPayload is what a signature tells, in the form of OPA
// (https://www.openpolicyagent.org/docs/management-bundles#signature-format). There is no
// time in it: equal files make an equal payload.
type signingPayload struct {
	Files []opabundle.FileInfo `json:"files"`
	KeyID string               `json:"keyid,omitempty"` // for OPA before 1.0; it is in the header, too
	Scope string               `json:"scope,omitempty"`
}

// Sign signs the files of a source, all but the hidden ones of a directory, and returns the
// content of its .signatures.json. A bundle that [Load] would refuse isn't signed; a
// signature that is there already counts for nothing.
func Sign(ctx context.Context, s Source, key SigningKey, o LoadOptions) ([]byte, error) {
	_, signatures, err := sign(ctx, s, key, o)
	return signatures, err
}

// SignArchive is [Sign], and writes the files with their signature as an archive.
func SignArchive(ctx context.Context, w io.Writer, s Source, key SigningKey, o LoadOptions) error {
	files, signatures, err := sign(ctx, s, key, o)
	if err != nil {
		return err
	}
	return WriteArchive(w, append(exported(files), File{signaturesFile, signatures}))
}

func exported(files []file) []File {
	result := make([]File, len(files))
	for i, f := range files {
		result[i] = File{f.name, f.content}
	}
	return result
}

func sign(ctx context.Context, s Source, key SigningKey, o LoadOptions) ([]file, []byte, error) {
	signer, err := key.signer()
	if err != nil {
		return nil, nil, err
	}
	files, err := s.read(ctx, &o, true)
	if err == nil {
		_, files, err = o.splitSignatures(files)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading policy: %w", err)
	}
	if _, err := assemble(files, o); err != nil {
		return nil, nil, err
	}
	payload := signingPayload{KeyID: key.ID, Scope: key.Scope}
	for _, f := range files {
		digest, err := digestOf(f)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", display(o.Name, f.name), err)
		}
		payload.Files = append(payload.Files, opabundle.NewFile(f.name, hex.EncodeToString(digest), string(opabundle.SHA256)))
	}
	signatures, err := signPayload(signer, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	return files, signatures, nil
}

// digestOf is the digest that OPA compares: of JSON and YAML it is one of what they say,
// not of how it is written.
func digestOf(f file) ([]byte, error) {
	hasher, err := opabundle.NewSignatureHasher(opabundle.SHA256)
	if err != nil {
		return nil, err
	}
	if !opabundle.IsStructuredDoc(f.name) {
		return hasher.HashFile(f.content)
	}
	var value any
	if err := util.Unmarshal(f.content, &value); err != nil {
		return nil, err
	}
	return hasher.HashFile(value)
}

func signPayload(signer jose.Signer, payload signingPayload) ([]byte, error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	signed, err := signer.Sign(text)
	if err != nil {
		return nil, err
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(opabundle.SignaturesConfig{Signatures: []string{compact}}, "", " ")
}

// Check says what is wrong with the key, never quoting it.
func (k SigningKey) Check() error {
	_, err := k.signer()
	return err
}

func (k SigningKey) signer() (jose.Signer, error) {
	kind, key, err := privateKey(k.Content)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if k.Algorithm == "" {
		k.Algorithm = kind.algorithms[0]
	}
	if err := kind.allows(k.Algorithm); err != nil {
		return nil, fmt.Errorf("signing algorithm: %w", err)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if k.ID != "" {
		options = options.WithHeader("kid", k.ID) // of a jose.JSONWebKey with a secret, its id would be left out
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: key}, options)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return signer, nil
}
