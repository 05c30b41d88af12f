// Package strictjson reads the JSON of others so that no two readers can take it for
// different things. It refuses what encoding/json is lenient about (see [Check]), and its
// errors name the member, what was expected and what came, and never quote the text.
//
// The whole text is in memory; who calls bounds it.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Object holds the members of an object. A map keeps what encoding/json would fold into a
// struct's fields apart: "ID" is not "id".
//
// Its methods take the dotted path of a member for their errors; the last part is its key.
type Object map[string]json.RawMessage

// Parse reads one object. Its members are whatever encoding/json makes of them, so [Check]
// comes first.
func Parse(raw []byte) (Object, error) {
	var members Object
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, fmt.Errorf("want an object, got %s", KindOf(raw))
	}
	return members, nil
}

// last returns the last part of a dotted path, the member's own name.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// Object returns a member that is an object.
func (o Object) Object(path string) (Object, error) {
	members, err := Parse(o[last(path)])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return members, nil
}

// Text returns a member that is a string, and not an empty one.
func (o Object) Text(path string) (string, error) {
	raw := o[last(path)]
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil || *text == "" {
		return "", fmt.Errorf("%s: want a string that isn't empty, got %s", path, KindOf(raw))
	}
	return *text, nil
}

// OptionalText returns a member that is a string, or "" for one that is empty, null or none.
func (o Object) OptionalText(path string) (string, error) {
	raw, ok := o[last(path)]
	if !ok || string(raw) == "null" || string(raw) == `""` {
		return "", nil
	}
	return o.Text(path)
}

// OptionalBoolean returns a member that is true or false, or false for null or none.
func (o Object) OptionalBoolean(path string) (bool, error) {
	switch raw := o[last(path)]; string(raw) {
	case "true":
		return true, nil
	case "false", "null", "":
		return false, nil
	default:
		return false, fmt.Errorf("%s: want true or false, got %s", path, KindOf(raw))
	}
}

// KindOf names the type of a JSON value, with its article.
func KindOf(raw []byte) string {
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

// Check refuses what different readers read differently, beside what isn't JSON: invalid
// UTF-8, lone surrogates and a key twice in one object; and more than depth nested values.
// Its error never quotes the text.
func Check(body []byte, depth int) error {
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
	return checkValue(tokens, depth, depth)
}

func checkValue(tokens *json.Decoder, left, most int) error {
	token, err := tokens.Token()
	if err != nil {
		return errors.New("want one JSON value")
	}
	opening, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	if left == 0 {
		return fmt.Errorf("want at most %d nested values", most)
	}
	seen := map[string]bool{}
	for tokens.More() {
		if opening == '{' {
			if err := checkKey(tokens, seen); err != nil {
				return err
			}
		}
		if err := checkValue(tokens, left-1, most); err != nil {
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
