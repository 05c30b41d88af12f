package authz

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Limits of a question's JSON, beside its size.
const (
	maxDepth        = 64  // nested arrays and objects
	maxNumberLength = 64  // characters of one number
	maxExponent     = 400 // beyond float64's range; a larger one would cost OPA memory without bound
	// maxMembers bounds one object. OPA's objects are hash maps whose hash knows no secret, so
	// that whoever writes the keys can make all of them collide.
	maxMembers = 1000
	// maxValues bounds the values of a question: each takes some 200 bytes once it is read,
	// and may be written in two.
	maxValues = 50_000
)

// parseJSON reads exactly one JSON value into OPA's representation, which saves the
// detour over Go maps. It is stricter than RFC 8259, in the way of I-JSON (RFC 7493): no
// duplicate keys, no invalid UTF-8, no lone surrogates. What it takes means the same to
// encoding/json. Strings of the value share text's memory.
func parseJSON(text string) (ast.Value, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("want UTF-8")
	}
	p := jsonParser{text: text}
	p.skipSpace()
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.skipSpace()
	if p.at != len(text) {
		return nil, p.errorf("want one JSON value, got more after it")
	}
	return value, nil
}

type jsonParser struct {
	text   string
	at     int
	values int // read so far

	// Half of the cost of reading is finding memory for many small things, so they share it.
	terms    []ast.Term     // the next ones to be given out
	elements []*ast.Term    // of the arrays that are being read, an inner one's behind an outer one's
	members  [][2]*ast.Term // of the objects that are being read
}

// termsAtOnce is how many terms are made together: a question of some size has about as many.
const termsAtOnce = 16

func (p *jsonParser) term(value ast.Value) *ast.Term {
	if len(p.terms) == 0 {
		p.terms = make([]ast.Term, termsAtOnce)
	}
	t := &p.terms[0]
	t.Value, p.terms = value, p.terms[1:]
	return t
}

// keyTerm returns the term of an object's key; those of the information model are made once.
func (p *jsonParser) keyTerm(key string) *ast.Term {
	if known := knownKeys[key]; known != nil {
		return known
	}
	return p.term(ast.String(key))
}

func (p *jsonParser) errorf(format string, arguments ...any) error {
	return fmt.Errorf("at byte %d: %s", p.at, fmt.Sprintf(format, arguments...))
}

// peek returns the next byte, or zero, which stands nowhere in JSON, at the end.
func (p *jsonParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *jsonParser) skipSpace() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *jsonParser) value(depth int) (ast.Value, error) {
	if p.values++; p.values > maxValues {
		return nil, p.errorf("want at most %d values", maxValues)
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth + 1)
	case c == '[':
		return p.array(depth + 1)
	case c == '"':
		text, err := p.string()
		return ast.String(text), err
	case c == '-' || (c >= '0' && c <= '9'):
		return p.number()
	case c == 't':
		return ast.Boolean(true), p.literal("true")
	case c == 'f':
		return ast.Boolean(false), p.literal("false")
	case c == 'n':
		return ast.NullValue, p.literal("null")
	}
	return nil, p.errorf("want a JSON value")
}

func (p *jsonParser) literal(word string) error {
	if len(p.text)-p.at < len(word) || p.text[p.at:p.at+len(word)] != word {
		return p.errorf("want %s", word)
	}
	p.at += len(word)
	return nil
}

// open consumes the bracket that begins an object or an array and reports whether it is
// empty, in which case the closing one is consumed, too.
func (p *jsonParser) open(closing byte, depth int) (empty bool, err error) {
	if depth > maxDepth {
		return false, p.errorf("want at most %d nested values", maxDepth)
	}
	p.at++
	p.skipSpace()
	if p.peek() == closing {
		p.at++
		return true, nil
	}
	return false, nil
}

// next consumes what stands behind an element and reports whether another one follows.
func (p *jsonParser) next(closing byte) (more bool, err error) {
	p.skipSpace()
	switch p.peek() {
	case ',':
		p.at++
		p.skipSpace()
		return true, nil
	case closing:
		p.at++
		return false, nil
	}
	return false, p.errorf("want ',' or '%c'", closing)
}

func (p *jsonParser) object(depth int) (ast.Value, error) {
	empty, err := p.open('}', depth)
	if err != nil || empty {
		return ast.NewObject(), err
	}
	outer := len(p.members)
	var seen keySet
	for more := true; more; {
		key, value, err := p.member(depth)
		if err != nil {
			return nil, err
		}
		if !seen.add(key, p.members[outer:]) {
			return nil, p.errorf("want each key once in an object, got %.40q again", key)
		}
		p.members = append(p.members, [2]*ast.Term{p.keyTerm(key), p.term(value)})
		if len(p.members)-outer > maxMembers {
			return nil, p.errorf("want at most %d members in an object", maxMembers)
		}
		if more, err = p.next('}'); err != nil {
			return nil, err
		}
	}
	object := ast.NewObject(p.members[outer:]...)
	p.members = p.members[:outer]
	return object, nil
}

// fewKeys are compared one by one; more go into a map, whose hash knows a secret.
const fewKeys = 16

// keySet tells whether a key of an object came before.
type keySet map[string]struct{}

