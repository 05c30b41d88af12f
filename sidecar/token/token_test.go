package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postern-authz/postern/sidecar/strictjson"
	"github.com/postern-authz/postern/sidecar/token"
)

const (
	issuer   = "https://env.example"
	audience = "app_1"
)

var (
	noon     = time.Date(2024, 1, 15, 12, 0, 0, 0, time.UTC)
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	otherKey = must(rsa.GenerateKey(rand.Reader, 2048))
	weakKey  = must(rsa.GenerateKey(rand.Reader, 1024))
	ecKey    = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// published is a key set with the public parts.
func published(keys ...jose.JSONWebKey) string {
	set := jose.JSONWebKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.Public())
	}
	return string(must(json.Marshal(set)))
}

func jwk(id string, key any) jose.JSONWebKey { return jose.JSONWebKey{KeyID: id, Key: key, Use: "sig"} }

func publicPart(key jose.JSONWebKey) []byte { return must(json.Marshal(key.Public())) }

// web is an issuer: it answers each path with a text, or not at all.
type web struct {
	texts map[string]string
	asked []string
	away  error
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.asked = append(w.asked, r.URL.String())
	if w.away != nil {
		return nil, w.away
	}
	text, ok := w.texts[r.URL.String()]
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	if strings.HasPrefix(text, "redirect ") {
		status = http.StatusFound
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {strings.TrimPrefix(text, "redirect ")}}, Body: readCloser{strings.NewReader(text)}, Request: r}, nil
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

const keysURL = issuer + "/keys"

func config(w *web) token.Config[string] {
	return token.Config[string]{
		Issuer: issuer, Audiences: []string{"app_0", audience}, Leeway: 30 * time.Second, KeysURL: keysURL, Remember: 100, RememberBytes: 1 << 20, Transport: w,
		Decode: func(claims []byte) (string, error) { return string(claims), strictjson.Check(claims, 16) },
		Now:    func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	}
}

func newVerifier(t testing.TB, c token.Config[string]) *token.Verifier[string] {
	t.Helper()
	v, err := token.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

// claims are good ones, changed.
func claims(change map[string]any) map[string]any {
	all := map[string]any{"iss": issuer, "aud": audience, "sub": "usr_1", "exp": noon.Add(time.Minute).Unix(), "iat": noon.Unix(), "nbf": noon.Unix()}
	maps.Copy(all, change)
	for name, value := range change {
		if value == nil {
			delete(all, name)
		}
	}
	return all
}

// signed signs a payload, with more members in the header.
func signed(alg jose.SignatureAlgorithm, id string, key any, payload string, more map[jose.HeaderKey]any) string {
	options := &jose.SignerOptions{ExtraHeaders: more}
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options))
	return must(must(signer.Sign([]byte(payload))).CompactSerialize())
}

func nested(depth int) json.RawMessage {
	return json.RawMessage(strings.Repeat("[", depth) + strings.Repeat("]", depth))
}

// signedHeader signs whatever header, well-made or not, with the issuer's key.
func signedHeader(header string) string {
	raw := strings.TrimSuffix(rawToken(header, text(claims(nil)), ""), ".")
	hash := sha256.Sum256([]byte(raw))
	signature := must(rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, hash[:]))
	return raw + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func text(claims map[string]any) string { return string(must(json.Marshal(claims))) }

func good(change map[string]any) string {
	return signed(jose.RS256, "a", rsaKey, text(claims(change)), nil)
}

// rawToken glues parts together, as an attacker would.
func rawToken(header, payload, signature string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + signature
}

func parts(raw string) []string { return strings.Split(raw, ".") }

// otherBits writes the same signature in another way: 256 bytes leave four bits of the last
// character without a meaning.
func otherBits(raw string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(raw) - 1
	return raw[:last] + string(alphabet[strings.IndexByte(alphabet, raw[last])^1])
}

