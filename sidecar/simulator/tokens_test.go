package simulator_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/simulator"
)

// verify checks a token against /keys with nothing but the standard library (RFC 7515, 7517,
// 7518), and returns its kid and claims.
func (k *scalekit) verify(token string) (kid string, claims map[string]any, err error) {
	k.t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", nil, fmt.Errorf("got %d parts", len(parts))
	}
	var header struct{ Alg, Kid, Typ string }
	decodePart(k.t, parts[0], &header)
	decodePart(k.t, parts[1], &claims)
	if header.Alg != "RS256" || header.Typ != "JWT" {
		return "", nil, fmt.Errorf("header: got %+v", header)
	}
	key := k.published()[header.Kid]
	if key == nil {
		return header.Kid, claims, errors.New("the key isn't published")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return header.Kid, claims, rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], unbase64(k.t, parts[2]))
}

func (k *scalekit) published() map[string]*rsa.PublicKey {
	var set struct {
		Keys []struct{ Kty, Use, Alg, Kid, N, E string }
	}
	k.do("GET", "/keys", "").decode(k.t, &set)
	keys := map[string]*rsa.PublicKey{}
	for _, key := range set.Keys {
		if key.Kty != "RSA" || key.Use != "sig" || key.Alg != "RS256" {
			k.t.Errorf("got %+v", key)
		}
		e := new(big.Int).SetBytes(unbase64(k.t, key.E))
		keys[key.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(unbase64(k.t, key.N)), E: int(e.Int64())}
	}
	return keys
}

func unbase64(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decodePart(t *testing.T, part string, into any) {
	t.Helper()
	if err := json.Unmarshal(unbase64(t, part), into); err != nil {
		t.Fatal(err)
	}
}

func (k *scalekit) mint(order string) string {
	k.t.Helper()
	var got struct {
		Token string `json:"access_token"`
	}
	k.order("POST", "/simulator/tokens", order, &got)
	return got.Token
}

func TestMintedTokens(t *testing.T) {
	k := start(t, withPermissions("read", "write"), func(c *simulator.Config) {
		c.Fixture.Roles = []simulator.Role{{Name: "viewer", Permissions: []string{"read"}}, {Name: "editor", Extends: "viewer", Permissions: []string{"write"}}}
	})
	const sub = "map[aud:[skc_1] client_id:skc_1 exp:1.7684787e+09 iat:1.7684784e+09 iss:URL nbf:1.7684784e+09 "
	for order, want := range map[string]string{
		`{"sub":"usr_1"}`: sub + "permissions:[] sub:usr_1]",
		`{"sub":"usr_1","oid":"org_1","roles":["editor","gone"],"aud":["a","b"]}`: strings.Replace(sub, "skc_1] ", "a b] ", 1) + "oid:org_1 permissions:[write read] roles:[editor gone] sub:usr_1]",
		`{"sub":"usr_1","permissions":["deleted"],"roles":["editor"]}`:            sub + "permissions:[deleted] roles:[editor] sub:usr_1]",
		`{"sub":"usr_1","lifetime_seconds":60,"age_seconds":100}`:                 "map[aud:[skc_1] client_id:skc_1 exp:1.76847836e+09 iat:1.7684783e+09 iss:URL nbf:1.7684783e+09 permissions:[] sub:usr_1]",
		`{"sub":"usr_1","age_seconds":-100}`:                                      "map[aud:[skc_1] client_id:skc_1 exp:1.7684788e+09 iat:1.7684785e+09 iss:URL nbf:1.7684785e+09 permissions:[] sub:usr_1]",
		`{"sub":"usr_1","claims":{"iss":"https://other","x":1}}`:                  strings.Replace(sub, "URL", "https://other", 1) + "permissions:[] sub:usr_1 x:1]",
	} {
		_, claims, err := k.verify(k.mint(order))
		if err != nil {
			t.Errorf("%s: %v", order, err)
		}
		for _, name := range []string{"jti", "sid"} { // new each time
			if claims[name] == nil {
				t.Errorf("%s: no %s", order, name)
			}
			delete(claims, name)
		}
		if got := strings.ReplaceAll(fmt.Sprint(claims), k.url, "URL"); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", order, got, want)
		}
	}
}

func TestAPITokensAreMachineTokens(t *testing.T) {
	k := start(t)
	_, claims, err := k.verify(k.token())
	if err != nil || claims["scopes"] == nil || claims["permissions"] != nil || claims["sub"] != "skc_1" {
		t.Errorf("got %v, %v", claims, err)
	}
}

func TestKeysRotate(t *testing.T) {
	k := start(t)
	old := k.mint(`{"sub":"usr_1"}`)
	oldKey, _, err := k.verify(old)
	if err != nil {
		t.Fatal(err)
	}
	var rotated struct{ Kid string }
	k.order("POST", "/simulator/keys", "", &rotated)
	if kid, _, err := k.verify(k.mint(`{"sub":"usr_1"}`)); err != nil || kid != rotated.Kid || kid == oldKey {
		t.Errorf("a new token: got %s, %v", kid, err)
	}
	if _, _, err := k.verify(old); err != nil {
		t.Errorf("an old token while the old key is kept: %v", err)
	}
	if kid, _, err := k.verify(k.mint(`{"sub":"usr_1","key":"` + oldKey + `"}`)); err != nil || kid != oldKey {
		t.Errorf("a token of the old key: got %s, %v", kid, err)
	}
	k.order("POST", "/simulator/keys", `{"keep":false}`, nil)
	if _, _, err := k.verify(old); err == nil || len(k.published()) != 1 {
		t.Error("the old keys are still published")
	}
	if kid, _, err := k.verify(k.mint(`{"sub":"usr_1","key":"` + oldKey + `"}`)); err == nil || kid != oldKey {
		t.Errorf("a token of a key taken back: got %s, %v", kid, err)
	}
	if kid, _, err := k.verify(k.mint(`{"sub":"usr_1","key":"unpublished"}`)); err == nil || kid == "" {
		t.Errorf("a token of a key never published: got %s, %v", kid, err)
	}
	if got := k.Keys(); len(got) != 3 || got[0].Published || got[1].Published || !got[2].Published || !got[2].Current {
		t.Errorf("got %+v", got)
	}
}

func TestDiscovery(t *testing.T) {
	k := start(t)
	var got struct {
		Issuer, Keys, Token string
		JWKS                string `json:"jwks_uri"`
		Endpoint            string `json:"token_endpoint"`
	}
	k.do("GET", "/.well-known/openid-configuration", "").decode(t, &got)
	if got.Issuer != k.url || got.JWKS != k.url+"/keys" || got.Endpoint != k.url+"/oauth/token" {
		t.Errorf("got %+v", got)
	}
}

func TestMintRefuses(t *testing.T) {
	k := start(t)
	for _, c := range []struct {
		request simulator.TokenRequest
		want    error
	}{
		{simulator.TokenRequest{}, simulator.ErrInvalid},
		{simulator.TokenRequest{Subject: "u", Lifetime: -time.Second}, simulator.ErrInvalid},
		{simulator.TokenRequest{Subject: "u", Key: "nobody's"}, simulator.ErrNotFound},
	} {
		if _, err := k.Mint(c.request); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v", c.request, err)
		}
	}
}
