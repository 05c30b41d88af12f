package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	// A key has 24 to 64 bytes (Standard Webhooks, "Signature scheme"). An empty one would
	// verify what anybody signs: libraries that take "whsec_" accept forgeries.
	shortestKey = 24
	longestKey  = 64
	// MaxKeys is how many secrets may be live at once. Each costs a MAC per delivery.
	MaxKeys = 8
)

// Keys are the live signing keys, made by [ParseKeys]. The zero Keys verify nothing, and
// can't sign. Keys print as "[redacted]" whatever prints them, and as an address where fmt
// can't ask them: in an unexported field of another struct. The pointer is there for that.
type Keys struct{ ring *[][]byte }

func (k Keys) all() [][]byte {
	if k.ring == nil {
		return nil
	}
	return *k.ring
}

// ParseKeys reads one to eight secrets, "whsec_" and standard base64, separated by commas
// or line ends. An error says which one is wrong, by its position, and nothing of its text.
func ParseKeys(text string) (Keys, error) {
	var keys [][]byte
	position := 0
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		position++
		key, err := parseKey(part)
		if err != nil {
			return Keys{}, fmt.Errorf("signing secret %d: %w", position, err)
		}
		if !contains(keys, key) {
			keys = append(keys, key)
		}
	}
	switch {
	case len(keys) == 0:
		return Keys{}, errors.New("want at least one signing secret (whsec_…), got none")
	case len(keys) > MaxKeys:
		return Keys{}, fmt.Errorf("want at most %d signing secrets, got %d", MaxKeys, len(keys))
	}
	return Keys{ring: &keys}, nil
}

func parseKey(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return nil, errors.New("want it to begin with whsec_, as the dashboard shows it")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("want standard base64 behind whsec_") // the library's error quotes a position, and we quote nothing
	}
	if len(key) < shortestKey || len(key) > longestKey {
		return nil, fmt.Errorf("want a key of %d to %d bytes, got %d", shortestKey, longestKey, len(key))
	}
	return key, nil
}

func contains(keys [][]byte, key []byte) bool {
	for _, known := range keys {
		if bytes.Equal(known, key) {
			return true
		}
	}
	return false
}

const redacted = "[redacted]"

// Format keeps the keys out of whatever fmt prints.
func (Keys) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(redacted)) }

// LogValue keeps the keys out of logs.
func (Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the keys out of JSON and the like.
func (Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Sign returns the three headers of a delivery of body, signed with the first key.
func (k Keys) Sign(id string, at time.Time, body []byte) http.Header {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signature := base64.StdEncoding.EncodeToString(mac(k.all()[0], id, timestamp, body))
	header := http.Header{}
	header.Set(headerID, id)
	header.Set(headerTimestamp, timestamp)
	header.Set(headerSignature, signatureVersion+signature)
	return header
}

// mac is HMAC-SHA256 over "id.timestamp.body" (Standard Webhooks, "Signature scheme").
func mac(key []byte, id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	// Writing to a hash never fails.
	_, _ = h.Write([]byte(id + "." + timestamp + "."))
	_, _ = h.Write(body)
	return h.Sum(nil)
}
