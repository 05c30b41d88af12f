package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"unicode"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

// largestKey is the most that a file with a key may have, in bytes.
const largestKey = 64 << 10

// bundleConfig is what the verbs of bundles run with.
type bundleConfig struct {
	output        string
	revision      string
	roots         []string
	allowBuiltins []string
	signingKey    string
	signingAlg    string
	signingKeyID  string
	signingScope  string
	format        string
	verification  verificationConfig
}

func (c *bundleConfig) buildSettings() []setting {
	return []setting{
		configSetting(),
		outputSetting(&c.output, "file to write the bundle to, such as bundle.tar.gz; required"),
		{
			name: "revision", set: text(&c.revision),
			help: "revision that the bundle names, such as 42 or v1.2.3 (default that of .manifest, else none: policy_revision is a digest of the files then)",
		},
		{
			name: "bundle-root", repeat: true, set: list(&c.roots),
			help: "path below data that the bundle alone may fill, such as authz; repeatable (default those of .manifest, else its packages and data)",
		},
		allowBuiltinSetting(&c.allowBuiltins),
	}
}

func (c *bundleConfig) signSettings() []setting {
	return []setting{
		configSetting(),
		outputSetting(&c.output, "file for the signed bundle, or of a directory the one for its .signatures.json (default the bundle or directory itself)"),
		{
			name: "signing-key", set: text(&c.signingKey),
			help: "file with the private key, RSA or EC as PEM, or with an HMAC secret of at least 32 bytes; required",
		},
		{
			name: "signing-alg", set: text(&c.signingAlg),
			help: "algorithm of the signature, such as PS256 (default RS256, HS256, or the one of the EC key's curve)",
		},
		{
			name: "signing-key-id", set: text(&c.signingKeyID),
			help: "id of the key, for whoever verifies with several",
		},
		{
			name: "signing-scope", set: text(&c.signingScope),
			help: "scope that the signature is for, such as production",
		},
	}
}

func (c *bundleConfig) verifySettings() []setting {
	return append([]setting{configSetting()}, c.verification.settings()...)
}

func (c *bundleConfig) inspectSettings() []setting {
	return append(c.verifySettings(), formatSetting(&c.format))
}

func outputSetting(into *string, help string) setting {
	return setting{name: "output", set: text(into), help: help}
}

// verificationConfig says which signatures of bundles count.
type verificationConfig struct {
	keys  []string // [ID=]FILE
	scope string
}

func (c *verificationConfig) settings() []setting {
	return []setting{
		{
			name: "bundle-verification-key", repeat: true, set: list(&c.keys),
			help: "file with a key that bundles must be signed by: a public key or certificate, RSA or EC as PEM, or an HMAC secret; ID=FILE for signatures that name the key; repeatable",
		},
		{
			name: "bundle-verification-scope", set: text(&c.scope),
			help: "scope that the signatures must have",
		},
	}
}

// check looks at what the settings mean together.
func (c *verificationConfig) check() error {
	if c.scope != "" && len(c.keys) == 0 {
		return usagef("--bundle-verification-scope: want --bundle-verification-key with it, got none")
	}
	return nil
}

// read reads the keys; nil if there are none.
func (c *verificationConfig) read() (*bundle.Verification, error) {
	if err := c.check(); err != nil || len(c.keys) == 0 {
		return nil, err
	}
	var contents [][]byte
	for _, path := range c.paths() {
		content, err := readSmallFile(path, largestKey)
		if err != nil {
			return nil, fmt.Errorf("--bundle-verification-key: %w", err)
		}
		contents = append(contents, content)
	}
	verification, err := c.parse(contents)
	if err != nil {
		return nil, fmt.Errorf("--bundle-verification-key: %w", err)
	}
	return verification, nil
}

// paths are the files of the keys.
func (c *verificationConfig) paths() (paths []string) {
	for _, value := range c.keys {
		_, path := keyFile(value)
		paths = append(paths, path)
	}
	return paths
}

