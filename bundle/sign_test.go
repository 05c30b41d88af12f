package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/postern-authz/postern/bundle"
)

// keyPair is what signs, and what verifies.
type keyPair struct{ private, public []byte }

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pairOf(t *testing.T, key crypto.Signer) keyPair {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return keyPair{pemOf("PRIVATE KEY", private), pemOf("PUBLIC KEY", public)}
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(t, err)
	return key
}

func secret() keyPair {
	text := []byte("a secret of as many bytes as the longest of the digests of HMAC has, 64")
	return keyPair{text, text}
}

func verification(t *testing.T, scope string, keys ...bundle.VerificationKey) *bundle.Verification {
	t.Helper()
	v, err := bundle.NewVerification(keys, scope)
	must(t, err)
	return v
}

// signedArchive signs files.
func signedArchive(t *testing.T, files map[string]string, key bundle.SigningKey) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, bundle.SignArchive(t.Context(), &b, bundle.Source{Archive: bytes.NewReader(pack(t, entriesOf(files)...))}, key, bundle.LoadOptions{}))
	return b.Bytes()
}

func signedFiles() map[string]string {
	return map[string]string{
		"authz/authz.rego": allowRego, "authz/authz_test.rego": "package authz_test\n\ntest_x if true\n", "README.md": "hello",
		"x/data.json": `{"b": 1, "a": [true, null, 1.50]}`, "x/y/data.yaml": "c: 2\n", ".manifest": `{"revision":"7","roots":["authz","x"]}`,
	}
}

func TestASignatureOfEachAlgorithmIsGood(t *testing.T) {
	rsaPair, p256, p384, p521 := pairOf(t, rsaKey(t, 2048)), pairOf(t, ecKey(t, elliptic.P256())), pairOf(t, ecKey(t, elliptic.P384())), pairOf(t, ecKey(t, elliptic.P521()))
	for algorithm, pair := range map[string]keyPair{
		"RS256": rsaPair, "RS384": rsaPair, "RS512": rsaPair, "PS256": rsaPair, "PS384": rsaPair, "PS512": rsaPair,
		"ES256": p256, "ES384": p384, "ES512": p521, "HS256": secret(), "HS384": secret(), "HS512": secret(), "": p256,
	} {
		t.Run(algorithm, func(t *testing.T) {
			signing := bundle.SigningKey{ID: "k", Algorithm: algorithm, Content: pair.private, Scope: "s"}
			archive := signedArchive(t, signedFiles(), signing)
			v := verification(t, "s", bundle.VerificationKey{ID: "k", Algorithm: algorithm, Content: pair.public})
			if b, err := loadArchive(t, archive, bundle.LoadOptions{Verification: v}); err != nil || b.Revision() != "7" {
				t.Errorf("the archive: got %v, %v, want revision 7", b, err)
			}
			files := signedFiles()
			signatures, err := bundle.Sign(t.Context(), bundle.Source{FS: tree(files)}, signing, bundle.LoadOptions{})
			must(t, err)
			files[".signatures.json"] = string(signatures)
			if b, err := bundle.Load(t.Context(), tree(files), bundle.LoadOptions{Verification: v}); err != nil || b.Revision() != "7" {
				t.Errorf("the directory: got %v, %v, want revision 7", b, err)
			}
		})
	}
}

