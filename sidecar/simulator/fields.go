package simulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

// deepest is how deep an order or a fixture may nest.
const deepest = 16

// object is a JSON object that somebody wrote, and the path to it. What its methods find
// wrong is kept in err; the first mistake counts, and wraps [ErrInvalid].
type object struct {
	path    string // "" or "permissions[3]."
	members strictjson.Object
	err     error
}

// parseObject reads a whole text that is one object and nothing else.
func parseObject(text []byte) *object {
	if err := strictjson.Check(text, deepest); err != nil {
		return &object{err: fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	return newObject("", text)
}

func newObject(path string, text []byte) *object {
	members, err := strictjson.Parse(text)
	o := &object{members: members}
	if path != "" {
		o.path = path + "."
	}
	switch {
	case err == nil:
	case path == "":
		o.err = fmt.Errorf("%w: %w", ErrInvalid, err)
	default:
		o.err = fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	return o
}

// fail keeps err, unless there was a mistake before.
func (o *object) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *object) wrong(key, want string, raw json.RawMessage) {
	o.fail(fmt.Errorf("%w: %s%s: want %s, got %s", ErrInvalid, o.path, key, want, strictjson.KindOf(raw)))
}

// only refuses members of other names: they are misspelled.
func (o *object) only(known ...string) {
	for key := range o.members {
		if !slices.Contains(known, key) {
			o.fail(fmt.Errorf("%w: %s%.60s: no such member; want %s", ErrInvalid, o.path, strconv.Quote(key), strings.Join(known, ", ")))
		}
	}
}

// read decodes a member into a pointer, and reports whether it is there.
func (o *object) read(key, want string, into any) bool {
	raw, ok := o.members[key]
	if !ok {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil || string(raw) == "null" {
		o.wrong(key, want, raw)
		return false
	}
	return true
}

// text returns a member that is a string; "" for none.
func (o *object) text(key string) string {
	var value string
	o.read(key, "a string", &value)
	return value
}

// given returns a member that is a string, or nil for none.
func (o *object) given(key string) *string {
	if _, ok := o.members[key]; !ok {
		return nil
	}
	value := o.text(key)
	return &value
}

// texts returns a member that is an array of strings; nil for none.
func (o *object) texts(key string) []string {
	var values []string
	raw := o.members[key]
	if o.read(key, "an array of strings", &values) && slices.Contains(elements(raw), "null") {
		o.wrong(key, "an array of strings", raw)
	}
	return values
}

// elements returns the JSON of the elements of an array.
func elements(raw json.RawMessage) []string {
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil {
		return nil
	}
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = string(part)
	}
	return texts
}

// truth returns a member that is a boolean; otherwise for none.
func (o *object) truth(key string, otherwise bool) bool {
	o.read(key, "true or false", &otherwise)
	return otherwise
}

// mostSeconds bounds a time in seconds: about a hundred years.
const mostSeconds = 100 * 366 * 24 * 60 * 60

// seconds returns a member that is a whole number of seconds; zero for none.
func (o *object) seconds(key string) time.Duration {
	var value int64
	if o.read(key, "a whole number of seconds", &value) && (value > mostSeconds || value < -mostSeconds) {
		o.wrong(key, "a whole number of seconds within a hundred years", o.members[key])
	}
	return time.Duration(value) * time.Second
}

// duration returns a member that is a text such as "500ms"; zero for none.
func (o *object) duration(key string) time.Duration {
	text := o.text(key)
	if text == "" {
		return 0
	}
	value, err := time.ParseDuration(text)
	if err != nil || value < 0 {
		o.wrong(key, `a time such as "500ms" or "2s"`, o.members[key])
	}
	return value
}

// objects returns the elements of a member that is an array of objects.
func (o *object) objects(key string) []*object {
	var parts []json.RawMessage
	o.read(key, "an array of objects", &parts)
	out := make([]*object, len(parts))
	for i, part := range parts {
		out[i] = newObject(fmt.Sprintf("%s%s[%d]", o.path, key, i), part)
	}
	return out
}

// require refuses an object without a member.
func (o *object) require(keys ...string) {
	for _, key := range keys {
		if _, ok := o.members[key]; !ok {
			o.fail(fmt.Errorf("%w: %s%s: want one, got none", ErrInvalid, o.path, key))
		}
	}
}
