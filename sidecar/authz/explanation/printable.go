package explanation

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// ellipsis stands for what was cut.
const ellipsis = "…"

// printable returns text on one line of at most about most bytes: runs of white space become
// one space, and what can't be printed is escaped, terminal and direction controls among it.
func printable(text string, most int) string {
	var b strings.Builder
	spaced := false
	for i, r := range text {
		if r == ' ' || r == '\t' || r == '\n' || r == '\r' {
			spaced = b.Len() > 0
			continue
		}
		if b.Len() >= most {
			b.WriteString(ellipsis)
			break
		}
		if spaced {
			b.WriteByte(' ')
			spaced = false
		}
		writeRune(&b, text[i:], r)
	}
	return b.String()
}

// writeRune writes r, which text begins with, or an escape for it.
func writeRune(b *strings.Builder, text string, r rune) {
	size := utf8.RuneLen(r)
	if r == utf8.RuneError && !strings.HasPrefix(text, string(utf8.RuneError)) {
		size = 1 // a byte that isn't UTF-8
	}
	if size > 1 && strconv.IsPrint(r) || r < utf8.RuneSelf && strconv.IsPrint(r) {
		b.WriteRune(r)
		return
	}
	quoted := strconv.Quote(text[:size])
	b.WriteString(quoted[1 : len(quoted)-1])
}

// place returns where a node of a policy stands, as file:line.
func place(l *ast.Location) string {
	if l == nil {
		return ""
	}
	file := l.File
	if file == "" {
		file = "query"
	}
	if len(file) > maxPlace { // a name tells more by its end
		file = ellipsis + strings.ToValidUTF8(file[len(file)-maxPlace:], "")
	}
	return printable(file, maxPlace+len(ellipsis)) + ":" + strconv.Itoa(l.Row)
}

// rendering writes a value as Rego, up to a limit.
type rendering struct {
	b    strings.Builder
	most int
}

// show returns the value as Rego, cut to about maxValue bytes.
func show(value ast.Value) string {
	r := rendering{most: maxValue}
	if !r.value(value, 0) {
		r.b.WriteString(ellipsis)
	}
	return r.b.String()
}

// text writes text unless that is beyond the limit, and reports whether it wasn't.
func (r *rendering) text(text string) bool {
	if r.b.Len()+len(text) > r.most {
		return false
	}
	r.b.WriteString(text)
	return true
}

const maxNesting = 16 // of values that are shown

func (r *rendering) value(value ast.Value, depth int) bool {
	if depth > maxNesting {
		return false
	}
	switch v := value.(type) {
	case ast.String:
		return r.string(string(v))
	case *ast.Array:
		return r.sequence("[", "]", v.Len(), func(i int) bool { return r.value(v.Elem(i).Value, depth+1) })
	case ast.Set:
		if v.Len() == 0 {
			return r.text("set()")
		}
		elements := v.Slice()
		return r.sequence("{", "}", len(elements), func(i int) bool { return r.value(elements[i].Value, depth+1) })
	case ast.Object:
		return r.object(v, depth)
	case ast.Null, ast.Boolean, ast.Number:
		return r.text(printable(v.String(), r.most))
	}
	return r.text(ellipsis) // nothing that a question or a document can hold
}

// string quotes text: as much of it as there is room for.
func (r *rendering) string(text string) bool {
	quoted := strconv.Quote(text[:min(len(text), r.most+1)])
	if len(text) <= r.most && r.text(quoted) {
		return true
	}
	var b strings.Builder
	for i, c := range text {
		if r.b.Len()+b.Len()+2 >= r.most {
			break
		}
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		writeRune(&b, text[i:], c)
	}
	r.b.WriteString(`"` + b.String())
	return false
}

func (r *rendering) sequence(opening, closing string, n int, element func(int) bool) bool {
	if !r.text(opening) {
		return false
	}
	for i := range n {
		if i > 0 && !r.text(", ") {
			return false
		}
		if !element(i) {
			return false
		}
	}
	return r.text(closing)
}

func (r *rendering) object(v ast.Object, depth int) bool {
	keys := v.KeysIterator()
	return r.sequence("{", "}", v.Len(), func(int) bool {
		key, more := keys.Next()
		if !more {
			return true
		}
		return r.value(key.Value, depth+1) && r.text(": ") && r.value(v.Get(key).Value, depth+1)
	})
}
