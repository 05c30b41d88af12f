package policies_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies/policiestest"
)

// page is the policy authors' guide.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns what stands below a heading of the guide, to the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, below, ok := strings.Cut(page(t), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the guide has no %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n#")
	return below
}

var regoBlock = regexp.MustCompile("(?ms)(?:^`([^`\n]+)`:\n\n)?^```rego\n(.*?)^```$")

// shownPolicies are the guide's blocks of Rego: those of files by their names, and the others
// in the order of the page.
func shownPolicies(t *testing.T) (files map[string]string, others []string) {
	t.Helper()
	files = map[string]string{}
	for _, match := range regoBlock.FindAllStringSubmatch(page(t), -1) {
		if match[1] == "" {
			others = append(others, match[2])
		} else {
			files[match[1]] = match[2]
		}
	}
	return files, others
}

// Each policy of the guide compiles as the sidecar compiles it, in its own directory and beside
// the library. Its tests are run by the commands of the page.
func TestDocumentedPoliciesCompile(t *testing.T) {
	files, others := shownPolicies(t)
	for i, text := range others {
		files[fmt.Sprintf("other/%d.rego", i)] = text
	}
	if len(files) < 5 {
		t.Fatalf("found only %d", len(files))
	}
	for name, text := range files {
		if !strings.HasSuffix(name, "_test.rego") {
			shown(t, name, text)
		}
	}
}

func shown(t *testing.T, name, text string) *bundle.Policy {
	t.Helper()
	policy, err := policiestest.TryCompile(t, librarySource(t), fstest.MapFS{"policy.rego": {Data: []byte(text)}})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return policy
}

// The guide's example with the library says what it means to.
func TestDocumentedApprovals(t *testing.T) {
	files, _ := shownPolicies(t)
	policy := shown(t, "approvals", files["approvals/authz.rego"])
	data := map[string]any{"scalekit": map[string]any{"permissions": map[string]any{"requests:manage": map[string]any{"id": "perm_1"}}}}
	for name, c := range map[string]struct {
		permission, organization, requester, time any
		want                                      string
	}{
		"all as it should be": {"requests:manage", "org_1", "usr_2", "2026-03-04T10:30:00Z", `{"decision": true, "reasons": ["granted"]}`},
		"not live":            {"requests:approve", "org_1", "usr_2", "2026-03-04T10:30:00Z", `{"decision": false, "reasons": ["not_granted"]}`},
		"own":                 {"requests:manage", "org_1", "usr_1", "2026-03-04T10:30:00Z", `{"decision": false, "reasons": ["own_request"]}`},
		"nobody's":            {"requests:manage", nil, nil, "2026-03-04T10:30:00Z", `{"decision": false, "reasons": ["organization_mismatch", "own_request"]}`},
		"at night":            {"requests:manage", "org_1", "usr_2", "2026-03-04T22:30:00Z", `{"decision": false, "reasons": ["out_of_hours"]}`},
		"at no time":          {"requests:manage", "org_1", "usr_2", nil, `{"decision": false, "reasons": ["out_of_hours"]}`},
	} {
		answer := policiestest.Ask(t, policy, "data.authz.decision", data, map[string]any{
			"subject":  map[string]any{"id": "usr_1", "properties": map[string]any{"organization_id": "org_1", "permissions": []any{c.permission}}},
			"resource": map[string]any{"properties": map[string]any{"organization_id": c.organization, "requested_by": c.requester}},
			"context":  map[string]any{"time": c.time},
		})
		if !answer.Is(t, c.want) {
			t.Errorf("%s: got %v, want %s", name, answer.Value, c.want)
		}
	}
}

// The guide's warning of negated calls is true.
func TestANegatedCallIsUndefinedWhereItsArgumentIs(t *testing.T) {
	_, others := shownPolicies(t)
	policy := shown(t, "negated", others[0])
	for rule, want := range map[string]string{"data.example.wrong": "[]", "data.example.right": `["own_request"]`} {
		if answer := policiestest.Ask(t, policy, rule, nil, map[string]any{"subject": map[string]any{"id": "usr_1"}}); !answer.Is(t, want) {
			t.Errorf("%s: got %v, want %s", rule, answer.Value, want)
		}
	}
}

