package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const opaPackage = "github.com/open-policy-agent/opa"

// field is where the servers of a suite meet: what was built, what they know, what they
// are asked. A suite builds and starts what it needs.
type field struct {
	options  options
	dir      string // for everything that is made; removed in the end
	progress io.Writer

	catalog *catalog
	trace   []question

	running   []*server
	elsewhere []string // further directories that are removed in the end
}

// newField makes a directory, and makes up what everybody knows and is asked. Close ends
// it.
func newField(o options, progress io.Writer) (*field, error) {
	f := &field{options: o, progress: progress, catalog: newCatalog(o.permissions)}
	var err error
	if f.trace, err = newTrace(f.catalog); err != nil {
		return nil, err
	}
	if f.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	return f, nil
}

// close ends all servers that were started, and removes the directory.
func (f *field) close() error {
	var errs []error
	for _, s := range f.running {
		errs = append(errs, s.stop())
	}
	for _, dir := range append(f.elsewhere, f.dir) {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// stop ends one server before the others.
func (f *field) stop(s *server) error {
	for i, other := range f.running {
		if other == s {
			f.running = append(f.running[:i], f.running[i+1:]...)
			break
		}
	}
	return s.stop()
}

func (f *field) path(name string) string { return filepath.Join(f.dir, name) }

// build compiles a package of the module in a directory.
func (f *field) build(ctx context.Context, module, name, pkg string) error {
	fmt.Fprintf(f.progress, "building %s\n", name)
	build := exec.CommandContext(ctx, "go", "build", "-o", f.path(name), pkg) //nolint:gosec // all of them are constants of this program, below a directory that it made
	build.Dir, build.Stderr = module, f.progress
	if err := build.Run(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	return nil
}

// buildPostern builds the sidecar of this tree.
func (f *field) buildPostern(ctx context.Context) error {
	return f.build(ctx, f.options.repository, "postern", "./sidecar")
}

// buildOPA builds the real OPA, and writes what it is going to know.
func (f *field) buildOPA(ctx context.Context) error {
	if err := f.build(ctx, ".", "opa", opaPackage); err != nil {
		return err
	}
	if err := writeFile(f.path("data.json"), f.catalog.writeData); err != nil {
		return err
	}
	return copyPolicies(filepath.Join(f.options.repository, "policies"), f.path("policies"))
}

// sidecar is a running Postern. The embedded server's address is that of its decision API.
type sidecar struct {
	*server
	adminAddr   string
	webhookAddr string // "" without a secret
}

// posternSetup says how a Postern is started. What is empty is as shipped.
type posternSetup struct {
	name        string
	dataDir     string   // new; it is filled with the catalog
	receives    bool     // takes webhooks signed by [signer]
	environment []string // such as GOGC=100
	flags       []string
}

// startPostern fills a data directory with the catalog and starts Postern on it.
func (f *field) startPostern(ctx context.Context, p posternSetup) (*sidecar, error) {
	if err := f.fill(ctx, p.dataDir); err != nil {
		return nil, err
	}
	args := []string{f.path("postern"), "run", "--data-dir", p.dataDir, "--authorize-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}
	said := toldAddrs{wanted: []string{"authorize", "admin"}, addrs: map[string]string{}}
	if p.receives {
		said.wanted = append(said.wanted, "webhook")
		if err := os.WriteFile(f.path("webhook-secret"), []byte(webhookSecret), 0o600); err != nil {
			return nil, fmt.Errorf("writing the signing secret: %w", err)
		}
		args = append(args, "--webhook-secret-file", f.path("webhook-secret"), "--environment-id", environmentID, "--webhook-addr", "127.0.0.1:0")
	}
	s, err := startServer(ctx, p.name, append(args, p.flags...), said.complete, p.environment...)
	if err != nil {
		return nil, err
	}
	f.running = append(f.running, s)
	return &sidecar{server: s, adminAddr: said.addrs["admin"], webhookAddr: said.addrs["webhook"]}, nil
}

// fill restores the catalog into a data directory that nobody has open.
func (f *field) fill(ctx context.Context, dataDir string) error {
	dump := f.path("dump.ndjson")
	if err := writeFile(dump, f.catalog.writeDump); err != nil {
		return err
	}
	restore := command(ctx, "postern catalog restore", []string{f.path("postern"), "catalog", "restore", "--data-dir", dataDir, dump}).command
	restore.Stderr = f.progress
	if err := restore.Run(); err != nil {
		return fmt.Errorf("filling Postern's catalog: %w", err)
	}
	return nil
}

// toldAddrs are the addresses that Postern's log tells, by the listeners' names.
type toldAddrs struct {
	wanted []string
	addrs  map[string]string
}

// complete notes what a line of the log tells. It returns the address of the decision API
// once it knows all that are wanted.
func (l toldAddrs) complete(line []byte) string {
	var said struct{ Msg, Listener, Addr string }
	if json.Unmarshal(line, &said) != nil || said.Msg != "listening" {
		return ""
	}
	l.addrs[said.Listener] = said.Addr
	for _, name := range l.wanted {
		if l.addrs[name] == "" {
			return ""
		}
	}
	return l.addrs["authorize"]
}

// startOPA starts OPA with the catalog as data. Its shipped log level writes two lines for
// each request, which few operators keep; most comparisons are with `--log-level error`.
func (f *field) startOPA(ctx context.Context, name string, environment []string, flags ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := append([]string{f.path("opa"), "run", "--server", "--disable-telemetry", "--addr", addr}, flags...)
	s, err := startServerAt(ctx, name, addr, append(args, f.path("policies"), f.path("data.json")), environment...)
	if err != nil {
		return nil, err
	}
	f.running = append(f.running, s)
	return s, nil
}

// startConstant starts this program as the ceiling.
func (f *field) startConstant(ctx context.Context) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	s, err := startServer(ctx, "constant", []string{self, constantVerb}, func(line []byte) string { return string(bytes.TrimSpace(line)) })
	if err != nil {
		return nil, err
	}
	f.running = append(f.running, s)
	return s, nil
}

// copyPolicies copies the Rego of a directory without its tests.
func copyPolicies(from, to string) error {
	err := fs.WalkDir(os.DirFS(from), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".rego" || strings.HasSuffix(path, "_test.rego") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(from, path))
		if err != nil {
			return err
		}
		copied := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
			return err
		}
		return os.WriteFile(copied, text, 0o600)
	})
	if err != nil {
		return fmt.Errorf("copying the policies: %w", err)
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing a file: %w", err)
	}
	return errors.Join(write(file), file.Close())
}
