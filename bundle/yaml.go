package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"go.yaml.in/yaml/v3"
)

// refuseExpansion looks at the documents of a bundle before anything reads them, the digests
// of a signature included. A YAML alias repeats what it names, so that a small file may
// stand for any amount of memory. All of them count, since what isn't JSON is compared with a
// signature as YAML, whatever it is called.
func refuseExpansion(files []file, o LoadOptions) error {
	rest := o.MaxBytes
	for _, f := range files {
		if !opabundle.IsStructuredDoc(f.name) || json.Valid(f.content) {
			continue
		}
		if !bytes.ContainsRune(f.content, '*') {
			continue // without an alias
		}
		var document yaml.Node
		if yaml.Unmarshal(f.content, &document) != nil {
			continue // OPA's reader says what is wrong with it, by the same parser
		}
		size, err := expanded(&document, map[*yaml.Node]int64{}, o.MaxBytes)
		if err == nil && size > rest {
			err = tooLarge(o.MaxBytes)
		}
		if err != nil {
			return fmt.Errorf("%s: with what its aliases stand for, %w", display(o.Name, f.name), err)
		}
		rest -= size
	}
	return nil
}

// errLeadsBack is an alias within what it names.
var errLeadsBack = errors.New("it has no end")

// expanded is about how many bytes a node makes, and never much more than most. An alias
// comes behind what it names, whose size is known by then.
func expanded(node *yaml.Node, known map[*yaml.Node]int64, most int64) (int64, error) {
	if node.Kind == yaml.AliasNode {
		size, ok := known[node.Alias]
		if !ok {
			return 0, errLeadsBack
		}
		return size, nil
	}
	size := int64(len(node.Value)) + 1
	for _, child := range node.Content {
		more, err := expanded(child, known, most)
		if err != nil {
			return 0, err
		}
		size = min(size+more, most+1)
	}
	if node.Anchor != "" {
		known[node] = size
	}
	return size, nil
}