func TestClaims(t *testing.T) {
	v := newVerifier(t, config(&web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}))
	second := noon.Unix()
	for name, test := range map[string]struct {
		change map[string]any
		want   string
	}{
		"good":                         {nil, ""},
		"one of several audiences":     {map[string]any{"aud": []string{"x", "app_0"}}, ""},
		"without nbf and iat":          {map[string]any{"nbf": nil, "iat": nil}, ""},
		"a fraction":                   {map[string]any{"exp": float64(second) + 0.5}, ""},
		"expired within the leeway":    {map[string]any{"exp": second - 29}, ""},
		"expired at the leeway":        {map[string]any{"exp": second - 30}, token.CodeExpired},
		"expired long ago":             {map[string]any{"exp": -1e300}, token.CodeExpired},
		"of the far future":            {map[string]any{"exp": 1e300}, ""},
		"without exp":                  {map[string]any{"exp": nil}, token.CodeInvalid},
		"exp as text":                  {map[string]any{"exp": "9999999999"}, token.CodeInvalid},
		"exp as null":                  {map[string]any{"exp": json.RawMessage("null")}, token.CodeInvalid},
		"nbf within the leeway":        {map[string]any{"nbf": second + 30}, ""},
		"nbf to come":                  {map[string]any{"nbf": second + 31}, token.CodeNotYetValid},
		"issued within the leeway":     {map[string]any{"iat": second + 30}, ""},
		"issued beyond the leeway":     {map[string]any{"iat": second + 31}, token.CodeNotYetValid},
		"issued in the future":         {map[string]any{"iat": second + 3600}, token.CodeNotYetValid},
		"nbf as text":                  {map[string]any{"nbf": "0"}, token.CodeInvalid},
		"another issuer":               {map[string]any{"iss": "https://evil.example"}, token.CodeWrongIssuer},
		"the issuer with a slash":      {map[string]any{"iss": issuer + "/"}, token.CodeWrongIssuer},
		"without an issuer":            {map[string]any{"iss": nil}, token.CodeInvalid},
		"another audience":             {map[string]any{"aud": "app_2"}, token.CodeWrongAudience},
		"no audience in the array":     {map[string]any{"aud": []string{}}, token.CodeWrongAudience},
		"without an audience":          {map[string]any{"aud": nil}, token.CodeInvalid},
		"an audience that is a number": {map[string]any{"aud": []any{audience, 1}}, token.CodeInvalid},
		"an audience that is null":     {map[string]any{"aud": []any{audience, json.RawMessage("null")}}, token.CodeInvalid},
		"without a subject":            {map[string]any{"sub": nil}, token.CodeInvalid},
		"an empty subject":             {map[string]any{"sub": ""}, token.CodeInvalid},
		"a subject that is a number":   {map[string]any{"sub": 7}, token.CodeInvalid},
		"nested too deep":              {map[string]any{"x": nested(40)}, token.CodeInvalid},
		"what Decode refuses":          {map[string]any{"x": nested(20)}, token.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, code := v.Verify(t.Context(), good(test.change))
			if code != test.want || (got == "") != (test.want != "") {
				t.Errorf("got %q %q, want %q", got, code, test.want)
			}
		})
	}
}

