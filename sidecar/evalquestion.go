package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/postern-authz/postern/sidecar/authz"
)

// questionConfig is a question by flags, or a file with a whole one.
type questionConfig struct {
	file                              string
	subject, subjectType, subjectOrg  string
	permission, resource, resourceOrg string
	grants                            []string
	granted                           bool // --grants was given
}

func (q *questionConfig) settings() []setting {
	return []setting{
		configSetting(),
		{
			name: "question", set: text(&q.file),
			help: "file with the whole question, as POST /v1/authorize takes it; - for standard input",
		},
		{
			name: "permission", set: text(&q.permission),
			help: "the permission asked for, such as data:manage (action.name)",
		},
		{
			name: "subject", set: text(&q.subject),
			help: "who asks (subject.id; default usr_1)",
		},
		{
			name: "subject-type", set: text(&q.subjectType),
			help: "subject.type (default user)",
		},
		{
			name: "grants", repeat: true, set: func(given []string) error {
				q.granted = true
				return list(&q.grants)(given)
			},
			help: "what the subject holds by the app's word (subject.properties.permissions); repeatable, or comma-separated",
		},
		{
			name: "subject-organization", set: text(&q.subjectOrg),
			help: "subject.properties.organization_id",
		},
		{
			name: "resource", set: text(&q.resource),
			help: "what it is asked for on, TYPE:ID (default resource:1)",
		},
		{
			name: "resource-organization", set: text(&q.resourceOrg),
			help: "resource.properties.organization_id",
		},
	}
}

// origin names what a mistake in the question is to be looked for in.
func (q *questionConfig) origin() string {
	switch q.file {
	case "":
		return "--permission, --subject, --resource"
	case "-":
		return "--question: standard input"
	}
	return "--question: " + q.file
}

// mistake is a question that can't be read: told by its line, or by the member.
func (q *questionConfig) mistake(body []byte, message string) error {
	return usagef("%s", located(q.origin(), body, message))
}

// located tells a mistake in a file by its line, where the message tells the byte.
func located(file string, content []byte, message string) string {
	number, rest, _ := strings.Cut(strings.TrimPrefix(message, "at byte "), ": ")
	at, err := strconv.Atoi(number)
	if err != nil {
		return file + ": " + message
	}
	before := content[:min(at, len(content))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%s:%d:%d: %s", file, line, column, rest)
}

// read returns the question's JSON.
func (q *questionConfig) read(stdin io.Reader) ([]byte, error) {
	byFlags := cmp.Or(q.subject, q.subjectType, q.subjectOrg, q.permission, q.resource, q.resourceOrg) != "" || q.granted
	switch {
	case q.file != "" && byFlags:
		return nil, usagef("--question: want a whole question, or flags such as --permission, got both")
	case q.file == "" && q.permission == "":
		return nil, usagef("--permission: want the permission to ask for, got none; or set --question to a file with a whole question, - for standard input")
	case q.file == "":
		return q.byFlags()
	case q.file != "-":
		body, err := readSmallFile(q.file, authz.MaxQuestion)
		if err != nil {
			return nil, usagef("--question: %v", err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(stdin, authz.MaxQuestion+1))
	if err != nil {
		return nil, fmt.Errorf("--question: reading standard input: %w", err)
	}
	if len(body) > authz.MaxQuestion {
		return nil, usagef("--question: standard input is larger than %d bytes", authz.MaxQuestion)
	}
	return body, nil
}

func (q *questionConfig) byFlags() ([]byte, error) {
	type entity struct {
		Type       string         `json:"type"`
		ID         string         `json:"id"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	kind, id, named := strings.Cut(cmp.Or(q.resource, "resource:1"), ":")
	if !named || kind == "" || id == "" {
		return nil, usagef("--resource: want TYPE:ID such as dataset:ds_7, got %q", q.resource)
	}
	subject := entity{cmp.Or(q.subjectType, "user"), cmp.Or(q.subject, "usr_1"), map[string]any{}}
	resource := entity{kind, id, map[string]any{}}
	if q.granted {
		subject.Properties["permissions"] = append([]string{}, q.grants...)
	}
	if q.subjectOrg != "" {
		subject.Properties["organization_id"] = q.subjectOrg
	}
	if q.resourceOrg != "" {
		resource.Properties["organization_id"] = q.resourceOrg
	}
	return json.Marshal(map[string]any{"subject": subject, "action": map[string]string{"name": q.permission}, "resource": resource})
}
