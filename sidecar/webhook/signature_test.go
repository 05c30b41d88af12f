package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The public test vector of Standard Webhooks.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTimestamp = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

	otherSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

func mustKeys(t testing.TB, text string) Keys {
	t.Helper()
	keys, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func vectorHeader() http.Header {
	h := http.Header{}
	h.Set("webhook-id", vectorID)
	h.Set("webhook-timestamp", strconv.Itoa(vectorTimestamp))
	h.Set("webhook-signature", vectorSignature)
	return h
}

func TestThePublicVector(t *testing.T) {
	keys, now := mustKeys(t, vectorSecret), time.Unix(vectorTimestamp, 0)
	if err := verifyDelivery(keys, vectorHeader(), []byte(vectorBody), now); err != nil {
		t.Errorf("verifying: %v", err)
	}
	if got := keys.Sign(vectorID, now, []byte(vectorBody)); fmt.Sprint(got) != fmt.Sprint(vectorHeader()) {
		t.Errorf("signing: got %v, want %v", got, vectorHeader())
	}
}

func TestVerify(t *testing.T) {
	now := time.Unix(vectorTimestamp, 999_999_999)
	good, other := strings.TrimPrefix(vectorSignature, "v1,"), mustKeys(t, otherSecret)
	set := func(name string, values ...string) func(http.Header) {
		return func(h http.Header) {
			h.Del(name)
			for _, v := range values {
				h.Add(name, v)
			}
		}
	}
	none := func(http.Header) {}
	for _, test := range []struct {
		name   string
		keys   string
		change func(http.Header)
		body   string
		away   int // seconds from the timestamp to now
		want   error
	}{
		{"as it is", vectorSecret, none, vectorBody, 0, nil},
		{"another body", vectorSecret, none, vectorBody + " ", 0, ErrMismatch},
		{"another id", vectorSecret, set("webhook-id", "msg_other"), vectorBody, 0, ErrMismatch},
		{"another key", otherSecret, none, vectorBody, 0, ErrMismatch},
		{"one of two keys", otherSecret + "," + vectorSecret, none, vectorBody, 0, nil},
		{"exactly 300 s old", vectorSecret, none, vectorBody, 300, nil},
		{"301 s old", vectorSecret, none, vectorBody, 301, ErrOutsideWindow},
		{"exactly 300 s ahead", vectorSecret, none, vectorBody, -300, nil},
		{"301 s ahead", vectorSecret, none, vectorBody, -301, ErrOutsideWindow},
		{"a shifted timestamp", vectorSecret, set("webhook-timestamp", strconv.Itoa(vectorTimestamp+1)), vectorBody, 0, ErrMismatch},
		{"the second signature", vectorSecret, set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32))+" "+vectorSignature), vectorBody, 0, nil},
		{"a signature in a second header", vectorSecret, set("webhook-signature", "v1a,xxx", vectorSignature), vectorBody, 0, nil},
		{"another version beside it", vectorSecret, set("webhook-signature", "v2,whatever "+vectorSignature), vectorBody, 0, nil},
		{"another version alone", vectorSecret, set("webhook-signature", "v1a,"+good), vectorBody, 0, ErrHeadersMalformed},
		{"a tab between signatures", vectorSecret, set("webhook-signature", "v1,AAAA\t"+vectorSignature), vectorBody, 0, ErrHeadersMalformed},
		{"a line end within a signature", vectorSecret, set("webhook-signature", vectorSignature[:9]+"\n"+vectorSignature[9:]), vectorBody, 0, ErrHeadersMalformed},
		{"loose bits", vectorSecret, set("webhook-signature", strings.TrimSuffix(vectorSignature, "E=")+"F="), vectorBody, 0, ErrHeadersMalformed},
		{"no padding", vectorSecret, set("webhook-signature", strings.TrimRight(vectorSignature, "=")), vectorBody, 0, ErrHeadersMalformed},
		{"spaces alone", vectorSecret, set("webhook-signature", "  "), vectorBody, 0, ErrHeadersMalformed},
		{"one good of two keys' signatures", vectorSecret, set("webhook-signature", other.Sign(vectorID, now, []byte(vectorBody)).Get("webhook-signature")+" "+vectorSignature), vectorBody, 0, nil},
		{"an id of 256 bytes", vectorSecret, set("webhook-id", strings.Repeat("m", 256)), vectorBody, 0, ErrMismatch},
		{"the ends of visible ASCII in the id", vectorSecret, set("webhook-id", "!~"), vectorBody, 0, ErrMismatch},
		{"DEL in the id", vectorSecret, set("webhook-id", "msg\x7f"), vectorBody, 0, ErrHeadersMalformed},
		{"an empty id", vectorSecret, set("webhook-id", ""), vectorBody, 0, ErrHeadersMalformed},
		{"an empty timestamp", vectorSecret, set("webhook-timestamp", ""), vectorBody, 0, ErrHeadersMalformed},
		{"a timestamp in a space", vectorSecret, set("webhook-timestamp", " 1614265330"), vectorBody, 0, ErrHeadersMalformed},
		{"a negative timestamp", vectorSecret, set("webhook-timestamp", "-1614265330"), vectorBody, 0, ErrHeadersMalformed},
		{"a timestamp of 12 digits", vectorSecret, set("webhook-timestamp", "001614265330"), vectorBody, 0, ErrMismatch},
		{"an empty signature", vectorSecret, set("webhook-signature", "v1,"), vectorBody, 0, ErrMismatch},
		{"a cut signature", vectorSecret, set("webhook-signature", "v1,"+good[:40]), vectorBody, 0, ErrMismatch},
		{"not base64 beside it", vectorSecret, set("webhook-signature", "v1,*** "+vectorSignature), vectorBody, 0, nil},
		{"not base64", vectorSecret, set("webhook-signature", "v1,***"), vectorBody, 0, ErrHeadersMalformed},
		{"16 signatures", vectorSecret, set("webhook-signature", strings.Repeat("v1,AAAA ", 15)+vectorSignature), vectorBody, 0, nil},
		{"17 signatures", vectorSecret, set("webhook-signature", strings.Repeat("v1,AAAA ", 16)+vectorSignature), vectorBody, 0, ErrHeadersMalformed},
		{"no id", vectorSecret, set("webhook-id"), vectorBody, 0, ErrHeadersMissing},
		{"no timestamp", vectorSecret, set("webhook-timestamp"), vectorBody, 0, ErrHeadersMissing},
		{"no signature", vectorSecret, set("webhook-signature"), vectorBody, 0, ErrHeadersMissing},
		{"two ids", vectorSecret, set("webhook-id", vectorID, vectorID), vectorBody, 0, ErrHeadersMalformed},
		{"two timestamps", vectorSecret, set("webhook-timestamp", "1", "2"), vectorBody, 0, ErrHeadersMalformed},
		{"a full stop in the id", vectorSecret, set("webhook-id", "msg.1"), vectorBody, 0, ErrHeadersMalformed},
		{"a space in the id", vectorSecret, set("webhook-id", "msg 1"), vectorBody, 0, ErrHeadersMalformed},
		{"a long id", vectorSecret, set("webhook-id", strings.Repeat("m", 257)), vectorBody, 0, ErrHeadersMalformed},
		{"a signed timestamp", vectorSecret, set("webhook-timestamp", "+1614265330"), vectorBody, 0, ErrHeadersMalformed},
		{"a fraction", vectorSecret, set("webhook-timestamp", "1614265330.0"), vectorBody, 0, ErrHeadersMalformed},
		{"milliseconds", vectorSecret, set("webhook-timestamp", "1614265330000"), vectorBody, 0, ErrHeadersMalformed},
		{"the form of a misleading guide", vectorSecret, set("webhook-signature", "t=1614265330,v1="+good), vectorBody, 0, errMisleading},
		{"the header of a misleading guide", vectorSecret, func(h http.Header) { h.Del("webhook-signature"); h.Set("scalekit-signature", vectorSignature) }, vectorBody, 0, errMisleading},
	} {
		h := vectorHeader()
		test.change(h)
		if err := verifyDelivery(mustKeys(t, test.keys), h, []byte(test.body), now.Add(time.Duration(test.away)*time.Second)); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if verifyDelivery(other, other.Sign("msg_1", now, nil), nil, now) != nil {
		t.Error("its own signature doesn't verify")
	}
	if !errors.Is(verifyDelivery(Keys{}, vectorHeader(), []byte(vectorBody), now), ErrMismatch) {
		t.Error("no keys at all verify something")
	}
	if !strings.Contains(errMisleading.Error(), "webhook-id, webhook-timestamp and webhook-signature") {
		t.Errorf("it doesn't say what is expected: %v", errMisleading)
	}
}