// Ways around verifiers, each of them tried on somebody's.
func TestForgeries(t *testing.T) {
	set := published(jwk("a", rsaKey), jwk("ec", ecKey), jwk("weak", weakKey))
	c := config(&web{texts: map[string]string{keysURL: set}})
	c.Algorithms = []string{"RS256", "ES256"}
	c.Decode = func(claims []byte) (string, error) { return string(claims), nil } // it is no second line here
	v := newVerifier(t, c)
	payload := text(claims(nil))
	genuine := good(nil)
	public := publicPart(jwk("a", rsaKey))
	evil := publicPart(jwk("a", otherKey))
	for name, raw := range map[string]string{
		"empty":                     "",
		"alg none":                  rawToken(`{"alg":"none","kid":"a"}`, payload, ""),
		"alg none with a signature": rawToken(`{"alg":"none","kid":"a"}`, payload, parts(genuine)[2]),
		"HMAC with the public key":  signed(jose.HS256, "a", public, payload, nil),
		"an algorithm not listed":   signed(jose.RS512, "a", rsaKey, payload, nil),
		"another key":               signed(jose.RS256, "a", otherKey, payload, nil),
		"an unknown key":            signed(jose.RS256, "b", otherKey, payload, nil),
		"a weak key":                signed(jose.RS256, "weak", weakKey, payload, nil),
		"a key of another type":     signed(jose.RS256, "ec", rsaKey, payload, nil),
		"no key named, two fit not": signed(jose.RS256, "", otherKey, payload, nil),
		"its own key in jwk":        signed(jose.RS256, "a", otherKey, payload, map[jose.HeaderKey]any{"jwk": json.RawMessage(evil)}),
		"a good one with jwk":       signed(jose.RS256, "a", rsaKey, payload, map[jose.HeaderKey]any{"jwk": json.RawMessage(public)}),
		"jku":                       signed(jose.RS256, "a", rsaKey, payload, map[jose.HeaderKey]any{"jku": "https://evil.example/keys"}),
		"x5u":                       signed(jose.RS256, "a", rsaKey, payload, map[jose.HeaderKey]any{"x5u": "https://evil.example/cert"}),
		"crit":                      signed(jose.RS256, "a", rsaKey, payload, map[jose.HeaderKey]any{"crit": []string{"exp"}}),
		"b64":                       signed(jose.RS256, "a", rsaKey, payload, map[jose.HeaderKey]any{"b64": true}),
		"x5c":                       signedHeader(`{"alg":"RS256","kid":"a","x5c":[]}`),
		"zip":                       signedHeader(`{"alg":"RS256","kid":"a","zip":"DEF"}`),
		"enc":                       signedHeader(`{"alg":"RS256","kid":"a","enc":"A256GCM"}`),
		"a signed kid twice":        signedHeader(`{"alg":"RS256","kid":"b","kid":"a"}`),
		"a signed alg twice":        signedHeader(`{"alg":"none","alg":"RS256","kid":"a"}`),
		"kid of 257 bytes":          signedHeader(`{"alg":"RS256","kid":"` + strings.Repeat("a", 257) + `"}`),
		"kid that is a number":      signedHeader(`{"alg":"RS256","kid":7}`),
		"a header nested too deep":  signedHeader(`{"alg":"RS256","kid":"a","x":[[[[1]]]]}`),
		"alg twice":                 rawToken(`{"alg":"RS256","alg":"none","kid":"a"}`, payload, parts(genuine)[2]),
		"another payload":           parts(genuine)[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(text(claims(map[string]any{"sub": "root"})))) + "." + parts(genuine)[2],
		"no signature":              parts(genuine)[0] + "." + parts(genuine)[1] + ".",
		"four parts":                genuine + ".x",
		"five parts":                genuine + ".x.y",
		"two parts":                 parts(genuine)[0] + "." + parts(genuine)[1],
		"other bits behind it":      otherBits(genuine),
		"a line break":              genuine[:20] + "\n" + genuine[20:],
		"a space before":            " " + genuine,
		"Bearer":                    "Bearer " + genuine,
		"the JSON form":             must(jose.ParseSignedCompact(genuine, []jose.SignatureAlgorithm{jose.RS256})).FullSerialize(),
		"longer than 16 KiB":        good(map[string]any{"x": strings.Repeat("x", token.MaxToken)}),
		"nested too deep":           good(map[string]any{"x": nested(32)}),
		"sub twice":                 signed(jose.RS256, "a", rsaKey, strings.Replace(payload, `{`, `{"sub":"root",`, 1), nil),
		"not JSON":                  signed(jose.RS256, "a", rsaKey, "hello", nil),
	} {
		t.Run(name, func(t *testing.T) {
			if got, code := v.Verify(t.Context(), raw); code != token.CodeInvalid || got != "" {
				t.Errorf("got %q %q", got, code)
			}
		})
	}
	for name, raw := range map[string]string{
		"the genuine one":              genuine,
		"one of the other type of key": signed(jose.ES256, "ec", ecKey, payload, nil),
		"one with a plain header":      signedHeader(`{"alg":"RS256","kid":"a","typ":"at+jwt","x":[1]}`),
		"one nested as deep as may be": good(map[string]any{"x": nested(31)}),
		"one that names no key":        signed(jose.RS256, "", rsaKey, payload, nil),
	} {
		if _, code := v.Verify(t.Context(), raw); code != "" {
			t.Errorf("%s: got %s", name, code)
		}
	}
}

