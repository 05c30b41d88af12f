package authz

import (
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// reserved are the members of an answer's context that are Postern's own. A policy that
// answers one of them doesn't get through with it.
var reserved = map[string]bool{
	"decision": true, "reasons": true, "decision_id": true, "permission": true, "data_revision": true,
	"event_id": true, "as_of": true, "policy_revision": true, "message": true, "explanation": true,
}

// AppendJSON appends the answer to b in the form of AuthZEN's evaluation response.
// It is written by hand because it is half of the cost of an answer otherwise.
func (d Decision) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, `{"decision":`...)
	b = appendBool(b, d.Allow)
	b = append(b, `,"context":{"reasons":[`...)
	for i, reason := range d.Reasons {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, reason)
	}
	b = append(b, `],"decision_id":`...)
	b = appendString(b, d.ID)
	b = d.appendProvenance(b)
	if d.Message != "" {
		b = appendString(append(b, `,"message":`...), d.Message)
	}
	if d.Explanation != nil {
		encoded, err := json.Marshal(d.Explanation)
		if err != nil {
			return b, fmt.Errorf("encoding the explanation: %w", err)
		}
		b = append(append(b, `,"explanation":`...), encoded...)
	}
	b, err := d.appendExtra(b)
	return append(b, "}}\n"...), err
}

func (d Decision) appendProvenance(b []byte) []byte {
	if d.Permission != nil {
		b = appendString(append(b, `,"permission":{"id":`...), d.Permission.ID)
		b = appendString(append(b, `,"name":`...), d.Permission.Name)
		b = appendStringOrNull(append(b, `,"event_id":`...), d.Permission.EventID)
		b = append(b, '}')
	}
	if d.DataRevision != "" {
		b = append(append(b, `,"data_revision":`...), d.DataRevision...)
	}
	b = appendStringOrNull(append(b, `,"event_id":`...), d.EventID)
	b = appendStringOrNull(append(b, `,"as_of":`...), d.AsOf)
	return appendString(append(b, `,"policy_revision":`...), d.PolicyRevision)
}

// appendExtra appends what else the policy answered.
func (d Decision) appendExtra(b []byte) ([]byte, error) {
	if d.extra == nil {
		return b, nil
	}
	err := d.extra.Iter(func(key, value *ast.Term) error {
		name, ok := key.Value.(ast.String)
		if !ok || reserved[string(name)] {
			return nil
		}
		native, err := ast.JSON(value.Value)
		if err != nil {
			return fmt.Errorf("converting the policy's %.40q: %w", string(name), err)
		}
		encoded, err := json.Marshal(native)
		if err != nil {
			return fmt.Errorf("encoding the policy's %.40q: %w", string(name), err)
		}
		b = append(appendString(append(b, ','), string(name)), ':')
		b = append(b, encoded...)
		return nil
	})
	return b, err
}

func appendBool(b []byte, value bool) []byte {
	if value {
		return append(b, "true"...)
	}
	return append(b, "false"...)
}

func appendStringOrNull(b []byte, text string) []byte {
	if text == "" {
		return append(b, "null"...)
	}
	return appendString(b, text)
}

// appendString quotes text. Whatever needs an escape goes through encoding/json.
func appendString(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic(err) // a string can always be encoded
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}