func secretOf(length int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, length))
}

func TestParseKeys(t *testing.T) {
	many := make([]string, 9)
	for i := range many {
		many[i] = "whsec_" + base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%024d", i)))
	}
	for _, test := range []struct {
		name, text string
		count      int
		message    string
	}{
		{"one", vectorSecret, 1, ""},
		{"commas, lines, spaces and blanks", "\r\n " + vectorSecret + " ,,\r\n" + otherSecret + "\n\n", 2, ""},
		{"lines that end in carriage returns", vectorSecret + "\r" + otherSecret, 2, ""},
		{"twice the same", vectorSecret + "," + vectorSecret, 1, ""},
		{"eight", strings.Join(many[:8], "\n"), 8, ""},
		{"24 bytes", secretOf(24), 1, ""},
		{"64 bytes", secretOf(64), 1, ""},
		{"nine", strings.Join(many, "\n"), 0, "want at most 8 signing secrets, got 9"},
		{"none", " ,\n", 0, "want at least one signing secret"},
		{"empty key", "whsec_", 0, "signing secret 1: want a key of 24 to 64 bytes, got 0"},
		{"short", vectorSecret + "," + secretOf(23), 0, "signing secret 2: want a key of 24 to 64 bytes, got 23"},
		{"long", secretOf(65), 0, "got 65"},
		{"no prefix", strings.TrimPrefix(vectorSecret, "whsec_"), 0, "want it to begin with whsec_"},
		{"another prefix", "WHSEC_" + strings.TrimPrefix(vectorSecret, "whsec_"), 0, "want it to begin with whsec_"},
		{"not base64", "whsec_" + strings.Repeat("*", 40), 0, "want standard base64"},
		{"URL alphabet", "whsec_" + strings.Repeat("-_", 20), 0, "want standard base64"},
		{"loose bits", "whsec_" + strings.Repeat("A", 38) + "B=", 0, "want standard base64"},
	} {
		keys, err := ParseKeys(test.text)
		if len(keys.all()) != test.count || (err == nil) != (test.message == "") || (err != nil && !strings.Contains(err.Error(), test.message)) {
			t.Errorf("%s: got %d keys, %v", test.name, len(keys.all()), err)
		}
	}
}

