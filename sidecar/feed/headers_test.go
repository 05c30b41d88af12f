package feed

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What net/http takes for a tag that matches is one here, and nothing else is.
func FuzzHeldTags(f *testing.F) {
	for _, text := range []string{`"a"`, `W/"a"`, `*`, `"b", "a"`, `"a`, `a`, `"b"x"a"`, `"b",,W/"a"`, "\"b\"\t\"a\"", `W/`, `"`, strings.Repeat(`"b",`, 10_000) + `"a"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\r\n") {
			t.Skip("no header has these")
		}
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header.Set("If-None-Match", text)
		recorder := httptest.NewRecorder()
		recorder.Header().Set("ETag", `"a"`)
		http.ServeContent(recorder, request, "", time.Time{}, bytes.NewReader([]byte("x")))
		want := recorder.Code == http.StatusNotModified
		if got := heldTags(request.Header).contain(`"a"`); got != want {
			t.Errorf("%q: got %v, net/http %v", text, got, want)
		}
	})
}

func TestPreferredWait(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"modes=snapshot,delta;wait=10": 10 * time.Second,
		"wait=10":                      10 * time.Second,
		"respond-async, WAIT = 10":     10 * time.Second,
		`wait="10"`:                    10 * time.Second,
		"wait=10, wait=20":             10 * time.Second,
		"wait=0":                       0,
		"wait=3600":                    longestWait,
		"wait=4294967295":              longestWait,
		"wait=99999999999999999999":    0,
		"wait=-1":                      0,
		"wait=1.5":                     0,
		"wait":                         0,
		"await=10":                     0,
		"":                             0,
	} {
		if got := preferredWait(http.Header{"Prefer": {text}}); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	if got := preferredWait(http.Header{"Prefer": {"modes=snapshot", "wait=10"}}); got != 10*time.Second {
		t.Errorf("of two headers: got %s", got)
	}
}
