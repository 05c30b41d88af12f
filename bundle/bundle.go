// Package bundle turns OPA bundles into policies: bytes in, one validated and strictly
// compiled policy out.
//
// Invariants:
//
//   - Nothing is half loaded: there is a [Bundle] or an error that names file and line,
//     and a [Policy] or an error.
//   - No bundle claims a root of data that the sidecar writes, scalekit or postern, by
//     data, manifest or package.
//   - A policy reaches neither network nor files nor the process environment, unless the
//     operator allowed the builtin that does. Neither does compiling it.
//   - Equal files make an equal revision.
//   - With keys to verify by, nothing of a bundle counts that one of them didn't sign.
//
// It refuses WebAssembly and delta bundles, Rego v0, signed bundles that it has no key
// for, and whatever is larger than its limits.
package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// maxRevision is the longest revision that a manifest may give, in bytes: it is told
// with each decision.
const maxRevision = 256

// LoadOptions say how to read a policy tree. The zero value reads with the defaults.
type LoadOptions struct {
	Name     string // goes before the names of files in errors, such as the directory; may be empty
	MaxBytes int64  // of all files together; 0: 32 MiB
	MaxFiles int    // entries of all directories together, read or not; 0: 10,000

	Verification *Verification // the keys of signatures; nil: a signed bundle is refused
	Tests        bool          // keeps Rego tests (_test.rego), which don't count for the revision
}

func (o LoadOptions) withDefaults() LoadOptions {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = defaultMaxFiles
	}
	return o
}

// Bundle is a policy tree that was read, parsed and found to be in order. It isn't
// changed after [Load], and may be compiled several times at once.
type Bundle struct {
	name     string
	contents opabundle.Bundle
	revision string
	roots    []string
}

// Load reads a policy tree as an OPA bundle: .rego files, data.json, data.yaml and
// data.yml below the directory that names their place in data, and an optional
// .manifest. Passed over are Rego tests (_test.rego), other files, and names that begin
// with a dot, among them the ..data of a Kubernetes ConfigMap, whose files are read
// through the symbolic links beside it.
//
// An error tells of every file that can't be parsed, as name:line.
func Load(ctx context.Context, fsys fs.FS, o LoadOptions) (*Bundle, error) {
	return Source{FS: fsys}.Load(ctx, o)
}

// assemble makes a bundle of files that were read, bounded and verified, sorted by name. It
// is the one way from files to a bundle.
func assemble(files []file, o LoadOptions) (*Bundle, error) {
	files, err := o.chosen(files)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	if files, err = withPlainManifest(files, o.Name); err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	contents, err := opabundle.NewCustomReader(&fileLoader{rest: files}).
		WithBaseDir(o.Name).
		WithRegoVersion(ast.RegoV1).
		WithProcessAnnotations(true).
		WithLazyLoadingMode(false).
		WithSkipBundleVerification(true). // verified has seen all files, these are only some
		Read()
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", withAllParseErrors(err, files, o.Name))
	}
	claimed := claims(&contents, files)
	if err := validate(&contents, files, o.Name); err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	return &Bundle{name: o.Name, contents: contents, revision: revisionOf(contents.Manifest, files), roots: claimed}, nil
}

// withPlainManifest writes the manifest anew, as the digests of a signature see it: OPA's
// reader would merge keys given twice, and take the first of several documents.
func withPlainManifest(files []file, name string) ([]file, error) {
	plain := slices.Clone(files)
	for i, f := range plain {
		if path.Base(f.name) != opabundle.ManifestExt {
			continue
		}
		var manifest map[string]any
		err := util.UnmarshalJSON(f.content, &manifest)
		if err == nil {
			plain[i].content, err = json.Marshal(manifest)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: want a manifest, a JSON object: %w", at(name, f), err)
		}
	}
	return plain, nil
}

// Name is the name that it was loaded with.
func (b *Bundle) Name() string { return b.name }

// Revision names the contents: the revision of the manifest, else "sha256:" and the
// first 16 hexadecimal digits of a digest over the names and contents of the files read.
func (b *Bundle) Revision() string { return b.revision }