// The guide lists the library, rule for rule, by the titles of the METADATA.
func TestDocumentedLibrary(t *testing.T) {
	var want []string
	for _, e := range library(t) {
		want = append(want, fmt.Sprintf("| `%s.%s%s` | %s |", e.pkg, e.name, e.parameters, e.title))
	}
	var got []string
	for line := range strings.Lines(section(t, "## The library")) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/policies.md should say\n%s", strings.Join(want, "\n"))
	}
}

var (
	costRow  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$")
	quotedIn = regexp.MustCompile("`([^`]+)`")
)

// What the guide says that a rule reads is what the store is asked for.
func TestDocumentedReads(t *testing.T) {
	live := map[string]any{}
	for _, name := range []string{"data:manage", "data:read", "data:write"} {
		live[name] = map[string]any{"id": "perm_of_" + name, "description": ""}
	}
	data := map[string]any{"scalekit": map[string]any{
		"permissions": live, "deleted": map[string]any{"data:export": map[string]any{"id": "perm_0"}}, "sync": map[string]any{"complete": true},
	}}
	question := map[string]any{
		"subject": map[string]any{"id": "usr_1", "properties": map[string]any{"permissions": []any{"data:manage", "data:read"}}},
		"action":  map[string]any{"name": "data:manage"},
	}
	rows := costRow.FindAllStringSubmatch(section(t, "## What is cheap"), -1)
	if len(rows) < 15 {
		t.Fatalf("found only %d rows", len(rows))
	}
	for _, row := range rows {
		var want []string
		for _, path := range quotedIn.FindAllStringSubmatch(row[2], -1) {
			want = append(want, "/scalekit/"+path[1])
		}
		switch {
		case strings.HasPrefix(row[2], "all of the catalog"):
			want = []string{"/scalekit"}
		case strings.HasPrefix(row[2], "all of ") != (len(want) == 1 && want[0] == "/scalekit/permissions"):
			t.Errorf("%s: want all of a collection to be called so: %s", row[1], row[2])
		}
		source := "package example\n\nresult if { " + row[1] + " }\n"
		if strings.Contains(row[1], "permissions.h") || strings.HasPrefix(row[1], "permissions.d") {
			source = strings.Replace(source, "\n\n", "\n\nimport data.lib.permissions\n\n", 1)
		}
		answer := policiestest.Ask(t, shown(t, row[1]+".rego", source), "data.example.result", data, question)
		slices.Sort(want)
		if !slices.Equal(answer.Reads, want) {
			t.Errorf("%s: read %q, the guide says %q", row[1], answer.Reads, want)
		}
	}
}

var (
	ownReason   = regexp.MustCompile(`Reason[A-Za-z]+ += "([a-z_]+)"|reasonToken[A-Za-z]+ += "([a-z_]+)"`)
	givenReason = regexp.MustCompile(`_objections contains "([a-z_]+)"|"(token_[a-z_]+)"|"(granted|deferred)"`)
)

// The guide tells every reason that is taken, of the sidecar and of the built-in policy.
func TestDocumentedReasons(t *testing.T) {
	guide, found := section(t, "### Reasons"), map[string]bool{}
	for file, reason := range map[string]*regexp.Regexp{
		"../sidecar/authz/authz.go": ownReason, "authz/authz.rego": givenReason, "lib/subject/subject.rego": givenReason,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range reason.FindAllStringSubmatch(string(text), -1) {
			found[strings.Join(match[1:], "")] = true
		}
	}
	if len(found) < 18 {
		t.Errorf("found only %v", found)
	}
	for reason := range found {
		if !strings.Contains(guide, "`"+reason+"`") {
			t.Errorf("the reason %q isn't told", reason)
		}
	}
}
