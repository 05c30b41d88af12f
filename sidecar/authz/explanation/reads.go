package explanation

import (
	"context"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// recorder is a store that notes what is read from it. It serves one evaluation.
type recorder struct {
	storage.Store
	list   []Read
	at     map[string]sight // by path
	cutOff bool
}

// sight is what stands at a path.
type sight struct {
	value   ast.Value // nil: nothing, or what it is isn't known
	defined bool
}

func newRecorder(store storage.Store) *recorder {
	return &recorder{Store: store, at: map[string]sight{}}
}

// forget drops what was read so far.
func (r *recorder) forget() {
	r.list, r.at, r.cutOff = nil, map[string]sight{}, false
}

// Read reads, and notes what came.
func (r *recorder) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	value, err := r.Store.Read(ctx, txn, path)
	shown := ""
	switch {
	case err == nil:
	case storage.IsNotFound(err):
		shown = outcomeUndefined
	default:
		shown = "could not be read"
	}
	r.note(path, value, shown)
	return value, err
}

func (r *recorder) note(path storage.Path, value any, shown string) {
	key := path.String()
	if _, known := r.at[key]; known {
		return
	}
	if len(r.list) == maxReads {
		r.cutOff = true
		return
	}
	read, ok := converted(value)
	r.at[key] = sight{read, shown == ""}
	if shown == "" {
		shown = ellipsis // OPA's own store hands out what isn't converted yet
		if ok {
			shown = show(read)
		}
	}
	r.list = append(r.list, Read{Path: printable(dataPath(path), maxValue), Value: shown})
}

// converted returns what a store handed out as a value, unless the conversion's cost would grow
// with it.
func converted(value any) (ast.Value, bool) {
	switch v := value.(type) {
	case ast.Value:
		return v, true
	case map[string]any, []any:
		return nil, false
	case nil:
		return nil, false // nothing was found
	}
	read, err := ast.InterfaceToValue(value)
	return read, err == nil
}

// dataPath spells a path as Rego does.
func dataPath(path storage.Path) string {
	var b strings.Builder
	b.WriteString("data")
	for _, segment := range path {
		writeSegment(&b, segment)
	}
	return b.String()
}

func writeSegment(b *strings.Builder, segment string) {
	if ast.IsVarCompatibleString(segment) && !ast.IsKeyword(segment) {
		b.WriteString("." + segment)
		return
	}
	b.WriteString("[" + strconv.Quote(segment[:min(len(segment), maxValue)]) + "]")
}

// find returns what was read at a ground reference below data. It knows nothing of what
// wasn't read.
func (r *recorder) find(ref ast.Ref) (value ast.Value, defined, known bool) {
	path := make(storage.Path, 0, len(ref)-1)
	for _, term := range ref[1:] {
		segment, ok := term.Value.(ast.String)
		if !ok {
			return nil, false, false
		}
		path = append(path, string(segment))
	}
	for n := len(path); n >= 0; n-- {
		read, ok := r.at[path[:n].String()]
		if !ok {
			continue
		}
		if !read.defined || read.value == nil {
			return nil, false, !read.defined
		}
		found, err := read.value.Find(ref[1+n:])
		return found, err == nil, true
	}
	return nil, false, false
}
