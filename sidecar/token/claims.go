package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

const (
	headerDepth  = 4  // nested values in a header
	claimsDepth  = 32 // and in the claims
	longestKeyID = 256
)

// header is what a token says of its signature.
type header struct {
	algorithm jose.SignatureAlgorithm
	keyID     string // empty when it names none
}

// refusedMembers of a header bring a key along, or change what is signed. None is ever
// needed, and each was a way around a verifier before (RFC 8725, sections 2.1 and 3.5).
var refusedMembers = []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"}

// tokenAlphabet is that of base64url (RFC 4648, section 5), and the dots between the parts.
const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

var errHeader = errors.New("the header isn't that of an access token")

// readHeader reads the header of a token in the compact form, strictly: a member that comes
// twice means one thing to one reader and another thing to the next.
func readHeader(raw string) (h header, err error) {
	// Decoders skip line breaks, and bits behind the last byte, so that one token could be written
	// in many ways, each of them another hash to remember. What stands before the signature is
	// signed as it is written.
	if strings.ContainsFunc(raw, func(r rune) bool { return !strings.ContainsRune(tokenAlphabet, r) }) {
		return h, errHeader
	}
	parts := strings.SplitN(raw, ".", 4)
	if len(parts) != 3 {
		return h, errHeader
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	if err != nil {
		return h, errHeader
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return h, errHeader
	}
	if err := strictjson.Check(text, headerDepth); err != nil {
		return h, err
	}
	members, err := strictjson.Parse(text)
	if err != nil {
		return h, err
	}
	for _, name := range refusedMembers {
		if _, there := members[name]; there {
			return h, errHeader
		}
	}
	algorithm, err := members.Text("alg")
	if err != nil {
		return h, err
	}
	h.algorithm = jose.SignatureAlgorithm(algorithm)
	if h.keyID, err = members.OptionalText("kid"); err == nil && len(h.keyID) > longestKeyID {
		err = errHeader
	}
	return h, err
}

// judgeClaims checks what a signed payload says, and returns until when that holds. A token
// without exp would hold for ever and is refused.
func (v *Verifier[C]) judgeClaims(payload []byte) (expires time.Time, code string) {
	if strictjson.Check(payload, claimsDepth) != nil {
		return expires, CodeInvalid
	}
	claims, err := strictjson.Parse(payload)
	if err != nil {
		return expires, CodeInvalid
	}
	issuer, err1 := claims.Text("iss")
	subject, err2 := claims.Text("sub")
	audiences, err3 := readAudiences(claims["aud"])
	exp, err4 := readTime(claims["exp"])
	notBefore, err5 := optionalTime(claims["nbf"])
	issuedAt, err6 := optionalTime(claims["iat"])
	if errors.Join(err1, err2, err3, err4, err5, err6) != nil || subject == "" {
		return expires, CodeInvalid
	}
	now, leeway := v.config.Now(), v.config.Leeway
	expires = exp.Add(leeway)
	switch {
	case issuer != v.config.Issuer:
		return expires, CodeWrongIssuer
	case !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(v.config.Audiences, a) }):
		return expires, CodeWrongAudience
	case !now.Before(expires):
		return expires, CodeExpired
	case now.Add(leeway).Before(notBefore), now.Add(leeway).Before(issuedAt):
		return expires, CodeNotYetValid
	}
	return expires, ""
}

// readAudiences reads aud, a string or an array of strings (RFC 7519, section 4.1.3).
func readAudiences(raw json.RawMessage) (audiences []string, err error) {
	var one *string
	if json.Unmarshal(raw, &one) == nil && one != nil {
		return []string{*one}, nil
	}
	var several []*string
	if err := json.Unmarshal(raw, &several); err != nil {
		return nil, err
	}
	for _, a := range several {
		if a == nil {
			return nil, errors.New("aud: want strings")
		}
		audiences = append(audiences, *a)
	}
	return audiences, nil
}

// latestTime is beyond every token, in seconds; time.Time and floats can hold it.
const latestTime = 1 << 40

var errTime = errors.New("want a number of seconds")

// readTime reads a NumericDate: seconds since 1970, fractions allowed (RFC 7519, section 2).
// A time far away is as good as the end of what can be told.
func readTime(raw json.RawMessage) (time.Time, error) {
	if len(raw) == 0 || (raw[0] != '-' && (raw[0] < '0' || raw[0] > '9')) { // "1e3", in quotes, is a string
		return time.Time{}, errTime
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if (err != nil && !errors.Is(err, strconv.ErrRange)) || math.IsNaN(seconds) {
		return time.Time{}, errTime
	}
	seconds = min(max(seconds, 0), latestTime)
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// optionalTime returns the earliest time for one that isn't told.
func optionalTime(raw json.RawMessage) (time.Time, error) {
	if raw == nil {
		return time.Time{}, nil
	}
	return readTime(raw)
}
