package bundle_test

import (
	"bytes"
	"strings"
	"testing"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/postern-authz/postern/bundle"
)

// OPA reads what is streamed, equal files make equal bytes, and a file that isn't as long as
// announced is an error.
func TestWriteStreams(t *testing.T) {
	stream := func(name, content string, size int64) bundle.Stream {
		return bundle.Stream{Name: name, Size: size, Content: strings.NewReader(content)}
	}
	var archives [2]bytes.Buffer
	for i := range archives {
		err := bundle.WriteStreams(&archives[i], stream(".manifest", `{"revision":"7","roots":["a"]}`, 30), stream("data.json", `{"a":{"b":1}}`, 13))
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("equal files make other bytes")
	}
	read, err := opabundle.NewReader(&archives[0]).Read()
	if err != nil || read.Manifest.Revision != "7" || len(read.Data) != 1 {
		t.Errorf("got %+v, %v", read, err)
	}
	for _, size := range []int64{12, 14} {
		if err := bundle.WriteStreams(&archives[0], stream("data.json", `{"a":{"b":1}}`, size)); err == nil || !strings.Contains(err.Error(), "data.json") {
			t.Errorf("of %d bytes: got %v", size, err)
		}
	}
}