// A token means one key or none: nothing is tried out.
func TestWhichKeyIsMeant(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	payload := text(claims(nil))
	ps := jwk("a", rsaKey)
	ps.Algorithm = "PS256"
	for name, test := range map[string]struct {
		set  string
		raw  string
		want string
	}{
		"no kid, one key":              {published(jwk("a", rsaKey)), signed(jose.RS256, "", rsaKey, payload, nil), ""},
		"no kid, two keys":             {published(jwk("a", rsaKey), jwk("b", otherKey)), signed(jose.RS256, "", rsaKey, payload, nil), token.CodeInvalid},
		"a kid that two keys bear":     {published(jwk("a", rsaKey), jwk("a", otherKey)), good(nil), token.CodeInvalid},
		"a key without a kid":          {published(jwk("", rsaKey)), good(nil), token.CodeInvalid},
		"neither has one":              {published(jwk("", rsaKey)), signed(jose.RS256, "", rsaKey, payload, nil), ""},
		"an RSA key for PS256 alone":   {published(ps), good(nil), token.CodeInvalid},
		"PS256 by that key":            {published(ps), signed(jose.PS256, "a", rsaKey, payload, nil), ""},
		"Ed25519":                      {published(jwk("a", public)), signed(jose.EdDSA, "a", private, payload, nil), ""},
		"RS256 by a key of Ed25519":    {published(jwk("a", public)), good(nil), token.CodeInvalid},
		"the curve of its algorithm":   {published(jwk("a", &large.PublicKey)), signed(jose.ES384, "a", large, payload, nil), ""},
		"ES256 by a key for ES384":     {published(jwk("a", &large.PublicKey)), signed(jose.ES256, "a", ecKey, payload, nil), token.CodeInvalid},
		"EdDSA by a key of the issuer": {published(jwk("a", rsaKey)), signed(jose.EdDSA, "a", private, payload, nil), token.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(&web{texts: map[string]string{keysURL: test.set}})
			c.Algorithms = token.Algorithms()
			if _, code := newVerifier(t, c).Verify(t.Context(), test.raw); code != test.want {
				t.Errorf("got %q, want %q", code, test.want)
			}
		})
	}
}

func TestKeysThatAreNoneForUs(t *testing.T) {
	private := string(must(json.Marshal(jwk("p", otherKey))))
	with := func(members string) string {
		return strings.Replace(published(jwk("a", rsaKey)), `"use":"sig"`, members, 1)
	}
	for name, set := range map[string]string{
		"empty":               `{"keys":[]}`,
		"not a set":           `[]`,
		"no keys":             `{}`,
		"null":                `{"keys":null}`,
		"for encryption":      with(`"use":"enc"`),
		"for other work":      with(`"key_ops":["sign"]`),
		"another algorithm":   with(`"alg":"PS256"`),
		"its private part":    `{"keys":[` + private + `]}`,
		"a secret":            `{"keys":[{"kty":"oct","k":"AAAA","kid":"a"}]}`,
		"a member twice":      `{"keys":[],` + strings.TrimPrefix(published(jwk("a", rsaKey)), `{`),
		"too many":            `{"keys":[` + strings.Repeat(`{},`, 100) + `{}]}`,
		"too large":           `{"x":"` + strings.Repeat("x", 1<<20) + `","keys":[]}`,
		"nested too deep":     `{"x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `,"keys":[]}`,
		"weak":                published(jwk("a", weakKey)),
		"an unknown key type": `{"keys":[{"kty":"XYZ","kid":"a"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			v, err := token.New(config(&web{texts: map[string]string{keysURL: set}}))
			if err != nil {
				t.Fatal(err)
			}
			_ = v.Refresh(t.Context()) // some of them are sets, with no key that fits
			if _, code := v.Verify(t.Context(), good(nil)); code != token.CodeKeysUnavailable && code != token.CodeInvalid {
				t.Errorf("got %q", code)
			}
		})
	}
	v := newVerifier(t, config(&web{texts: map[string]string{keysURL: `{"keys":[{"kty":"XYZ"},` + private + `,` + strings.TrimPrefix(published(jwk("a", rsaKey), jwk("a", rsaKey)), `{"keys":[`)}}))
	if _, code := v.Verify(t.Context(), good(nil)); code != "" || v.Status().Keys != 1 {
		t.Errorf("beside others: got %q with %d keys", code, v.Status().Keys)
	}
}

