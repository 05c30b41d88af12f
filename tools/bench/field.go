package main

import (
	"context"
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

// field is where the servers meet: what was built, what they know, what they are asked.
type field struct {
	options  options
	dir      string // for everything that is made; removed in the end
	progress io.Writer

	catalog *catalog
	trace   []question

	postern  *contender
	opa      *contender // without its log of every request
	opaInfo  *contender // with its shipped log level
	constant *contender
}

func (f *field) path(name string) string { return filepath.Join(f.dir, name) }

// contenders returns the servers in the order of a round.
func (f *field) contenders() (running []*contender) {
	for _, c := range []*contender{f.postern, f.opa, f.opaInfo, f.constant} {
		if c != nil {
			running = append(running, c)
		}
	}
	return running
}

// prepare builds the servers, gives them what they need to know, and starts them.
func (f *field) prepare(ctx context.Context) (err error) {
	f.catalog = newCatalog(f.options.permissions)
	if f.trace, err = newTrace(f.catalog); err != nil {
		return err
	}
	if err := f.build(ctx, f.options.repository, "postern", "./sidecar"); err != nil {
		return err
	}
	if err := f.build(ctx, ".", "opa", opaPackage); err != nil {
		return err
	}
	if err := f.startPostern(ctx); err != nil {
		return err
	}
	if err := f.startOPA(ctx); err != nil {
		return err
	}
	return f.startConstant(ctx)
}

// build compiles a package of the module in a directory.
func (f *field) build(ctx context.Context, module, name, pkg string) error {
	fmt.Fprintf(f.progress, "building %s\n", name)
	build := exec.CommandContext(ctx, "go", "build", "-o", f.path(name), pkg)
	build.Dir, build.Stderr = module, f.progress
	if err := build.Run(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	return nil
}

func (f *field) startPostern(ctx context.Context) error {
	if err := writeFile(f.path("dump.ndjson"), f.catalog.writeDump); err != nil {
		return err
	}
	restore := command(ctx, "postern catalog restore", []string{f.path("postern"), "catalog", "restore", "--data-dir", f.path("data"), f.path("dump.ndjson")}).command
	restore.Stderr = f.progress
	if err := restore.Run(); err != nil {
		return fmt.Errorf("filling Postern's catalog: %w", err)
	}
	s, err := startServer(ctx, "postern", []string{
		f.path("postern"), "run", "--data-dir", f.path("data"), "--authorize-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
	}, posternAddr)
	if err != nil {
		return err
	}
	f.postern = &contender{name: "postern", server: s, target: posternTarget(s.addr, f.trace)}
	return nil
}

// startOPA starts OPA twice. Its shipped log level writes two lines for each request,
// which few operators keep; the comparison that counts is with the silent one.
func (f *field) startOPA(ctx context.Context) (err error) {
	if err := writeFile(f.path("data.json"), f.catalog.writeData); err != nil {
		return err
	}
	if err := copyPolicies(filepath.Join(f.options.repository, "policies"), f.path("policies")); err != nil {
		return err
	}
	if f.opa, err = f.startOneOPA(ctx, "opa", "--log-level", "error"); err != nil {
		return err
	}
	f.opaInfo, err = f.startOneOPA(ctx, "opa-info")
	return err
}

func (f *field) startOneOPA(ctx context.Context, name string, more ...string) (*contender, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := append([]string{f.path("opa"), "run", "--server", "--disable-telemetry", "--addr", addr}, more...)
	s, err := startServerAt(ctx, name, addr, append(args, f.path("policies"), f.path("data.json")))
	if err != nil {
		return nil, err
	}
	return &contender{name: name, server: s, target: opaTarget(addr, f.trace)}, nil
}

func (f *field) startConstant(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	s, err := startServer(ctx, "constant", []string{self, constantVerb}, func(line []byte) string { return string(line) })
	if err != nil {
		return err
	}
	f.constant = &contender{name: "constant", server: s, target: constantTarget(s.addr, f.trace)}
	return nil
}

// stop ends all servers.
func (f *field) stop() error {
	var errs []error
	for _, c := range f.contenders() {
		errs = append(errs, c.server.stop())
	}
	return errors.Join(errs...)
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
