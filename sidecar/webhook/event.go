package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	// MaxBody is the largest delivery, in bytes.
	MaxBody = 256 << 10
	// maxDepth is how deep a body's JSON may nest. Scalekit's own events nest twice.
	maxDepth = 32

	documentedSpecVersion = "1"
	documentedIDLength    = 32
	documentedNameLength  = 100
)

// delivery is what a verified body says. Kind is zero for an event that isn't a
// permission's: only its type and environment are known then.
type delivery struct {
	webhookID string // the header's, once it is verified; set by the receiver
	eventType string
	event     permission.Event
	// warnings name what isn't as documented and was taken all the same: a refused event is
	// retried, and then lost for ever.
	warnings []string
}

var kinds = map[string]permission.Kind{
	"permission.created": permission.Created,
	"permission.updated": permission.Updated,
	"permission.deleted": permission.Deleted,
}

// decode reads a body. Its error names the field, what was expected and what came; it
// never quotes the body.
func decode(body []byte) (delivery, error) {
	if err := checkJSON(body); err != nil {
		return delivery{}, err
	}
	top, err := object(body)
	if err != nil {
		return delivery{}, err
	}
	var d delivery
	if d.eventType, err = top.text("type"); err != nil {
		return delivery{}, err
	}
	if d.event.EnvironmentID, err = top.text("environment_id"); err != nil {
		return delivery{}, err
	}
	if d.event.Kind = kinds[d.eventType]; d.event.Kind == 0 {
		return d, nil
	}
	if err := d.readEvent(top); err != nil {
		return delivery{}, err
	}
	return d, nil
}

func (d *delivery) readEvent(top fields) (err error) {
	e := &d.event
	if e.ID, err = top.text("id"); err != nil {
		return err
	}
	occurredAt, err := top.text("occurred_at")
	if err != nil {
		return err
	}
	if e.OccurredAt, err = permission.ParseInstant(occurredAt); err != nil {
		return fmt.Errorf("occurred_at: %w", err)
	}
	data, err := top.object("data")
	if err != nil {
		return err
	}
	if e.PermissionID, err = data.text("data.id"); err != nil {
		return err
	}
	if e.Name, err = data.text("data.name"); err != nil {
		return err
	}
	if e.Description, err = data.optionalText("data.description"); err != nil {
		return err
	}
	if err := permission.CheckText("id", e.ID, 1, permission.MaxID); err != nil {
		return err
	}
	// The state, not the event: a deletion's description isn't kept, so one of any length
	// passes. A refused deletion would leave the permission alive for good.
	if err := e.State().Check(); err != nil {
		return fmt.Errorf("data.%w", err)
	}
	d.warn(top)
	return nil
}

func (d *delivery) warn(top fields) {
	if version, err := top.text("spec_version"); err != nil || version != documentedSpecVersion {
		d.warnings = append(d.warnings, "spec_version isn't 1")
	}
	if len(d.event.ID) > documentedIDLength || len(d.event.PermissionID) > documentedIDLength {
		d.warnings = append(d.warnings, fmt.Sprintf("an id is longer than %d bytes", documentedIDLength))
	}
	if len(d.event.Name) > documentedNameLength || strings.ContainsFunc(d.event.Name, undocumented) {
		d.warnings = append(d.warnings, fmt.Sprintf("data.name isn't of up to %d characters of [a-zA-Z0-9_:]", documentedNameLength))
	}
}

func undocumented(r rune) bool {
	letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
	return !letter && (r < '0' || r > '9') && r != '_' && r != ':'
}

// fields are the members of an object. A map keeps what encoding/json would fold into a
// struct's fields apart: "ID" is not "id".
type fields map[string]json.RawMessage

func object(raw []byte) (fields, error) {
	var members fields
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, fmt.Errorf("want an object, got %s", kindOf(raw))
	}
	return members, nil
}

// last returns the last part of a dotted path, the member's own name.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func (f fields) object(path string) (fields, error) {
	members, err := object(f[last(path)])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return members, nil
}

func (f fields) text(path string) (string, error) {
	raw := f[last(path)]
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil || *text == "" {
		return "", fmt.Errorf("%s: want a string that isn't empty, got %s", path, kindOf(raw))
	}
	return *text, nil
}

func (f fields) optionalText(path string) (string, error) {
	raw, ok := f[last(path)]
	if !ok || string(raw) == "null" || string(raw) == `""` {
		return "", nil
	}
	return f.text(path)
}

// kindOf names the type of a JSON value, with its article.
func kindOf(raw []byte) string {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return "none"
	}
	if string(raw) == `""` {
		return "an empty one"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// checkJSON refuses what different readers read differently, beside what isn't JSON:
// invalid UTF-8, lone surrogates, a key twice in one object, and deep nesting.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("want UTF-8")
	}
	if !json.Valid(body) {
		return errors.New("want one JSON value")
	}
	if hasLoneSurrogate(body) {
		return errors.New("want escaped surrogates in pairs")
	}
	tokens := json.NewDecoder(bytes.NewReader(body))
	tokens.UseNumber()
	return checkValue(tokens, 0)
}

func checkValue(tokens *json.Decoder, depth int) error {
	token, err := tokens.Token()
	if err != nil {
		return errors.New("want one JSON value")
	}
	opening, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("want at most %d nested values", maxDepth)
	}
	seen := map[string]bool{}
	for tokens.More() {
		if opening == '{' {
			if err := checkKey(tokens, seen); err != nil {
				return err
			}
		}
		if err := checkValue(tokens, depth+1); err != nil {
			return err
		}
	}
	if _, err := tokens.Token(); err != nil && !errors.Is(err, io.EOF) { // the closing one
		return errors.New("want one JSON value")
	}
	return nil
}

func checkKey(tokens *json.Decoder, seen map[string]bool) error {
	token, err := tokens.Token()
	key, ok := token.(string)
	if err != nil || !ok {
		return errors.New("want one JSON value")
	}
	if seen[key] {
		return errors.New("want each key once in an object")
	}
	seen[key] = true
	return nil
}

// hasLoneSurrogate looks for half of a pair of \u escapes, which encoding/json would
// replace and so make two names one. body is valid JSON.
func hasLoneSurrogate(body []byte) bool {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		i++ // the escaped character
		if body[i] != 'u' || !isSurrogate(body[i+1:]) {
			continue
		}
		low := body[i+5:]
		if !isHighSurrogate(body[i+1:]) || len(low) < 6 || low[0] != '\\' || low[1] != 'u' || !isSurrogate(low[2:]) || isHighSurrogate(low[2:]) {
			return true
		}
		i += 10 // to the pair's last digit
	}
	return false
}

func isSurrogate(digits []byte) bool {
	return (digits[0] == 'd' || digits[0] == 'D') && (digits[1] > '7')
}

func isHighSurrogate(digits []byte) bool {
	return isSurrogate(digits) && strings.IndexByte("89abAB", digits[1]) >= 0
}