func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(*token.Config[string]){
		"audience":           func(c *token.Config[string]) { c.Audiences = nil },
		"none that is empty": func(c *token.Config[string]) { c.Audiences = []string{""} },
		"algorithm: want":    func(c *token.Config[string]) { c.Algorithms = []string{"HS256"} },
		"issuer: want https": func(c *token.Config[string]) { c.Issuer = "http://env.example" },
		"no user":            func(c *token.Config[string]) { c.Issuer = "https://u:p@env.example" },
		"got both":           func(c *token.Config[string]) { c.KeysFile = "keys" },
		"no query":           func(c *token.Config[string]) { c.KeysURL = keysURL + "?a=b" },
		"keys: want https":   func(c *token.Config[string]) { c.KeysURL = "http://env.example/keys" },
	} {
		c := config(&web{})
		change(&c)
		if _, err := token.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDiscovery(t *testing.T) {
	const well = issuer + "/.well-known/openid-configuration"
	for document, want := range map[string]string{
		`{"issuer":"https://env.example","jwks_uri":"https://env.example/keys"}`:          "",
		`{"issuer":"https://evil.example","jwks_uri":"https://env.example/keys"}`:         "issuer: want",
		`{"issuer":"https://env.example","jwks_uri":"https://evil.example/keys"}`:         "of the issuer's origin",
		`{"issuer":"https://env.example","jwks_uri":"https://env.example:8443/keys"}`:     "of the issuer's origin",
		`{"issuer":"https://env.example","jwks_uri":"http://env.example/keys"}`:           "want https",
		`{"issuer":"https://env.example"}`:                                                "jwks_uri",
		`{"issuer":"https://env.example","issuer":"x","jwks_uri":"https://env.example/"}`: "each key once",
		`redirect https://evil.example/`:                                                  "want status 200, got 302",
	} {
		w := &web{texts: map[string]string{well: document, keysURL: published(jwk("a", rsaKey)), "https://evil.example/keys": published(jwk("a", otherKey))}}
		c := config(w)
		c.KeysURL = ""
		v, err := token.New(c)
		if err != nil {
			t.Fatal(err)
		}
		err = v.Refresh(t.Context())
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", document, err, want)
		}
		if strings.Contains(strings.Join(w.asked, " "), "evil") {
			t.Errorf("asked %v", w.asked)
		}
	}
}

func TestAnIssuerThatEndsInASlash(t *testing.T) {
	const slash = issuer + "/"
	w := &web{texts: map[string]string{
		issuer + "/.well-known/openid-configuration": `{"issuer":"` + slash + `","jwks_uri":"` + keysURL + `"}`,
		keysURL: published(jwk("a", rsaKey)),
	}}
	c := config(w)
	c.Issuer, c.KeysURL = slash, ""
	if _, code := newVerifier(t, c).Verify(t.Context(), good(map[string]any{"iss": slash})); code != "" {
		t.Errorf("got %q", code)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(good(nil))
	f.Add(rawToken(`{"alg":"none"}`, text(claims(nil)), ""))
	f.Add("..")
	v := newVerifier(f, config(&web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}))
	genuine := map[string]bool{good(nil): true}
	f.Fuzz(func(t *testing.T, raw string) {
		claims, code := v.Verify(context.Background(), raw)
		if (code == "") == (claims == "") || (code == "" && !genuine[raw] && !strings.HasPrefix(good(nil), raw[:strings.LastIndexByte(raw, '.')])) {
			t.Errorf("%q: got %q %q", raw, claims, code)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	f.Add(published(jwk("a", rsaKey), jwk("ec", ecKey)))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`)
	f.Fuzz(func(t *testing.T, set string) {
		v, err := token.New(config(&web{texts: map[string]string{keysURL: set}}))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Refresh(context.Background()); (err == nil) != (v.Status().Keys > 0) {
			t.Errorf("%q: %v with %d keys", set, err, v.Status().Keys)
		}
	})
}
