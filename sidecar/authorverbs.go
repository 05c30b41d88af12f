package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// Settings that the verbs of policy authors share.

func catalogSetting(into *string) setting {
	return setting{
		name: "catalog", set: text(into),
		help: "file with a catalog: what `postern catalog dump` prints, or a listing of Scalekit's API",
	}
}

func formatSetting(into *string) setting {
	return setting{name: "format", initial: "text", set: oneOf(into, "text", "json"), help: "text or json"}
}

// sourceOf is what the arguments of a verb mean. The schemas are those of what a sidecar shows.
func sourceOf(paths, allowed []string) author.Source {
	return author.Source{Paths: paths, Schemas: policies.Schemas(), AllowBuiltins: allowed}
}

// checkConfig is what `postern check` runs with.
type checkConfig struct {
	catalog        string
	remote         remoteConfig
	unused         bool
	decision       string
	allowBuiltins  []string
	failOn, format string
}

func (c *checkConfig) settings() []setting {
	return slices.Concat([]setting{
		configSetting(),
		catalogSetting(&c.catalog),
	}, c.remote.settings("running sidecar with the catalog, instead of a file: its decision API, http://host:port or unix:///path.sock"), []setting{
		{
			name: "unused", initial: "false", bare: true, set: boolean(&c.unused),
			help: "warn of permissions in the catalog that no policy mentions",
		},
		{
			name: "decision", initial: "authz/decision", set: textOrNone(&c.decision),
			help: "the Rego rule that answers, which has to be there; empty for a library",
		},
		allowBuiltinSetting(&c.allowBuiltins),
		{
			name: "fail-on", initial: "warning", set: oneOf(&c.failOn, "warning", "error"),
			help: "the least finding that makes the exit status 1: warning or error",
		},
		formatSetting(&c.format),
	})
}

// textOrNone stores a value that may be empty.
func textOrNone(into *string) func([]string) error {
	return single(func(value string) error {
		*into = value
		return nil
	})
}

// run is the verb. Whatever keeps it from looking ends it with the status of a usage error: a
// status of 1 says that it has looked, and found something.
func (c *checkConfig) run(ctx context.Context, args []string, std streams) error {
	known, err := c.names(ctx, std)
	if err != nil {
		return usagef("check: %v", err)
	}
	check := author.Check{Source: sourceOf(args, c.allowBuiltins), Decision: c.decision, Catalog: known, Unused: c.unused}
	findings, err := check.Run(ctx)
	if err != nil {
		return usagef("check: %v", err)
	}
	write := author.WriteText
	if c.format == "json" {
		write = author.WriteJSON
	}
	if err := write(std.stdout, findings); err != nil {
		return err
	}
	mistakes, warnings := author.Count(findings, author.LevelError), author.Count(findings, author.LevelWarning)
	if mistakes > 0 || (warnings > 0 && c.failOn == "warning") {
		return fmt.Errorf("check: %s, %s", counted(mistakes, "error"), counted(warnings, "warning"))
	}
	return nil
}

// names opens the catalog to check against; nil if none was named.
func (c *checkConfig) names(ctx context.Context, std streams) (known *author.Catalog, err error) {
	complete := true
	switch {
	case c.catalog != "" && c.remote.from != "":
		return nil, errors.New("--catalog, --from: want one of them, got both")
	case c.unused && c.catalog == "" && c.remote.from == "":
		return nil, errors.New("--unused: want a catalog with it, --catalog or --from")
	case c.catalog != "":
		known, complete, err = fileNames(ctx, c.catalog)
	case c.remote.from != "":
		known, complete, err = remoteNames(ctx, &c.remote)
	}
	if err != nil {
		return nil, err
	}
	if !complete {
		fmt.Fprintln(std.stderr, "postern: warning: the catalog isn't complete: a permission that it lacks may exist; see docs/operations.md")
	}
	return known, nil
}

func fileNames(ctx context.Context, path string) (known *author.Catalog, complete bool, err error) {
	opened, err := openCatalogFile(ctx, path)
	if err != nil {
		return nil, false, fmt.Errorf("--catalog: %w", err)
	}
	live, deleted, err := opened.names(ctx)
	complete = opened.catalog.Sync().Complete
	if err := errors.Join(err, opened.Close()); err != nil {
		return nil, false, fmt.Errorf("--catalog: %w", err)
	}
	return &author.Catalog{Live: live, WasDeleted: func(_ context.Context, name string) (bool, error) {
		return slices.Contains(deleted, name), nil
	}}, complete, nil
}

