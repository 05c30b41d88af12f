package token_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/postern-authz/postern/sidecar/token"
)

var errAway = errors.New("away")

// office is a web that a running verifier may ask while the test changes it.
type office struct {
	sync.Mutex
	web
	hang chan struct{} // nil: it answers
}

func (o *office) RoundTrip(r *http.Request) (*http.Response, error) {
	o.Lock()
	hang := o.hang
	o.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	o.Lock()
	defer o.Unlock()
	return o.web.RoundTrip(r)
}

func (o *office) change(do func()) {
	o.Lock()
	defer o.Unlock()
	do()
}

func (o *office) count() int {
	o.Lock()
	defer o.Unlock()
	return len(o.asked)
}

func byKey(id string, key any) string {
	c := claims(nil)
	c["exp"] = time.Now().Add(24 * time.Hour).Unix()
	c["iat"], c["nbf"] = time.Now().Unix(), time.Now().Unix()
	return signed(jose.RS256, id, key, text(c), nil)
}

// A day of an issuer: keys are fetched ahead of need, a new one when it is named, and no
// fault of the issuer takes away what is known.
func TestKeysThroughTheDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{web: web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}}
		c := config(&o.web)
		c.Transport, c.Now = o, time.Now
		v, err := token.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		expect := func(raw, want string) {
			t.Helper()
			if _, code := v.Verify(ctx, raw); code != want {
				t.Errorf("got %q, want %q", code, want)
			}
		}
		go v.Run(ctx)
		synctest.Wait()
		first := byKey("a", rsaKey)
		expect(first, "")
		if o.count() != 1 {
			t.Errorf("%d fetches before the first question", o.count())
		}
		time.Sleep(17 * time.Minute)
		if o.count() != 2 {
			t.Errorf("%d fetches after a quarter of an hour", o.count())
		}
		// Unknown keys: one fetch in ten seconds, however many are named.
		time.Sleep(time.Minute)
		for range 20 {
			expect(byKey("b", otherKey), token.CodeInvalid)
		}
		if o.count() != 3 {
			t.Errorf("%d fetches for unknown keys", o.count()-2)
		}
		o.change(func() { o.texts[keysURL] = published(jwk("a", rsaKey), jwk("b", otherKey)) })
		expect(byKey("b", otherKey), token.CodeInvalid)
		time.Sleep(10 * time.Second)
		expect(byKey("b", otherKey), "")
		// Away, garbage or empty: what is known stays.
		for _, fault := range []func(){func() { o.away = errAway }, func() { o.away, o.texts[keysURL] = nil, "garbage" }, func() { o.texts[keysURL] = `{"keys":[]}` }} {
			o.change(fault)
			time.Sleep(time.Hour)
			expect(first, "")
			expect(byKey("a", rsaKey), "")
			expect(byKey("c", rsaKey), token.CodeKeysUnavailable)
			if v.Status().Failure == nil || v.Status().Keys != 2 {
				t.Errorf("got %+v", v.Status())
			}
		}
		// A hanging one makes nobody wait whose key is known, and others two seconds.
		hang := make(chan struct{})
		o.change(func() { o.hang = hang })
		time.Sleep(time.Minute)
		began := time.Now()
		expect(byKey("a", rsaKey), "")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("a known key waited %s", waited)
		}
		expect(byKey("d", rsaKey), token.CodeKeysUnavailable)
		if waited := time.Since(began); waited > 2*time.Second {
			t.Errorf("an unknown key waited %s", waited)
		}
		// A key that is no longer shown counts no more, remembered or not.
		o.change(func() { o.hang, o.texts[keysURL] = nil, published(jwk("b", otherKey)) })
		close(hang)
		time.Sleep(time.Hour)
		expect(first, token.CodeInvalid)
		cancel()
		time.Sleep(time.Minute) // for a fetch that outlives its question
	})
}

// A failed fetch is told to those who come within its rest, and nobody is asked again.
func TestAFailureLastsAsLongAsTheRest(t *testing.T) {
	now := noon
	w := &web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}
	c := config(w)
	c.Now = func() time.Time { return now }
	v := newVerifier(t, c)
	now, w.away = noon.Add(time.Minute), errAway
	unknown := signed(jose.RS256, "b", otherKey, text(claims(nil)), nil)
	for range 3 {
		if _, code := v.Verify(t.Context(), unknown); code != token.CodeKeysUnavailable {
			t.Errorf("got %q", code)
		}
	}
	if len(w.asked) != 2 {
		t.Errorf("asked %v", w.asked)
	}
}

// Who asked first may go; the others still get the key.
func TestAFetchOutlivesItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{web: web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}, hang: make(chan struct{})}
		c := config(&o.web)
		c.Transport, c.Now = o, time.Now
		v := must(token.New(c))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		go v.Verify(ctx, byKey("a", rsaKey))
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(o.hang) })
		if _, code := v.Verify(t.Context(), byKey("a", rsaKey)); code != "" {
			t.Errorf("got %q", code)
		}
	})
}