// withAllParseErrors replaces the first parse error, where OPA's reader stops, by those
// of all files. Other errors stay as they are.
func withAllParseErrors(first error, files []file, name string) error {
	var parsing ast.Errors
	if !errors.As(first, &parsing) {
		return withLine(first, files, name)
	}
	var all ast.Errors
	for _, f := range files {
		if !f.isRego() {
			continue
		}
		_, err := ast.ParseModuleWithOpts(display(name, f.name), string(f.content), ast.ParserOptions{
			ProcessAnnotation: true,
			RegoVersion:       ast.RegoV1,
		})
		if errors.As(err, &parsing) {
			all = append(all, parsing...)
		}
	}
	if len(all) == 0 {
		return first
	}
	return joined(all)
}

// withLine makes an error of a data file begin with its place. OPA's reader doesn't tell the line
// of JSON, and that of YAML where no editor finds it.
func withLine(err error, files []file, name string) error {
	for _, f := range files {
		_, reason, told := strings.Cut(err.Error(), "bundle load failed on "+display(name, f.name)+": ")
		if !told {
			continue
		}
		if path.Base(f.name) == "data.json" {
			return fmt.Errorf("%s: want JSON: %s", at(name, f), reason)
		}
		place := display(name, f.name)
		if line := regexp.MustCompile(`^yaml: line (\d+): (.*)$`).FindStringSubmatch(reason); line != nil {
			place, reason = place+":"+line[1], line[2]
		}
		return fmt.Errorf("%s: want YAML: %s", place, reason)
	}
	return err
}

// at names a JSON file and, if it is malformed, the line.
func at(name string, f file) string {
	var malformed *json.SyntaxError
	if !errors.As(json.Unmarshal(f.content, new(any)), &malformed) {
		return display(name, f.name)
	}
	line := 1 + bytes.Count(f.content[:min(malformed.Offset, int64(len(f.content)))], []byte("\n"))
	return fmt.Sprintf("%s:%d", display(name, f.name), line)
}

// joined makes one error of many, a line each.
func joined(errs ast.Errors) error {
	list := make([]error, len(errs))
	for i, err := range errs {
		list[i] = err
	}
	return errors.Join(list...)
}

// validate checks what OPA's reader doesn't.
func validate(contents *opabundle.Bundle, files []file, name string) error {
	if err := validateManifest(contents.Manifest); err != nil {
		return err
	}
	if err := refuseReservedRoots(contents, files, name); err != nil {
		return err
	}
	if err := limitDepth(contents.Data, maxDataDepth); err != nil {
		return err
	}
	return refuseForeignSchemas(contents.Modules)
}

func validateManifest(m opabundle.Manifest) error {
	if len(m.WasmResolvers) > 0 {
		return errors.New(".manifest: the bundle asks for WebAssembly, which isn't run here: build it with the target rego")
	}
	if m.RegoVersion != nil && *m.RegoVersion != 1 {
		return fmt.Errorf(".manifest: want Rego v1, got rego_version %d: rewrite the policies with opa fmt --v0-v1", *m.RegoVersion)
	}
	for pattern, version := range m.FileRegoVersions {
		if version != 1 {
			return fmt.Errorf(".manifest: want Rego v1, got version %d for %q: rewrite it with opa fmt --v0-v1", version, pattern)
		}
	}
	if len(m.Revision) > maxRevision || !utf8.ValidString(m.Revision) ||
		slices.ContainsFunc([]rune(m.Revision), unicode.IsControl) {
		return fmt.Errorf(".manifest: want a revision of at most %d bytes without control characters, got %.40q", maxRevision, m.Revision)
	}
	return nil
}

// revisionOf wants the files sorted by name. Lengths go before names and contents, so
// that no two trees make the same sequence of bytes.
func revisionOf(m opabundle.Manifest, files []file) string {
	if m.Revision != "" {
		return m.Revision
	}
	digest := sha256.New()
	length := make([]byte, 8)
	write := func(b []byte) {
		binary.BigEndian.PutUint64(length, uint64(len(b)))
		digest.Write(length)
		digest.Write(b)
	}
	for _, f := range files {
		if f.isTest() {
			continue
		}
		write([]byte(f.name))
		write(f.content)
	}
	return "sha256:" + hex.EncodeToString(digest.Sum(nil))[:16]
}
