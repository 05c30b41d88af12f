package bundle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/storage"
)

// Inspection is what a bundle holds.
type Inspection struct {
	Revision  string         `json:"revision"`
	Roots     []string       `json:"roots"`
	Files     []FileSize     `json:"files"`
	Packages  []Package      `json:"packages"`
	Signature *SignatureInfo `json:"signature"` // nil: it isn't signed
}

// FileSize is a file of a bundle.
type FileSize struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// Package is a package of a bundle, tests excepted.
type Package struct {
	Path  string `json:"path"`  // such as authz
	Title string `json:"title"` // of its METADATA
	Rules []Rule `json:"rules"`
}

// Rule is a rule or function.
type Rule struct {
	Path       string `json:"path"` // such as authz/decision
	Title      string `json:"title"`
	Entrypoint bool   `json:"entrypoint"`
}

// SignatureInfo is what a signature says, verified or not.
type SignatureInfo struct {
	KeyID     string   `json:"key_id"`
	Algorithm string   `json:"algorithm"`
	Scope     string   `json:"scope"`
	Files     []string `json:"files"`
	Verified  bool     `json:"verified"` // false: there were no keys
}

// Inspect reads a bundle as [Load] does, except that a signature without keys to verify
// it is told as not verified.
func Inspect(ctx context.Context, s Source, o LoadOptions) (*Inspection, error) {
	files, err := s.read(ctx, &o, true)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	result := &Inspection{}
	for _, f := range files {
		result.Files = append(result.Files, FileSize{f.name, len(f.content)})
	}
	result.Signature, files, err = o.inspectSignature(files)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	b, err := assemble(files, o)
	if err != nil {
		return nil, err
	}
	result.Revision, result.Roots = b.Revision(), b.Roots()
	result.Packages = b.packages()
	return result, nil
}

// inspectSignature returns the files without the signature.
func (o LoadOptions) inspectSignature(files []file) (*SignatureInfo, []file, error) {
	signatures, rest, err := o.splitSignatures(files)
	if err != nil {
		return nil, nil, err
	}
	if o.Verification != nil {
		if _, err := o.verified(files); err != nil {
			return nil, nil, err
		}
	}
	if signatures == nil {
		return nil, rest, nil
	}
	_, t, err := parseSignatures(signatures.content)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", display(o.Name, signaturesFile), err)
	}
	info := &SignatureInfo{KeyID: t.keyID, Algorithm: t.algorithm, Scope: t.Scope, Verified: o.Verification != nil}
	for _, signed := range t.Files {
		info.Files = append(info.Files, signed.Name)
	}
	return info, rest, nil
}

// packages sorts packages and rules by path, each once.
func (b *Bundle) packages() []Package {
	byPath := map[string]*Package{}
	for _, module := range b.contents.Modules {
		at := pathOf(module.Parsed.Package.Path)
		if byPath[at] == nil {
			byPath[at] = &Package{Path: at}
		}
		byPath[at].add(module)
	}
	packages := make([]Package, 0, len(byPath))
	for _, at := range slices.Sorted(maps.Keys(byPath)) {
		packages = append(packages, *byPath[at])
	}
	return packages
}

func pathOf(ref ast.Ref) string {
	at, err := storage.NewPathForRef(ref)
	if err != nil {
		return ref.String()
	}
	return strings.Join(at, "/")
}

func (p *Package) add(module opabundle.ModuleFile) {
	told := map[string]*ast.Annotations{} // by the path of a rule
	for _, annotation := range module.Parsed.Annotations {
		switch annotation.Scope {
		case "package":
			p.Title = annotation.Title
		case "rule", "document":
			told[rulePath(annotation.GetTargetPath().GroundPrefix())] = annotation
		}
	}
	for _, rule := range module.Parsed.Rules {
		r := Rule{Path: rulePath(rule.Ref().GroundPrefix())}
		if annotation := told[r.Path]; annotation != nil {
			r.Title, r.Entrypoint = annotation.Title, annotation.Entrypoint
		}
		i, found := slices.BinarySearchFunc(p.Rules, r, func(a, b Rule) int { return strings.Compare(a.Path, b.Path) })
		if !found {
			p.Rules = slices.Insert(p.Rules, i, r)
		}
	}
}
