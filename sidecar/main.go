// Command postern is a sidecar that knows which permissions still exist. Scalekit's
// signed webhooks flow into a durable catalog; an embedded Open Policy Agent decides
// questions against it on localhost, with the reason and the event it rests on.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// Exit statuses.
const (
	exitFailure = 1
	exitUsage   = 2
)

// exitWithin is how long the process may go on after the signal to end.
const exitWithin = drainWithin + 1500*time.Millisecond

// streams are the three that a process has.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal a second one ends the process at once, and time does so, too: the
	// log may be a pipe that nobody reads any more.
	context.AfterFunc(ctx, stop)
	context.AfterFunc(ctx, func() { time.AfterFunc(exitWithin, func() { os.Exit(exitFailure) }) })
	err := run(ctx, os.Args[1:], os.Environ(), streams{os.Stdin, os.Stdout, os.Stderr})
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "postern:", err)
	var usage *usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

// verb is one row of the table of what Postern can do.
type verb struct {
	name      string // one or two words
	arguments string // behind the flags, such as FILE; [PATH…] is any number, PATH… at least one
	summary   string
	example   string
	settings  []setting
	run       func(ctx context.Context, args []string, std streams) error
}

// run finds the verb, loads its settings and runs it. It is main without the process, and
// returns a *usageError for a mistake in the call.
func run(ctx context.Context, args, environ []string, std streams) error {
	verbs := allVerbs()
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		return help(verbs, args, std.stdout)
	}
	v, rest, err := findVerb(verbs, args)
	if err != nil {
		return err
	}
	arguments, warnings, err := load(v.settings, allSettings(verbs), rest, environ)
	for _, warning := range warnings {
		fmt.Fprintln(std.stderr, "postern: warning:", warning)
	}
	if errors.Is(err, pflag.ErrHelp) {
		return v.help(std.stdout)
	}
	if err != nil {
		return err
	}
	if err := v.checkCount(len(arguments)); err != nil {
		return err
	}
	return v.run(ctx, arguments, std)
}

// allVerbs is the table. Each verb closes over the values that its settings fill.
func allVerbs() []verb { //nolint:funlen // a table is read row by row
	c, maintenance, event, demo, health := new(config), new(catalogConfig), new(eventConfig), new(demoConfig), new(healthConfig)
	simulated, bundled, check, tests := new(simulateConfig), new(bundleConfig), new(checkConfig), new(testConfig)
	eval := new(evalConfig)
	return []verb{
		{
			name: "run", summary: "run the sidecar: catalog, decision API, and the webhook receiver when a secret is set",
			example:  "postern run --webhook-secret-file /etc/postern/webhook-secret --environment-id env_1234567890",
			settings: c.settings(), run: c.run,
		},
		{
			name: "demo", summary: "tell the whole story on free loopback ports, with real HTTP and a real restart",
			example:  "postern demo --serve",
			settings: demo.settings(), run: demo.run,
		},
		{
			name: "simulate", summary: "be a local Scalekit to develop and test against: API, keys, tokens, signed webhooks, and faults",
			example:  "postern simulate --webhook-url http://127.0.0.1:8480/webhooks/scalekit --webhook-secret-file secret --fault webhook_drop=5%",
			settings: simulated.settings(), run: simulated.run,
		},
		{
			name: "event send", summary: "sign a permission event and post it to a receiver",
			example:  "postern event send --webhook-secret-file secret --environment-id env_1234567890 --type permission.deleted --permission-id perm_1 --name data:manage",
			settings: event.settings(), run: event.send,
		},
		{
			name: "catalog dump", summary: "print the catalog as JSON lines, of a running or a stopped sidecar",
			example:  "postern catalog dump --data-dir /var/lib/postern > catalog.ndjson",
			settings: maintenance.settings(), run: maintenance.dump,
		},
		{
			name: "catalog restore", arguments: "FILE", summary: "merge a dump, or a listing of Scalekit's API, into the catalog (a file, or - for standard input)",
			example:  "postern catalog restore --data-dir /var/lib/postern catalog.ndjson",
			settings: maintenance.settings(), run: maintenance.restore,
		},
		{
			name: "catalog verify", summary: "check the catalog's file, indexes and invariants",
			example:  "postern catalog verify --data-dir /var/lib/postern",
			settings: maintenance.settings(), run: maintenance.verify,
		},
		{
			name: "catalog compact", summary: "copy the catalog's file into one without holes, while it is used",
			example:  "postern catalog compact --data-dir /var/lib/postern",
			settings: maintenance.settings(), run: maintenance.compact,
		},
		{
			name: "catalog reconcile", summary: "compare a running sidecar's catalog with Scalekit's list now, and repair it",
			example:  "postern catalog reconcile --data-dir /var/lib/postern",
			settings: maintenance.settings(), run: maintenance.reconcile,
		},
		{
			name: "catalog accept", arguments: "DIGEST", summary: "apply a listing that was held back because it would remove too much",
			example:  "postern catalog accept --data-dir /var/lib/postern 3f5c…",
			settings: maintenance.settings(), run: maintenance.accept,
		},
		{
			name: "init", arguments: "DIR", summary: "lay out policies to start from: the built-in ones, library, schemas, a catalog to test with, a README",
			example:  "postern init acme-policies",
			settings: []setting{configSetting()}, run: initTree,
		},
		{
			name: "check", arguments: "[PATH…]", summary: "check policies: Rego, schemas, builtins, names of permissions that don't exist, and costly reads",
			example:  "postern check policies --catalog catalog.ndjson",
			settings: check.settings(), run: check.run,
		},
		{
			name: "test", arguments: "[PATH…]", summary: "run the Rego tests of policies, with a real catalog and coverage",
			example:  "postern test policies --catalog catalog.ndjson --min-coverage 90%",
			settings: tests.settings(), run: tests.run,
		},
		{
			name: "bundle build", arguments: "PATH…", summary: "make one OPA bundle of policy directories: compiled strictly, without tests, the same bytes each time",
			example:  "postern bundle build policies --output bundle.tar.gz --revision 42",
			settings: bundled.buildSettings(), run: bundled.build,
		},
		{
			name: "bundle sign", arguments: "BUNDLE", summary: "sign a bundle file, or a directory as its .signatures.json, as opa sign does",
			example:  "postern bundle sign bundle.tar.gz --signing-key private.pem --signing-key-id release --signing-scope production",
			settings: bundled.signSettings(), run: bundled.sign,
		},
		{
			name: "bundle verify", arguments: "BUNDLE", summary: "check a bundle file's or directory's signature, and that it can be read; exit 0 if both hold",
			example:  "postern bundle verify bundle.tar.gz --bundle-verification-key release=public.pem --bundle-verification-scope production",
			settings: bundled.verifySettings(), run: bundled.verify,
		},
		{
			name: "bundle inspect", arguments: "BUNDLE", summary: "print a bundle's revision, roots, files, packages, rules and signature",
			example:  "postern bundle inspect bundle.tar.gz --format json",
			settings: bundled.inspectSettings(), run: bundled.inspect,
		},
		{
			name: "eval", summary: "ask one question, of policies and a catalog in files or of a running sidecar, and tell why",
			example:  "postern eval --policy policies --catalog catalog.ndjson --permission data:manage --grants data:manage --explain",
			settings: eval.settings(), run: eval.run,
		},
		{
			name: "healthcheck", summary: "exit 0 when the sidecar on this machine is ready",
			example:  "postern healthcheck --admin-addr 127.0.0.1:8282",
			settings: health.settings(), run: health.run,
		},
		{
			name: "version", summary: "print version, commit, OPA version and Go version",
			example: "postern version", run: printVersion,
		},
	}
}

