package author

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/bundle"
)

// Level is how much a finding weighs.
type Level string

// The levels.
const (
	LevelError   Level = "error"   // the policy can't be used, or does what nobody can mean
	LevelWarning Level = "warning" // it works, at a price or for nothing
)

// Rule names what was looked for.
type Rule string

// The rules of [Check].
const (
	RuleLoad     Rule = "load"     // the tree is no bundle: files, data, manifest
	RuleParse    Rule = "parse"    // Rego that can't be read
	RuleCompile  Rule = "compile"  // Rego that means nothing, or is sloppy
	RuleSchema   Rule = "schema"   // a reference to what policies never see
	RuleBuiltin  Rule = "builtin"  // a builtin that isn't allowed
	RuleDecision Rule = "decision" // there is no rule that answers
	RuleUnknown  Rule = "unknown-permission"
	RuleDeleted  Rule = "deleted-permission"
	RuleUnused   Rule = "unused-permission"
	RuleWhole    Rule = "whole-document" // all permissions are read where one would do
)

// Finding is one thing that is wrong, or could be better.
type Finding struct {
	File    string `json:"file"`   // as the paths were given; empty where no file is to blame
	Line    int    `json:"line"`   // from 1; 0: the whole file
	Column  int    `json:"column"` // from 1, in bytes; 0: the whole line
	Level   Level  `json:"level"`
	Rule    Rule   `json:"rule"`
	Message string `json:"message"`
}

// String is the finding as a line: file:line:column: level: message [rule].
func (f Finding) String() string {
	place := ""
	switch {
	case f.Column > 0:
		place = fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
	case f.Line > 0:
		place = fmt.Sprintf("%s:%d: ", f.File, f.Line)
	case f.File != "":
		place = f.File + ": "
	}
	return fmt.Sprintf("%s%s: %s [%s]", place, f.Level, f.Message, f.Rule)
}

// at makes a finding at a place.
func at(location *ast.Location, level Level, rule Rule, format string, arguments ...any) Finding {
	f := Finding{Level: level, Rule: rule, Message: fmt.Sprintf(format, arguments...)}
	if location != nil {
		f.File, f.Line, f.Column = location.File, location.Row, location.Col
	}
	return f
}

// sorted brings findings into the order of their places, each once; those without a place last.
func sorted(findings []Finding) []Finding {
	placeless := map[bool]int{true: 1}
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(placeless[a.File == ""]-placeless[b.File == ""], cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}

// WriteText writes findings as lines.
func WriteText(w io.Writer, findings []Finding) error {
	var lines strings.Builder
	for _, f := range findings {
		fmt.Fprintln(&lines, f)
	}
	_, err := io.WriteString(w, lines.String())
	return err
}

// WriteJSON writes findings as {"findings":[…],"errors":…,"warnings":…}.
func WriteJSON(w io.Writer, findings []Finding) error {
	document := struct {
		Findings []Finding `json:"findings"`
		Errors   int       `json:"errors"`
		Warnings int       `json:"warnings"`
	}{append([]Finding{}, findings...), Count(findings, LevelError), Count(findings, LevelWarning)}
	printed := json.NewEncoder(w)
	printed.SetIndent("", "  ")
	printed.SetEscapeHTML(false)
	return printed.Encode(document)
}

// Count counts the findings of a level.
func Count(findings []Finding, level Level) (count int) {
	for _, f := range findings {
		if f.Level == level {
			count++
		}
	}
	return count
}

// mistakes makes findings of an error of package bundle.
func mistakes(err error) (found []Finding) {
	list, ok := bundle.Mistakes(err)
	if !ok {
		return []Finding{placed(at(nil, LevelError, ruleOf(err), "%s", withoutStage(err.Error())))}
	}
	for i, one := range list {
		if last := i + 1; last < len(list) && one.Code == ast.ParseErr && one.Location.Equal(list[last].Location) {
			continue // the parser says it again, in more words
		}
		found = append(found, mistake(one))
	}
	return found
}

// placed takes the place that a message begins with, file:line, out of it.
func placed(f Finding) Finding {
	begin := regexp.MustCompile(`(?s)^([^\n]+?):(\d+): (.*)$`).FindStringSubmatch(f.Message)
	if begin == nil {
		return f
	}
	line, err := strconv.Atoi(begin[2])
	if err != nil {
		return f
	}
	f.File, f.Line, f.Message = begin[1], line, begin[3]
	return f
}

// ruleOf tells what an error without a place is about.
func ruleOf(err error) Rule {
	if strings.Contains(err.Error(), "(--decision)") || strings.Contains(err.Error(), "no rule that could answer") {
		return RuleDecision
	}
	return RuleLoad
}

// withoutStage drops the words by which package bundle begins.
func withoutStage(message string) string {
	for _, stage := range []string{"reading policy: ", "compiling policy: "} {
		message = strings.TrimPrefix(message, stage)
	}
	return message
}

func mistake(err *ast.Error) Finding {
	if invalid, ok := err.Details.(*ast.RefErrInvalidDetail); ok && len(invalid.OneOf) > 0 {
		return at(err.Location, LevelError, RuleSchema, "%s", undefined(invalid))
	}
	rule := RuleCompile
	switch {
	case err.Code == ast.ParseErr:
		rule = RuleParse
	case strings.Contains(err.Message, "--allow-builtin"):
		rule = RuleBuiltin
	}
	message := strings.Join(strings.Fields(err.Message), " ")
	if err.Details != nil && rule != RuleParse { // of a parse error it is the line, and a mark below
		message += ": " + strings.Join(strings.Fields(strings.Join(err.Details.Lines(), " ")), " ")
	}
	if strings.HasPrefix(message, "undefined function data.lib.") {
		message += "; Postern's library isn't built in: name its directory, policies/lib, beside these policies"
	}
	return at(err.Location, LevelError, rule, "%s", message)
}

// undefined says which name isn't there, and which are.
func undefined(invalid *ast.RefErrInvalidDetail) string {
	names := make([]string, len(invalid.OneOf))
	for i, name := range invalid.OneOf {
		names[i] = text(name)
	}
	slices.Sort(names)
	got := text(invalid.Ref[invalid.Pos].Value)
	return fmt.Sprintf("%s is never there: %s has no %q%s; it has %s",
		invalid.Ref, invalid.Ref[:invalid.Pos], got, didYouMean(got, names), strings.Join(names, ", "))
}

// text is a value as people write it.
func text(value ast.Value) string {
	if s, ok := value.(ast.String); ok {
		return string(s)
	}
	return value.String()
}