func TestKeysNeverPrint(t *testing.T) {
	keys := mustKeys(t, vectorSecret+","+otherSecret)
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "keys", keys, "pointer", &keys)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "keys", keys)
	encoded, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d", keys, keys, keys, keys, keys, keys, keys) + logged.String() + string(encoded) + fmt.Sprintf("%v %#v", struct{ K Keys }{keys}, &keys)
	if slog.AnyValue(keys).Resolve().Kind() != slog.KindString || string(encoded) != `{"keys":"[redacted]"}` {
		t.Errorf("got %s and %s", slog.AnyValue(keys).Resolve(), encoded)
	}
	// fmt asks no method of what stands in an unexported field.
	type holder struct{ keys Keys }
	printed += fmt.Sprintf("%v %+v %#v %d %v", holder{keys}, holder{keys}, &holder{keys}, []any{holder{keys}}, map[string]holder{"a": {keys}})
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "holder", holder{keys})
	printed += logged.String()
	raw := keys.all()[0]
	for _, secret := range []string{
		vectorSecret[6:20], otherSecret[6:20], string(raw), fmt.Sprintf("%x", raw), strings.Trim(fmt.Sprintf("%d", raw[:4]), "[]"), strings.TrimSuffix(fmt.Sprintf("%#v", raw[:3])[len("[]byte{"):], "}"),
	} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q was printed: %s", secret, printed)
		}
	}
	if !strings.Contains(printed, redacted) {
		t.Errorf("got %s", printed)
	}
}

// FuzzSignature holds verifyDelivery against a check that was written straight from the
// specification: it must never accept what that one refuses.
func FuzzSignature(f *testing.F) {
	f.Add(vectorID, strconv.Itoa(vectorTimestamp), vectorSignature, []byte(vectorBody), int64(vectorTimestamp))
	f.Add(vectorID, strconv.Itoa(vectorTimestamp), "v1,AAAA v2,x "+vectorSignature, []byte(vectorBody), int64(vectorTimestamp+300))
	f.Add(vectorID, strconv.Itoa(vectorTimestamp), "v1,AAAA\t"+vectorSignature, []byte(vectorBody), int64(vectorTimestamp-300))
	f.Add("msg.1", "1", "v1,", []byte{}, int64(0))
	f.Add("", "99999999999999999999", "t=1,v1=x", []byte("{}"), int64(-1))
	keys := mustKeys(f, vectorSecret)
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte, now int64) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		for _, signed := range []bool{false, true} {
			if signed {
				h.Set("webhook-signature", signature+" v1,"+straightforward(keys, id, timestamp, body))
			}
			err := verifyDelivery(keys, h, body, time.Unix(now, 0))
			if err == nil && !acceptable(keys, h, body, now) {
				t.Fatalf("accepted %v over %q", h, body)
			}
		}
	})
}

func straightforward(keys Keys, id, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, keys.all()[0])
	fmt.Fprintf(m, "%s.%s.%s", id, timestamp, body)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

func acceptable(keys Keys, h http.Header, body []byte, now int64) bool {
	timestamp := h.Get("webhook-timestamp")
	at, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now-at > 300 || at-now > 300 {
		return false
	}
	for _, entry := range strings.Split(h.Get("webhook-signature"), " ") {
		if strings.TrimSpace(entry) == "v1,"+straightforward(keys, h.Get("webhook-id"), timestamp, body) {
			return true
		}
	}
	return false
}

// verifyDelivery checks headers, time window and signature, as the receiver does in turn.
func verifyDelivery(keys Keys, header http.Header, body []byte, now time.Time) error {
	c, err := readClaim(header, now)
	if err != nil {
		return err
	}
	return c.verify(keys, body)
}