// allSettings joins the tables of all verbs, each name once.
func allSettings(verbs []verb) (all []setting) {
	seen := map[string]bool{}
	for _, v := range verbs {
		for _, s := range v.settings {
			if !seen[s.name] {
				seen[s.name] = true
				all = append(all, s)
			}
		}
	}
	return all
}

func findVerb(verbs []verb, args []string) (verb, []string, error) {
	for _, v := range verbs {
		words := strings.Fields(v.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return v, args[len(words):], nil
		}
	}
	called := args[:1]
	names, below := make([]string, 0, len(verbs)), []string(nil)
	for _, v := range verbs {
		names = append(names, v.name)
		if first, _, two := strings.Cut(v.name, " "); two && first == args[0] {
			below = append(below, v.name)
			called = args[:min(2, len(args))]
		}
	}
	got := strings.Join(called, " ")
	meant := didYouMean("", got, names)
	if meant == "" && len(below) > 0 {
		meant = "; there is " + strings.Join(below, ", ")
	}
	return verb{}, nil, usagef("unknown verb %.40q%s; see `postern help`", got, meant)
}

// checkCount compares the number of arguments with those in the table.
func (v verb) checkCount(got int) error {
	least := len(strings.Fields(v.arguments))
	if strings.HasSuffix(v.arguments, "…]") {
		least--
	}
	many := strings.Contains(v.arguments, "…")
	if got < least || got > least && !many {
		return usagef("%s: want %s, got %s; see `postern help %s`",
			v.name, cmp.Or(v.arguments, "nothing beside flags"), counted(got, "argument"), v.name)
	}
	return nil
}

// counted is a number of things in words, such as 1 error, 2 errors.
func counted(count int, thing string) string {
	if count == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", count, thing)
}

// help prints the table, or with `help VERB` one row of it.
func help(verbs []verb, args []string, stdout io.Writer) error {
	if len(args) > 1 {
		v, _, err := findVerb(verbs, args[1:])
		if err != nil {
			return err
		}
		return v.help(stdout)
	}
	var b strings.Builder
	b.WriteString("Postern decides with the permissions that still exist.\n\nusage: postern VERB [flags]\n\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "  %-16s %s\n", v.name, v.summary)
	}
	b.WriteString("\n`postern help VERB` explains a verb and its settings, with an example.\n")
	_, err := io.WriteString(stdout, b.String())
	return err
}

func (v verb) help(stdout io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nusage: postern %s [flags]", capitalized(v.summary), v.name)
	if v.arguments != "" {
		fmt.Fprintf(&b, " %s", v.arguments)
	}
	fmt.Fprintf(&b, "\n\nexample:\n  %s\n", v.example)
	if len(v.settings) > 0 {
		b.WriteString("\nflags (each also as POSTERN_… in the environment and as a key of the --config file):\n")
	}
	for _, s := range v.settings {
		fmt.Fprintf(&b, "  --%s\n        %s", s.name, s.help)
		if s.initial != "" && s.initial != "false" {
			fmt.Fprintf(&b, " (default %s)", s.initial)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(stdout, b.String())
	return err
}

func capitalized(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// run is the verb.
func (c *config) run(ctx context.Context, _ []string, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	// Before anything else: by default the signal ends the process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	logger := newLogger(std.stderr, c.logFormat, c.logLevel)
	kept, err := tuneRuntime()
	defer kept.keep()
	if err != nil {
		logger.Warn("memory limit not known, set GOMEMLIMIT", "error", err)
	}
	go releaseWhenIdle(ctx)
	s, err := newSidecar(ctx, *c, logger)
	if err != nil {
		return err
	}
	return s.serve(ctx, hangups)
}

func newLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