// The kinds of PEM that tools write for one key.
func TestKeysComeInSeveralForms(t *testing.T) {
	r, e := rsaKey(t, 2048), ecKey(t, elliptic.P256())
	ec, err := x509.MarshalECPrivateKey(e)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, r.Public(), r)
	must(t, err)
	for name, pair := range map[string]keyPair{
		"PKCS 1":        {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r)), pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&r.PublicKey))},
		"SEC 1":         {pemOf("EC PRIVATE KEY", ec), pairOf(t, e).public},
		"a certificate": {pairOf(t, r).private, pemOf("CERTIFICATE", certificate)},
	} {
		archive := signedArchive(t, signedFiles(), bundle.SigningKey{Content: pair.private})
		v := verification(t, "", bundle.VerificationKey{Content: pair.public})
		if _, err := loadArchive(t, archive, bundle.LoadOptions{Verification: v}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatWasNotSignedIsRefused(t *testing.T) {
	pair := pairOf(t, ecKey(t, elliptic.P256()))
	signing := bundle.SigningKey{ID: "k", Content: pair.private}
	signatures, err := bundle.Sign(t.Context(), bundle.Source{FS: tree(signedFiles())}, signing, bundle.LoadOptions{})
	must(t, err)
	v := verification(t, "", bundle.VerificationKey{ID: "k", Content: pair.public})
	for name, c := range map[string]struct {
		change map[string]string // "": the file is gone
		want   string
	}{
		"nothing changed":         {nil, ""},
		"written otherwise":       {map[string]string{"x/data.json": `{"a":[true,null,1.50],"b":1}`, "x/y/data.yaml": "{c: 2}"}, ""},
		"Rego changed":            {map[string]string{"authz/authz.rego": allowRego + "\n"}, "authz/authz.rego isn't what was signed"},
		"data changed":            {map[string]string{"x/data.json": `{"b":2,"a":[true,null,1.50]}`}, "x/data.json isn't what was signed"},
		"a number written anew":   {map[string]string{"x/data.json": `{"b":1,"a":[true,null,1.5]}`}, "x/data.json isn't what was signed"},
		"YAML changed":            {map[string]string{"x/y/data.yaml": "c: 3"}, "x/y/data.yaml isn't what was signed"},
		"a test changed":          {map[string]string{"authz/authz_test.rego": "package x"}, "authz/authz_test.rego isn't what was signed"},
		"another file changed":    {map[string]string{"README.md": "bye"}, "README.md isn't what was signed"},
		"the manifest changed":    {map[string]string{".manifest": `{"revision":"8","roots":["authz","x"]}`}, ".manifest isn't what was signed"},
		"a file more":             {map[string]string{"b.rego": "package b"}, "holds b.rego, which the signature doesn't tell of"},
		"a test more":             {map[string]string{"b_test.rego": "package b"}, "holds b_test.rego"},
		"another file more":       {map[string]string{"x.txt": "x"}, "holds x.txt"},
		"Rego gone":               {map[string]string{"authz/authz.rego": ""}, "tells of authz/authz.rego, which the bundle doesn't hold"},
		"another file gone":       {map[string]string{"README.md": ""}, "tells of README.md"},
		"moved":                   {map[string]string{"x/data.json": "", "authz/data.json": `{"b":1,"a":[true,null,1.50]}`}, "holds authz/data.json"},
		"the signature gone":      {map[string]string{".signatures.json": ""}, "isn't signed, and --bundle-verification-key wants it to be"},
		"no signature in it":      {map[string]string{".signatures.json": `{}`}, "want exactly one signature, got 0"},
		"an empty file":           {map[string]string{".signatures.json": "{\n]"}, ".signatures.json:2: want JSON such as"},
		"two signatures":          {map[string]string{".signatures.json": `{"signatures":["a","b"]}`}, "want exactly one signature, got 2"},
		"no JWT":                  {map[string]string{".signatures.json": `{"signatures":["a.b"]}`}, "want a signature as a compact JWT"},
		"a JWT of something else": {map[string]string{".signatures.json": `{"signatures":["!.b.c"]}`}, "want a signature as a compact JWT"},
		"a plugin's":              {map[string]string{".signatures.json": `{"signatures":["a.b.c"],"plugin":"mine"}`}, `got one of "mine"`},
		"a second signature file": {map[string]string{"x/.signatures.json": string(signatures)}, "x/.signatures.json: want signatures at the top"},
	} {
		t.Run(name, func(t *testing.T) {
			files := signedFiles()
			files[".signatures.json"] = string(signatures)
			maps.Copy(files, c.change)
			maps.DeleteFunc(files, func(_, content string) bool { return content == "" })
			_, fromDirectory := bundle.Load(t.Context(), tree(files), bundle.LoadOptions{Verification: v})
			_, fromArchive := loadArchive(t, pack(t, entriesOf(files)...), bundle.LoadOptions{Verification: v})
			for _, err := range []error{fromDirectory, fromArchive} {
				if c.want != "" {
					wantError(t, err, c.want)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The hidden files of an archive aren't read, but signed all the same.
func TestHiddenFilesOfAnArchiveAreVerified(t *testing.T) {
	files := signedFiles()
	files["x/.hidden"] = "x"
	v := verification(t, "", bundle.VerificationKey{Content: secret().public})
	archive := signedArchive(t, files, bundle.SigningKey{Content: secret().private})
	if _, err := loadArchive(t, archive, bundle.LoadOptions{Verification: v}); err != nil {
		t.Error(err)
	}
	signatures, err := bundle.Sign(t.Context(), bundle.Source{FS: tree(signedFiles())}, bundle.SigningKey{Content: secret().private}, bundle.LoadOptions{})
	must(t, err)
	files[".signatures.json"] = string(signatures)
	_, err = loadArchive(t, pack(t, entriesOf(files)...), bundle.LoadOptions{Verification: v})
	wantError(t, err, "holds x/.hidden")
}

// forged signs a payload by the header and key given, whether that makes sense or not.
func forged(t *testing.T, files map[string]string, algorithm, keyID, scope, hash string, key any) string {
	t.Helper()
	var infos []map[string]string
	for name, content := range files {
		digest := sha256.Sum256([]byte(content))
		infos = append(infos, map[string]string{"name": name, "hash": hex.EncodeToString(digest[:]), "algorithm": hash})
	}
	payload, err := json.Marshal(map[string]any{"files": infos, "scope": scope})
	must(t, err)
	if algorithm == "none" {
		encode := base64.RawURLEncoding.EncodeToString
		return fmt.Sprintf(`{"signatures":["%s.%s."]}`, encode([]byte(`{"alg":"none","kid":"`+keyID+`"}`)), encode(payload))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, (&jose.SignerOptions{}).WithHeader("kid", keyID))
	must(t, err)
	signed, err := signer.Sign(payload)
	must(t, err)
	compact, err := signed.CompactSerialize()
	must(t, err)
	return fmt.Sprintf(`{"signatures":[%q]}`, compact)
}

func TestSignaturesOfOthersAreRefused(t *testing.T) {
	r, e, other := rsaKey(t, 2048), ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	rsaPublic := pairOf(t, r).public
	keys := []bundle.VerificationKey{
		{ID: "rsa", Content: rsaPublic},
		{ID: "ps", Algorithm: "PS256", Content: rsaPublic},
		{ID: "ec", Content: pairOf(t, e).public, Scope: "own"},
		{ID: "hmac", Content: secret().public},
	}
	files := map[string]string{"authz.rego": allowRego}
	for name, c := range map[string]struct {
		algorithm, id, scope, hash string
		key                        any
		want                       string
	}{
		"good":                             {"RS256", "rsa", "", "SHA-256", r, ""},
		"the scope of its key":             {"ES256", "ec", "own", "SHA-256", e, ""},
		"another scope than its key":       {"ES256", "ec", "else", "SHA-256", e, `want a signature with the scope "own" (--bundle-verification-scope), got "else"`},
		"no scope":                         {"ES256", "ec", "", "SHA-256", e, `want a signature with the scope "own"`},
		"a scope that nobody wants":        {"RS256", "rsa", "more", "SHA-256", r, `want a signature with the scope ""`},
		"another key":                      {"ES256", "ec", "own", "SHA-256", other, `isn't good by verification key "ec"`},
		"an unknown key":                   {"ES256", "new", "", "SHA-256", other, `by the key "new", and --bundle-verification-key knows ec, hmac, ps, rsa`},
		"no key named":                     {"ES256", "", "", "SHA-256", e, `by the key ""`},
		"the public key as a secret":       {"HS256", "rsa", "", "SHA-256", rsaPublic, "an RSA key goes with RS256"},
		"an EC key's public as a secret":   {"HS256", "ec", "own", "SHA-256", pairOf(t, e).public, "an EC key on P-256 goes with ES256"},
		"no algorithm":                     {"none", "rsa", "", "SHA-256", nil, `not with "none"`},
		"no algorithm, with a secret":      {"none", "hmac", "", "SHA-256", nil, `not with "none"`},
		"an algorithm of another family":   {"ES256", "rsa", "", "SHA-256", e, `verification key "rsa": an RSA key goes with`},
		"RSA where a secret is":            {"RS256", "hmac", "", "SHA-256", r, "goes with HS256"},
		"another algorithm than the key's": {"RS256", "ps", "", "SHA-256", r, `verification key "ps" is for PS256, and the signature is by "RS256"`},
		"MD5":                              {"RS256", "rsa", "", "MD5", r, "rests on MD5"},
		"SHA-1":                            {"RS256", "rsa", "", "SHA-1", r, "rests on SHA-1"},
		"no digest's name":                 {"RS256", "rsa", "", "", r, "no hashing algorithm"},
		"an unknown digest":                {"RS256", "rsa", "", "CRC", r, "unsupported hashing algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			signed := map[string]string{".signatures.json": forged(t, files, c.algorithm, c.id, c.scope, c.hash, c.key), "authz.rego": allowRego}
			_, err := loadArchive(t, pack(t, entriesOf(signed)...), bundle.LoadOptions{Verification: verification(t, "", keys...)})
			if c.want != "" {
				wantError(t, err, "b.tar.gz/.signatures.json: ", c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A key without an id is for signatures that name no other of the keys; a scope of the
// verification goes before that of a key.
func TestAKeyWithoutAnIDTakesWhatIsLeft(t *testing.T) {
	named, rest := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	v := verification(t, "s", bundle.VerificationKey{ID: "a", Content: pairOf(t, named).public, Scope: "t"}, bundle.VerificationKey{Content: pairOf(t, rest).public})
	for _, c := range []struct {
		id   string
		key  *ecdsa.PrivateKey
		want string
	}{
		{"a", named, ""}, {"", rest, ""}, {"b", rest, ""}, {"a", rest, `isn't good by verification key "a"`}, {"", named, "isn't good by the verification key without an id"},
	} {
		archive := signedArchive(t, signedFiles(), bundle.SigningKey{ID: c.id, Content: pairOf(t, c.key).private, Scope: "s"})
		_, err := loadArchive(t, archive, bundle.LoadOptions{Verification: v})
		if c.want != "" {
			wantError(t, err, c.want)
		} else if err != nil {
			t.Errorf("%q: %v", c.id, err)
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	r, e := pairOf(t, rsaKey(t, 2048)), pairOf(t, ecKey(t, elliptic.P256()))
	weak := pairOf(t, rsaKey(t, 1024))
	small := pairOf(t, ecKey(t, elliptic.P224()))
	for name, c := range map[string]struct {
		key  bundle.VerificationKey
		want string
	}{
		"a short secret":            {bundle.VerificationKey{ID: "k", Content: []byte("hunter2")}, `verification key "k": want a key as PEM, or an HMAC secret of at least 32 bytes, got 7 bytes`},
		"nothing":                   {bundle.VerificationKey{}, "got 0 bytes"},
		"a weak RSA key":            {bundle.VerificationKey{Content: weak.public}, "at least 2048 bits, got 1024"},
		"another curve":             {bundle.VerificationKey{Content: small.public}, "got one on P-224"},
		"a private key":             {bundle.VerificationKey{Content: r.private}, "got a PEM block \"PRIVATE KEY\""},
		"a damaged key":             {bundle.VerificationKey{Content: r.public[:100]}, "damaged"},
		"another content":           {bundle.VerificationKey{Content: pemOf("PUBLIC KEY", []byte("x"))}, "want a public key as PEM"},
		"two keys":                  {bundle.VerificationKey{Content: append(bytes.Clone(r.public), e.public...)}, "something behind it"},
		"a huge file":               {bundle.VerificationKey{Content: make([]byte, 1<<20)}, "at most 65536 bytes"},
		"another algorithm":         {bundle.VerificationKey{Content: e.public, Algorithm: "RS256"}, `an EC key on P-256 goes with ES256, not with "RS256"`},
		"a secret too short for it": {bundle.VerificationKey{Content: secret().public[:47], Algorithm: "HS384"}, `an HMAC secret of 47 bytes goes with HS256, not with "HS384"`},
		"PEM with HS256":            {bundle.VerificationKey{Content: e.public, Algorithm: "HS256"}, "goes with ES256"},
		"an unknown one":            {bundle.VerificationKey{Content: secret().public, Algorithm: "none"}, "goes with HS256, HS384, HS512"},
		"a key's id of two":         {bundle.VerificationKey{ID: "other", Content: e.public}, `verification key "other" is given twice`},
	} {
		_, err := bundle.NewVerification([]bundle.VerificationKey{{ID: "other", Content: e.public}, c.key}, "")
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want it to say %q", name, err, c.want)
		}
	}
	_, err := bundle.NewVerification(nil, "")
	wantError(t, err, "want at least one verification key")
	for name, c := range map[string]struct {
		key  bundle.SigningKey
		want string
	}{
		"a short secret":    {bundle.SigningKey{Content: []byte("hunter2")}, "signing key: want"},
		"a weak RSA key":    {bundle.SigningKey{Content: weak.private}, "at least 2048 bits"},
		"a public key":      {bundle.SigningKey{Content: e.public}, `got a PEM block "PUBLIC KEY"`},
		"one with password": {bundle.SigningKey{Content: pemOf("ENCRYPTED PRIVATE KEY", []byte("x"))}, "without a password"},
		"a damaged key":     {bundle.SigningKey{Content: pemOf("PRIVATE KEY", []byte("x"))}, "can't be read"},
		"another algorithm": {bundle.SigningKey{Content: e.private, Algorithm: "HS256"}, "signing algorithm: an EC key"},
	} {
		_, err := bundle.Sign(t.Context(), bundle.Source{FS: tree(signedFiles())}, c.key, bundle.LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want it to say %q", name, err, c.want)
		}
	}
}

// A manifest is read as the digest of its signature sees it.
func TestAManifestSaysOneThing(t *testing.T) {
	for name, manifest := range map[string]string{
		"two documents": `{"revision":"8"} {"revision":"7"}`,
		"YAML":          "revision: 7\n",
		"an array":      `[]`,
		"garbage":       `{"revision":"7"}x`,
	} {
		_, err := bundle.Load(t.Context(), tree(map[string]string{"a.rego": allowRego, ".manifest": manifest}), bundle.LoadOptions{Name: "policies"})
		if err == nil {
			t.Errorf("%s: got no error", name)
			continue
		}
		wantError(t, err, "policies/.manifest", ": want a manifest, a JSON object")
	}
}

func TestASignedBundleNeedsAKey(t *testing.T) {
	_, err := loadArchive(t, signedArchive(t, signedFiles(), bundle.SigningKey{Content: secret().private}), bundle.LoadOptions{})
	wantError(t, err, "is signed, and there is no key to verify it with: set --bundle-verification-key")
}

func TestWhatWouldBeRefusedIsNotSigned(t *testing.T) {
	for _, rego := range []string{"package authz\n\ndecision := )\n", "package scalekit\n\np := 1\n"} {
		_, err := bundle.Sign(t.Context(), source("p", map[string]string{"a.rego": rego}), bundle.SigningKey{Content: secret().private}, bundle.LoadOptions{})
		wantError(t, err, "p/a.rego:")
	}
}