// parse takes the contents of those files.
func (c *verificationConfig) parse(contents [][]byte) (*bundle.Verification, error) {
	var keys []bundle.VerificationKey
	for i, value := range c.keys {
		id, path := keyFile(value)
		key := bundle.VerificationKey{ID: id, Content: contents[i]}
		if _, err := bundle.NewVerification([]bundle.VerificationKey{key}, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return bundle.NewVerification(keys, c.scope)
}

// keyFile takes [ID=]FILE apart.
func keyFile(value string) (id, path string) {
	id, path, named := strings.Cut(value, "=")
	if !named {
		return "", value
	}
	return id, path
}

// openSource opens a bundle's file or directory. The caller calls the function returned.
func openSource(path string) (bundle.Source, func(), error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to is refused, too
	if err != nil {
		return bundle.Source{}, nil, err
	}
	info, err := f.Stat()
	done := func() { _ = f.Close() } // only read
	switch {
	case err != nil:
	case info.IsDir():
		return bundle.Source{Name: path, FS: os.DirFS(path)}, done, nil
	case info.Mode().IsRegular():
		return bundle.Source{Name: path, Archive: f}, done, nil
	default:
		err = fmt.Errorf("want %s to be a bundle file or a directory", path)
	}
	done()
	return bundle.Source{}, nil, err
}

// build is the verb.
func (c *bundleConfig) build(ctx context.Context, args []string, std streams) error {
	if c.output == "" {
		return usagef("--output: want the file to write the bundle to, got none")
	}
	var sources []bundle.Source
	for _, path := range args {
		source, done, err := openSource(path)
		if err != nil {
			return err
		}
		defer done()
		sources = append(sources, source)
	}
	var archive bytes.Buffer
	built, err := bundle.Build(ctx, &archive, sources, bundle.BuildOptions{
		Compile:  bundle.Options{Schemas: policies.Schemas(), AllowBuiltins: c.allowBuiltins},
		Revision: c.revision, Roots: c.roots,
	})
	if err != nil {
		return err
	}
	if err := replaceFile(c.output, archive.Bytes()); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	_, err = fmt.Fprintf(std.stdout, "%s: revision %s, roots %s\n", c.output, built.Revision(), strings.Join(built.Roots(), ", "))
	return err
}

// sign is the verb.
func (c *bundleConfig) sign(ctx context.Context, args []string, std streams) error {
	if c.signingKey == "" {
		return usagef("--signing-key: want the file with the private key, got none")
	}
	content, err := readSmallFile(c.signingKey, largestKey)
	if err != nil {
		return fmt.Errorf("--signing-key: %w", err)
	}
	key := bundle.SigningKey{ID: c.signingKeyID, Algorithm: c.signingAlg, Content: content, Scope: c.signingScope}
	if err := key.Check(); err != nil {
		return fmt.Errorf("--signing-key, --signing-alg: %s: %w", c.signingKey, err)
	}
	source, done, err := openSource(args[0])
	if err != nil {
		return err
	}
	defer done()
	signed, err := signSource(ctx, source, key)
	if err != nil {
		return err
	}
	output := cmp.Or(c.output, args[0])
	if source.FS != nil {
		output = filepath.Join(output, ".signatures.json")
	}
	if err := replaceFile(output, signed); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	_, err = fmt.Fprintf(std.stdout, "%s: signed\n", output)
	return err
}

// signSource returns the signed archive, or of a directory its signature.
func signSource(ctx context.Context, source bundle.Source, key bundle.SigningKey) ([]byte, error) {
	if source.FS != nil {
		return bundle.Sign(ctx, source, key, bundle.LoadOptions{})
	}
	var signed bytes.Buffer
	err := bundle.SignArchive(ctx, &signed, source, key, bundle.LoadOptions{})
	return signed.Bytes(), err
}

// verify is the verb.
func (c *bundleConfig) verify(ctx context.Context, args []string, std streams) error {
	if len(c.verification.keys) == 0 {
		return usagef("--bundle-verification-key: want a file with the key to verify with, got none")
	}
	found, err := c.inspection(ctx, args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.stdout, "%s: good\n", args[0])
	return errors.Join(err, printInspection(std.stdout, &bundle.Inspection{
		Revision: found.Revision, Roots: found.Roots, Signature: found.Signature,
	}))
}

// inspect is the verb.
func (c *bundleConfig) inspect(ctx context.Context, args []string, std streams) error {
	found, err := c.inspection(ctx, args[0])
	if err != nil {
		return err
	}
	if c.format == "json" {
		encoder := json.NewEncoder(std.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	return printInspection(std.stdout, found)
}

func (c *bundleConfig) inspection(ctx context.Context, path string) (*bundle.Inspection, error) {
	verification, err := c.verification.read()
	if err != nil {
		return nil, err
	}
	source, done, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return bundle.Inspect(ctx, source, bundle.LoadOptions{Verification: verification})
}

func printInspection(w io.Writer, found *bundle.Inspection) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, cells ...any) { fmt.Fprintf(table, format+"\n", cells...) }
	row("revision\t%s", found.Revision)
	row("roots\t%s", printable(strings.Join(found.Roots, ", ")))
	switch s := found.Signature; {
	case s == nil:
		row("signature\tnone")
	case s.Verified:
		row("signature\tverified")
	default:
		row("signature\tnot verified: without --bundle-verification-key anyone may have written it")
	}
	if s := found.Signature; s != nil {
		row("  key id\t%q\n  algorithm\t%q\n  scope\t%q\n  files\t%d", s.KeyID, s.Algorithm, s.Scope, len(s.Files))
	}
	for _, f := range found.Files {
		row("file\t%s\t%d bytes", printable(f.Name), f.Bytes)
	}
	for _, p := range found.Packages {
		row("package\t%s\t%s", printable(p.Path), printable(p.Title))
		for _, r := range p.Rules {
			kind := "rule"
			if r.Entrypoint {
				kind = "entrypoint"
			}
			row("  %s\t%s\t%s", kind, printable(r.Path), printable(r.Title))
		}
	}
	return table.Flush()
}

// printable keeps what others wrote from steering the terminal that it is shown in.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printableLines is [printable] of each line.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// replaceFile writes a file that others may read; whoever does has the old or the new one whole.
func replaceFile(path string, content []byte) (err error) {
	draft, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(draft.Name()))
		}
	}()
	_, err = draft.Write(content)
	if err = errors.Join(err, draft.Chmod(0o644), draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}