func TestRememberedTokensExpire(t *testing.T) {
	now := noon
	c := config(&web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}})
	c.Now = func() time.Time { return now }
	decoded := 0
	c.Decode = func(claims []byte) (string, error) { decoded++; return string(claims), nil }
	v := newVerifier(t, c)
	raw := good(nil)
	for range 3 {
		if _, code := v.Verify(t.Context(), raw); code != "" {
			t.Fatal(code)
		}
	}
	if decoded != 1 {
		t.Errorf("decoded %d times", decoded)
	}
	now = noon.Add(90 * time.Second) // a minute, and the leeway
	if _, code := v.Verify(t.Context(), raw); code != token.CodeExpired {
		t.Errorf("got %q", code)
	}
}

// How many are remembered, and how long they are together, is bounded; the one that wasn't
// asked about for longest goes first. What is asked about is what had to be decoded.
func TestRememberedTokensAreBounded(t *testing.T) {
	raws := make([]string, 4)
	for i := range raws {
		raws[i] = good(map[string]any{"sub": fmt.Sprint("usr_", i)})
	}
	length := len(raws[0]) // of each
	for _, test := range []struct {
		name          string
		tokens, bytes int
		asked         []int
		decoded       int
	}{
		{"all fit", 10, 4 * length, []int{0, 1, 2, 3, 0, 1, 2, 3}, 4},
		{"three tokens", 3, 100 * length, []int{0, 1, 2, 3, 3, 2, 1, 0}, 5},
		{"bytes of three", 10, 4*length - 1, []int{0, 1, 2, 3, 3, 2, 1, 0}, 5},
		{"an expelled one gives its bytes back", 10, 3 * length, []int{0, 1, 2, 3, 0, 1, 3, 0, 1}, 6},
		{"less than one", 10, length - 1, []int{0, 0}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(&web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}})
			c.Remember, c.RememberBytes = test.tokens, test.bytes
			decoded := 0
			c.Decode = func([]byte) (string, error) { decoded++; return "", nil }
			v := newVerifier(t, c)
			for _, i := range test.asked {
				if _, code := v.Verify(t.Context(), raws[i]); code != "" {
					t.Fatal(code)
				}
			}
			if decoded != test.decoded {
				t.Errorf("decoded %d times, want %d", decoded, test.decoded)
			}
		})
	}
}