func remoteNames(ctx context.Context, from *remoteConfig) (known *author.Catalog, complete bool, err error) {
	remote, err := from.open()
	if err != nil {
		return nil, false, err
	}
	live, complete, err := remote.names(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("--from: %w", err)
	}
	return &author.Catalog{Live: live, WasDeleted: remote.wasDeleted}, complete, nil
}

// testConfig is what `postern test` runs with.
type testConfig struct {
	catalog       string
	only          string
	coverage      bool
	minCoverage   float64 // a part of 1; 0: none is wanted
	verbose       bool
	timeout       time.Duration
	allowBuiltins []string
	format        string
}

func (c *testConfig) settings() []setting {
	return []setting{
		configSetting(),
		catalogSetting(&c.catalog),
		{
			name: "run", set: regularExpression(&c.only),
			help: "run only the tests whose full name matches a regular expression, such as data.authz_test.test_deleted",
		},
		{
			name: "coverage", initial: "false", bare: true, set: boolean(&c.coverage),
			help: "tell how much of the policies the tests evaluate, and which lines they don't",
		},
		{
			name: "min-coverage", set: percentage(&c.minCoverage),
			help: "fail if the tests evaluate less than this part of the policies, such as 90%",
		},
		{
			name: "verbose", initial: "false", bare: true, set: boolean(&c.verbose),
			help: "also show the tests that pass, what they print, and a trace of those that fail",
		},
		{
			name: "test-timeout", initial: "30s", set: duration(&c.timeout),
			help: "longest run of one test",
		},
		allowBuiltinSetting(&c.allowBuiltins),
		formatSetting(&c.format),
	}
}

func regularExpression(into *string) func([]string) error {
	return single(func(value string) error {
		*into = value
		if _, err := regexp.Compile(value); err != nil {
			return fmt.Errorf("want a regular expression: %w", err)
		}
		return nil
	})
}

// run is the verb.
func (c *testConfig) run(ctx context.Context, args []string, std streams) error {
	report, err := author.Test{
		Source: sourceOf(args, c.allowBuiltins), Open: openForTests, Catalog: c.catalog,
		Settings: posternData("deny"),
		Only:     c.only, Coverage: c.coverage || c.minCoverage > 0, Timeout: c.timeout,
	}.Run(ctx)
	var unusable *author.MistakesError
	switch {
	case errors.As(err, &unusable):
		return errors.Join(fmt.Errorf("test: %w", err), author.WriteText(std.stderr, unusable.Findings))
	case errors.Is(err, author.ErrPath):
		return usagef("test: %v", err)
	case errors.Is(err, author.ErrCatalog): // no METADATA says so
		return usagef("test: --catalog: %v", err)
	case errors.Is(err, author.ErrNoTests) && c.only != "":
		return fmt.Errorf("test: %w: none matches --run %q", err, c.only)
	case err != nil:
		return fmt.Errorf("test: %w", err)
	}
	if c.format == "json" {
		err = report.WriteJSON(std.stdout)
	} else {
		err = report.WriteText(std.stdout, c.verbose)
	}
	if err != nil {
		return err
	}
	if failed := report.Failed(); failed > 0 {
		return fmt.Errorf("test: %d of %d tests failed", failed, len(report.Results))
	}
	if c.minCoverage > 0 && report.Coverage.Coverage < 100*c.minCoverage {
		return fmt.Errorf("test: the tests cover %.1f %% of the policies, want at least %g %% (--min-coverage)", report.Coverage.Coverage, 100*c.minCoverage)
	}
	return nil
}

// openForTests makes the data document of a catalog file.
func openForTests(ctx context.Context, path string, base storage.Store) (storage.Store, func() error, error) {
	opened, err := openCatalogFile(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	return opened.document(base), opened.Close, nil
}

// initTree is the verb `postern init`.
func initTree(_ context.Context, args []string, std streams) error {
	if err := author.Init(args[0], policies.FS()); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	_, err := fmt.Fprintf(std.stdout, "%s holds policies to start from; its README.md says how to check, test and run them\n", args[0])
	return err
}
