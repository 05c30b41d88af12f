package bundle_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-authz/postern/bundle"
)

// A small document can't stand for much memory, neither before nor after its signature was
// looked at. It would take gigabytes here.
func TestLoadRefusesYAMLThatExpands(t *testing.T) {
	long := "a: &a " + strings.Repeat("x", 100_000) + "\nb: [" + strings.Repeat("*a,", 20_000) + "]\n"
	for name, test := range map[string]struct{ file, content, want string }{
		"aliases":        {"d/data.yaml", long, "d/data.yaml: with what its aliases stand for, the bundle is larger than"},
		"nested aliases": {"d/data.yml", "a: &a [" + strings.Repeat("xxxxxxxxxx,", 1000) + "]\nb: &b [" + strings.Repeat("*a,", 1000) + "]\nc: [" + strings.Repeat("*b,", 1000) + "]\n", "larger than"},
		"by merging":     {"d/data.yaml", "a: &a {k: " + strings.Repeat("x", 1<<20) + "}\n" + strings.Repeat("b: {<<: *a}\n", 64), "larger than"},
		"leading back":   {"d/data.yaml", "a: &a [*a]\n", "it has no end"},
		"called JSON":    {"d/data.json", long, "larger than"},
		"in a manifest":  {".manifest", long, "larger than"},
		"few aliases":    {"d/data.yaml", "a: &a [x, y]\nb: *a\nc: {<<: &m {k: '*'}, l: 1}\nd: *m\n", ""},
	} {
		var archive bytes.Buffer
		if err := bundle.WriteArchive(&archive, []bundle.File{
			{Name: "authz.rego", Content: []byte("package authz\n\ndecision := true\n")}, {Name: test.file, Content: []byte(test.content)},
		}); err != nil {
			t.Fatal(err)
		}
		_, err := bundle.LoadArchive(t.Context(), &archive, bundle.LoadOptions{Name: "x"})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %.300v, want %q", name, err, test.want)
		}
	}
}
