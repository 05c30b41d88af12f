package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// setting is one row of a table of settings: its name is the flag, the key in the YAML
// file and, in upper snake case behind POSTERN_, the environment variable.
type setting struct {
	name    string
	initial string // the default, as text; "" for none
	help    string
	repeat  bool // may be given several times; a YAML list
	bare    bool // a flag without a value means true
	secret  bool // its value never appears in an error
	// set parses and stores the values: one, or for a repeated setting several. Its error
	// says what was expected; who calls it adds the setting's name and what came.
	set func(values []string) error
}

// usageError is a mistake in how Postern was called; the exit status is 2.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, arguments ...any) error {
	return &usageError{fmt.Sprintf(format, arguments...)}
}

const (
	envPrefix         = "POSTERN_"
	configFlag        = "config"
	largestConfigFile = 1 << 20
	nearestDistance   = 3 // edits between a mistyped name and the one that is meant
)

func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// given is a value and where it comes from, for the error that may follow.
type given struct {
	values []string
	origin string
}

// load fills every setting of the table: flag over environment over file over default.
// It returns the arguments that aren't flags, and warnings, which stand beside an error, too.
//
// known are the settings of all verbs: one file and one environment serve them all, so that
// what another verb knows is no mistake.
func load(table, known []setting, args, environ []string) (rest, warnings []string, err error) {
	env, warnings := readEnvironment(known, environ)
	flags, rest, err := readFlags(table, args)
	if err != nil {
		return nil, warnings, err
	}
	file, err := readConfigFile(known, flags, env)
	if err != nil {
		return nil, warnings, err
	}
	for _, s := range table {
		if err := s.apply(s.choose(flags, env, file)); err != nil {
			return nil, warnings, err
		}
	}
	return rest, warnings, nil
}

// choose returns the value of the first layer that has one.
func (s setting) choose(layers ...map[string]given) given {
	for _, layer := range layers {
		if found, ok := layer[s.name]; ok {
			return found
		}
	}
	if s.initial == "" {
		return given{}
	}
	return given{values: []string{s.initial}, origin: "the default of " + s.name}
}

func (s setting) apply(g given) error {
	if s.set == nil || len(g.values) == 0 {
		return nil
	}
	err := s.set(g.values)
	switch {
	case err == nil:
		return nil
	case s.secret:
		return usagef("%s: %v", g.origin, err)
	}
	return usagef("%s: %v, got %q", g.origin, err, strings.Join(g.values, ","))
}

// collector is a flag value that only collects: what it means is decided by the table,
// for flags, environment and file alike.
type collector struct{ values *[]string }

func (c collector) String() string { return "" }
func (c collector) Type() string   { return "value" }

// Set appends a value.
func (c collector) Set(value string) error {
	*c.values = append(*c.values, value)
	return nil
}

func readFlags(table []setting, args []string) (map[string]given, []string, error) {
	set := pflag.NewFlagSet("postern", pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	collected := make(map[string]*[]string, len(table))
	for _, s := range table {
		values := new([]string)
		collected[s.name] = values
		flag := set.VarPF(collector{values: values}, s.name, "", s.help)
		if s.bare {
			flag.NoOptDefVal = "true"
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, nil, flagError(table, err)
	}
	layer := map[string]given{}
	for name, values := range collected {
		if len(*values) > 0 {
			layer[name] = given{*values, "--" + name}
		}
	}
	return layer, set.Args(), onlyOnce(table, layer)
}

func onlyOnce(table []setting, layer map[string]given) error {
	for _, s := range table {
		if !s.repeat && len(layer[s.name].values) > 1 {
			return usagef("--%s: want it once, got it %d times", s.name, len(layer[s.name].values))
		}
	}
	return nil
}

func flagError(table []setting, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		return usagef("unknown flag --%s%s", unknown.GetSpecifiedName(), didYouMean("--", unknown.GetSpecifiedName(), namesIn(table)))
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return usagef("--%s: want a value, got none", missing.GetSpecifiedName())
	}
	return usagef("%v", err)
}

func namesIn(table []setting) []string {
	names := make([]string, 0, len(table))
	for _, s := range table {
		names = append(names, s.name)
	}
	return names
}

// didYouMean returns a half sentence that names the nearest known name, or nothing.
func didYouMean(prefix, got string, known []string) string {
	nearest, distance := "", nearestDistance+1
	for _, name := range known {
		if d := levenshtein.ComputeDistance(got, name); d < distance {
			nearest, distance = name, d
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, nearest)
}

// readEnvironment only warns of an unknown variable: a Kubernetes Service called postern
// injects some.
func readEnvironment(table []setting, environ []string) (layer map[string]given, warnings []string) {
	layer = map[string]given{}
	byVariable := map[string]setting{}
	for _, s := range table {
		byVariable[s.env()] = s
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, envPrefix) || value == "" {
			continue // set to nothing is not set, as templates leave behind
		}
		s, known := byVariable[variable]
		if !known {
			known := slices.Sorted(maps.Keys(byVariable))
			warnings = append(warnings, fmt.Sprintf("unknown environment variable %s ignored%s", variable, didYouMean("", variable, known)))
			continue
		}
		values := []string{value}
		if s.repeat {
			values = splitList(value)
		}
		layer[s.name] = given{values, variable}
	}
	return layer, warnings
}

// splitList splits at commas and line ends and drops what is empty.
func splitList(text string) []string {
	var parts []string
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

func readConfigFile(table []setting, flags, env map[string]given) (map[string]given, error) {
	g, ok := flags[configFlag]
	if !ok {
		g, ok = env[configFlag]
	}
	if !ok {
		return nil, nil
	}
	path := g.values[0]
	text, err := readSmallFile(path, largestConfigFile)
	if err != nil {
		return nil, usagef("%s: %v", g.origin, err)
	}
	// Decoded into nodes, so that 010 and yes stay the text that was written.
	var document map[string]yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, usagef("%s: want YAML with one setting a line, such as lru-size: 5000", path)
	}
	layer := map[string]given{}
	for _, key := range slices.Sorted(maps.Keys(document)) {
		node := document[key]
		i := slices.IndexFunc(table, func(s setting) bool { return s.name == key })
		if i < 0 || key == configFlag {
			if strings.Contains(key, "whsec_") {
				key = "[redacted]" // a secret that lost its key
			}
			return nil, usagef("%s:%d: unknown key %.60q%s", path, node.Line, key, didYouMean("", key, namesIn(table)))
		}
		values, err := nodeValues(table[i], &node)
		if err != nil {
			return nil, usagef("%s:%d: %s: %v", path, node.Line, key, err)
		}
		layer[key] = given{values, fmt.Sprintf("%s:%d: %s", path, node.Line, key)}
	}
	return layer, nil
}

func nodeValues(s setting, node *yaml.Node) ([]string, error) {
	if node.Kind == yaml.ScalarNode {
		return []string{node.Value}, nil
	}
	if node.Kind != yaml.SequenceNode || !s.repeat {
		return nil, errors.New("want one value")
	}
	if len(node.Content) == 0 {
		return nil, errors.New("want at least one value")
	}
	var values []string
	for _, element := range node.Content {
		if element.Kind != yaml.ScalarNode {
			return nil, errors.New("want a list of values")
		}
		values = append(values, element.Value)
	}
	return values, nil
}

// readSmallFile reads a regular file that has no more than most bytes. It refuses another
// kind: a pipe could keep its reader waiting for ever.
func readSmallFile(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("want %s to be a regular file", path), err, f.Close())
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return text, nil
}