// add reports false if key is among the members already, all of which were added.
func (s *keySet) add(key string, members [][2]*ast.Term) bool {
	if len(members) < fewKeys {
		return !slices.ContainsFunc(members, func(m [2]*ast.Term) bool { return m[0].Value.(ast.String) == ast.String(key) })
	}
	if *s == nil {
		*s = make(keySet, 2*fewKeys)
		for _, m := range members {
			(*s)[string(m[0].Value.(ast.String))] = struct{}{}
		}
	}
	_, known := (*s)[key]
	(*s)[key] = struct{}{}
	return !known
}

func (p *jsonParser) member(depth int) (key string, value ast.Value, err error) {
	if p.peek() != '"' {
		return "", nil, p.errorf("want a key in quotes")
	}
	if key, err = p.string(); err != nil {
		return "", nil, err
	}
	p.skipSpace()
	if p.peek() != ':' {
		return "", nil, p.errorf("want ':'")
	}
	p.at++
	p.skipSpace()
	value, err = p.value(depth)
	return key, value, err
}

func (p *jsonParser) array(depth int) (ast.Value, error) {
	empty, err := p.open(']', depth)
	if err != nil || empty {
		return ast.NewArray(), err
	}
	outer := len(p.elements)
	for more := true; more; {
		value, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		p.elements = append(p.elements, p.term(value))
		if more, err = p.next(']'); err != nil {
			return nil, err
		}
	}
	array := ast.NewArray(slices.Clone(p.elements[outer:])...)
	p.elements = p.elements[:outer]
	return array, nil
}

// string reads a string from its opening quote on.
func (p *jsonParser) string() (string, error) {
	start := p.at + 1
	for i := start; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			p.at = i + 1
			return p.text[start:i], nil
		case c == '\\':
			p.at = i
			return p.escapedString([]byte(p.text[start:i]))
		case c < 0x20:
			p.at = i
			return "", p.errorf("want control characters in strings escaped")
		}
	}
	p.at = len(p.text)
	return "", p.errorf("want the end of a string")
}

// escapedString goes on with a string from its first backslash on.
func (p *jsonParser) escapedString(read []byte) (string, error) {
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return string(read), nil
		case c < 0x20:
			return "", p.errorf("want control characters in strings escaped")
		case c != '\\':
			read = append(read, c)
			p.at++
			continue
		}
		r, err := p.escape()
		if err != nil {
			return "", err
		}
		read = utf8.AppendRune(read, r)
	}
	return "", p.errorf("want the end of a string")
}

const simpleEscapes = `"\/bfnrt`

var simpleEscaped = [len(simpleEscapes)]rune{'"', '\\', '/', '\b', '\f', '\n', '\r', '\t'}

func (p *jsonParser) escape() (rune, error) {
	p.at++ // the backslash
	c := p.peek()
	for i := range len(simpleEscapes) {
		if simpleEscapes[i] == c {
			p.at++
			return simpleEscaped[i], nil
		}
	}
	if c != 'u' {
		return 0, p.errorf("want an escape sequence of JSON")
	}
	first, err := p.hexRune()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if p.peek() != '\\' || p.at+1 >= len(p.text) || p.text[p.at+1] != 'u' {
		return 0, p.errorf("want surrogates in pairs")
	}
	p.at++
	second, err := p.hexRune()
	if err != nil {
		return 0, err
	}
	r := utf16.DecodeRune(first, second)
	if r == utf8.RuneError {
		return 0, p.errorf("want surrogates in pairs")
	}
	return r, nil
}

// hexRune reads the u of an escape and its four digits.
func (p *jsonParser) hexRune() (rune, error) {
	if len(p.text)-p.at < 5 {
		return 0, p.errorf("want four hexadecimal digits")
	}
	digits := p.text[p.at+1 : p.at+5]
	n, err := strconv.ParseUint(digits, 16, 16)
	if err != nil {
		return 0, p.errorf("want four hexadecimal digits")
	}
	p.at += 5
	return rune(n), nil
}

// number reads a number and keeps its text, as OPA does.
func (p *jsonParser) number() (ast.Value, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	integer := p.at
	if p.digits() == 0 || (p.text[integer] == '0' && p.at-integer > 1) {
		return nil, p.errorf("want a number of JSON")
	}
	if p.peek() == '.' {
		p.at++
		if p.digits() == 0 {
			return nil, p.errorf("want digits after the decimal point")
		}
	}
	if err := p.exponent(); err != nil {
		return nil, err
	}
	if p.at-start > maxNumberLength {
		return nil, p.errorf("want numbers of at most %d characters", maxNumberLength)
	}
	return ast.Number(json.Number(p.text[start:p.at])), nil
}

func (p *jsonParser) exponent() error {
	if c := p.peek(); c != 'e' && c != 'E' {
		return nil
	}
	p.at++
	if c := p.peek(); c == '+' || c == '-' {
		p.at++
	}
	start := p.at
	if p.digits() == 0 {
		return p.errorf("want digits in the exponent")
	}
	if n, err := strconv.Atoi(p.text[start:p.at]); err != nil || n > maxExponent {
		return p.errorf("want an exponent of at most %d", maxExponent)
	}
	return nil
}

func (p *jsonParser) digits() (count int) {
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.at++
		count++
	}
	return count
}
