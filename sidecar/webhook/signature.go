package webhook

import (
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks v1.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"

	signatureVersion = "v1,"
)

const (
	// tolerance is how far a delivery's timestamp may be from now, both ways; exactly so
	// far passes. A retry gets a new timestamp, so it says nothing of the event's age.
	tolerance       = 300 * time.Second
	maxSignatures   = 16
	maxWebhookID    = 256
	longestTimespan = 12 // digits of a Unix time in seconds: enough for 30,000 years
)

// Reasons why a signature isn't accepted. None of them tells a sender more than it knows.
var (
	// ErrHeadersMissing: one of the three headers isn't there.
	ErrHeadersMissing = errors.New("want the headers webhook-id, webhook-timestamp and webhook-signature (Standard Webhooks)")
	// ErrHeadersMalformed: a header is there twice, or isn't what Standard Webhooks says.
	ErrHeadersMalformed = errors.New("want one webhook-id of visible ASCII without a full stop, one webhook-timestamp in Unix seconds, and at most 16 signatures v1,… in webhook-signature")
	// ErrOutsideWindow: the timestamp is more than 300 s from now.
	ErrOutsideWindow = errors.New("webhook-timestamp is more than 300 seconds from this machine's clock")
	// ErrMismatch: no signature was made with a live key over these bytes.
	ErrMismatch = errors.New("no signature in webhook-signature matches: check that the signing secret is that of this endpoint")
)

// errMisleading is ErrHeadersMissing for those who followed a guide that shows a header
// that no SDK of Scalekit's sends.
var errMisleading = errors.New("scalekit-signature and t=…,v1=… aren't what Scalekit's SDKs send: " + ErrHeadersMissing.Error())

// claim is what the headers of a delivery say, before it is known whether it is true.
type claim struct {
	id, timestamp string
	signatures    [][]byte
	receivedAt    time.Time // by this machine's clock
}

// readClaim checks all that can be checked without the body, and so without a MAC.
func readClaim(header http.Header, now time.Time) (claim, error) {
	ids, timestamps := header.Values(headerID), header.Values(headerTimestamp)
	signatures := strings.Join(header.Values(headerSignature), " ")
	if len(ids) == 0 || len(timestamps) == 0 || signatures == "" {
		if header.Get("scalekit-signature") != "" {
			return claim{}, errMisleading
		}
		return claim{}, ErrHeadersMissing
	}
	if strings.HasPrefix(signatures, "t=") {
		return claim{}, errMisleading
	}
	if len(ids) != 1 || len(timestamps) != 1 || !validID(ids[0]) {
		return claim{}, ErrHeadersMalformed
	}
	if err := checkTimestamp(timestamps[0], now); err != nil {
		return claim{}, err
	}
	parsed, err := readSignatures(signatures)
	return claim{ids[0], timestamps[0], parsed, now}, err
}

// validID refuses a full stop, which ends the id in what is signed: the place of the next
// part could be moved otherwise.
func validID(id string) bool {
	if id == "" || len(id) > maxWebhookID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '.' {
			return false
		}
	}
	return true
}

func checkTimestamp(text string, now time.Time) error {
	if len(text) > longestTimespan || strings.Trim(text, "0123456789") != "" {
		return ErrHeadersMalformed
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // an empty one
		return ErrHeadersMalformed
	}
	// Whole seconds, as the timestamp has them: exactly 300 of them pass.
	away, most := now.Unix()-seconds, int64(tolerance/time.Second)
	switch {
	case away > most:
		return fmt.Errorf("%w: %d seconds behind it", ErrOutsideWindow, away)
	case away < -most:
		return fmt.Errorf("%w: %d seconds ahead of it", ErrOutsideWindow, -away)
	}
	return nil
}

// readSignatures returns the MACs of version 1 and skips what isn't one.
func readSignatures(text string) (signatures [][]byte, err error) {
	// A space separates entries, and no other white space does (Standard Webhooks, "Signature
	// scheme").
	entries := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' })
	if len(entries) > maxSignatures {
		return nil, ErrHeadersMalformed
	}
	for _, entry := range entries {
		encoded, ok := strings.CutPrefix(entry, signatureVersion)
		if !ok {
			continue
		}
		signature, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil || base64.StdEncoding.EncodedLen(len(signature)) != len(encoded) { // the decoder skips line ends
			continue // matches nothing, and its neighbors may still match
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) == 0 {
		return nil, ErrHeadersMalformed
	}
	return signatures, nil
}

// verify reports ErrMismatch unless one of the signatures was made with one of the keys.
// It compares in constant time.
func (c claim) verify(keys Keys, body []byte) error {
	for _, key := range keys.all() {
		expected := mac(key, c.id, c.timestamp, body)
		for _, signature := range c.signatures {
			if hmac.Equal(expected, signature) {
				return nil
			}
		}
	}
	return ErrMismatch
}