func TestAStartWithoutTheIssuer(t *testing.T) {
	w := &web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}
	c := config(w)
	c.CacheFile = filepath.Join(t.TempDir(), "keys.json")
	newVerifier(t, c)
	if info, err := os.Stat(c.CacheFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	w.away = errAway
	for _, test := range []struct {
		want   string
		change func(*token.Config[string])
	}{
		{"", func(*token.Config[string]) {}},
		{token.CodeKeysUnavailable, func(c *token.Config[string]) { c.KeysURL = issuer + "/other" }},
		{token.CodeKeysUnavailable, func(c *token.Config[string]) { c.Issuer = "https://other.example" }},
	} {
		other := c
		test.change(&other)
		v, err := token.New(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, code := v.Verify(t.Context(), good(nil)); code != test.want {
			t.Errorf("got %q, want %q", code, test.want)
		}
	}
	if err := os.WriteFile(c.CacheFile, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := token.New(c); err != nil || v.Status().Keys != 0 {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestKeysInAFile(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "jwks.json"), filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := config(&web{away: errAway})
	c.KeysURL = ""
	write("{")
	for path, want := range map[string]string{filepath.Join(dir, "nowhere"): "no such file", pipe: "want a regular file", dir: "want a regular file", file: "want one JSON value"} {
		c.KeysFile = path
		if _, err := token.New(c); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	c.KeysFile = file
	write(published(jwk("a", rsaKey)))
	v, err := token.New(c)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(raw, want string) {
		t.Helper()
		if _, code := v.Verify(t.Context(), raw); code != want {
			t.Errorf("got %q, want %q", code, want)
		}
	}
	first, second := good(nil), signed(jose.RS256, "b", otherKey, text(claims(nil)), nil)
	expect(first, "")
	both := published(jwk("a", rsaKey), jwk("b", otherKey))
	write(both[:len(both)/2])
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("half a file was taken")
	}
	expect(first, "")
	write(both)
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(second, "")
	write(published(jwk("b", otherKey)))
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(first, token.CodeInvalid)
}

// Keys that could not be kept on disk are kept with the next fetch, though they are the same.
func TestKeysThatCouldNotBeKept(t *testing.T) {
	dir := t.TempDir()
	w := &web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}
	c := config(w)
	c.CacheFile = filepath.Join(dir, "keys.json")
	if err := os.MkdirAll(filepath.Join(c.CacheFile, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, c)
	if _, code := v.Verify(t.Context(), good(nil)); code != "" {
		t.Errorf("got %q", code)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := os.RemoveAll(c.CacheFile); err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.away = errAway
	offline, err := token.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, code := offline.Verify(t.Context(), good(nil)); code != "" {
		t.Errorf("a start without the issuer: got %q", code)
	}
}

// The same keys in another order, or written in another way, are no change: neither in the log
// nor on disk.
func TestTheSameKeysToldDifferently(t *testing.T) {
	w := &web{texts: map[string]string{keysURL: published(jwk("a", rsaKey), jwk("b", otherKey))}}
	c := config(w)
	c.CacheFile = filepath.Join(t.TempDir(), "keys.json")
	var log bytes.Buffer
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	refresh := func(v *token.Verifier[string], keys string, changes int) {
		t.Helper()
		w.texts[keysURL] = keys
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(log.String(), "keys changed"); got != changes {
			t.Errorf("%d changes, want %d: %s", got, changes, &log)
		}
	}
	v := newVerifier(t, c)
	before := must(os.Stat(c.CacheFile))
	refresh(v, published(jwk("b", otherKey), jwk("a", rsaKey)), 1)
	again := must(token.New(c))
	refresh(again, " "+published(jwk("a", rsaKey), jwk("b", otherKey)), 1)
	if !os.SameFile(before, must(os.Stat(c.CacheFile))) {
		t.Error("the same keys were written again")
	}
	refresh(again, published(jwk("a", rsaKey)), 2)
	refresh(again, published(jwk("a", rsaKey), jwk("c", otherKey)), 3)
	refresh(again, published(jwk("a", otherKey), jwk("c", otherKey)), 4)
	if os.SameFile(before, must(os.Stat(c.CacheFile))) {
		t.Error("other keys were not written")
	}
}

// While the issuer hangs anybody can send tokens that name unknown keys; few of them wait, so
// that who bounds questions in hand has room for those whose key is known.
func TestFewWaitForUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{web: web{texts: map[string]string{keysURL: published(jwk("a", rsaKey))}}}
		c := config(&o.web)
		c.Transport, c.Now = o, time.Now
		v := newVerifier(t, c)
		time.Sleep(time.Minute)
		hang := make(chan struct{})
		o.change(func() { o.hang = hang })
		began := time.Now()
		const asked = 100
		answered := make(chan time.Duration, asked)
		for range asked {
			go func() {
				if _, code := v.Verify(t.Context(), byKey("b", otherKey)); code != token.CodeKeysUnavailable {
					t.Errorf("got %q", code)
				}
				answered <- time.Since(began)
			}()
		}
		synctest.Wait()
		if at := len(answered); at != asked-token.MostWaiting {
			t.Errorf("%d of %d were answered at once", at, asked)
		}
		time.Sleep(3 * time.Second)
		for range asked {
			if waited := <-answered; waited > 2*time.Second {
				t.Errorf("one waited %s", waited)
			}
		}
		// Those that are through make room, and get the key when it comes.
		time.Sleep(time.Minute)
		go func() {
			time.Sleep(time.Second)
			o.change(func() { o.hang, o.texts[keysURL] = nil, published(jwk("b", otherKey)) })
			close(hang)
		}()
		if _, code := v.Verify(t.Context(), byKey("b", otherKey)); code != "" {
			t.Errorf("got %q", code)
		}
		time.Sleep(time.Minute)
	})
}

// First and repeated verification, beside OPA's own builtin on the same token and keys.
func BenchmarkVerify(b *testing.B) {
	set := published(jwk("a", rsaKey))
	raw := good(nil)
	verifier := func(remember int) *token.Verifier[string] {
		c := config(&web{texts: map[string]string{keysURL: set}})
		c.Remember = remember
		return newVerifier(b, c)
	}
	verify := func(v *token.Verifier[string], raw string) {
		if _, code := v.Verify(context.Background(), raw); code != "" {
			b.Fatal(code)
		}
	}
	b.Run("first", func(b *testing.B) {
		v := verifier(1)
		two := []string{raw, good(map[string]any{"sub": "usr_2"})} // each pushes the other out
		for i := 0; b.Loop(); i++ {
			verify(v, two[i%2])
		}
	})
	b.Run("repeated", func(b *testing.B) {
		v := verifier(10)
		for b.Loop() {
			verify(v, raw)
		}
	})
	b.Run("io.jwt.decode_verify", func(b *testing.B) {
		query, err := rego.New(rego.Query(`io.jwt.decode_verify(input.token, {"cert": input.keys, "iss": input.iss, "aud": input.aud, "time": input.time})[0] == true`)).PrepareForEval(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		input := ast.MustInterfaceToValue(map[string]any{"token": raw, "keys": set, "iss": issuer, "aud": audience, "time": noon.UnixNano()})
		for b.Loop() {
			results, err := query.Eval(context.Background(), rego.EvalParsedInput(input))
			if err != nil || len(results) != 1 {
				b.Fatal(results, err)
			}
		}
	})
}
