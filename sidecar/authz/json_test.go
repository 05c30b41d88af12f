package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// standard reads text with encoding/json, numbers as they are written.
func standard(text string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return value, nil
}

// FuzzParseJSON holds the parser against encoding/json: what it takes means the same, and
// what it refuses is refused for one of the reasons that it is meant to be stricter for.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":["data:manage"]}},"action":{"name":"data:manage"},"resource":{"type":"dataset","id":"ds_7"},"context":{}}`,
		`[1,-0,1.5e3,0.1E-2,12345678901234567890]`, `"\u00e9\ud83d\ude00\n\/"`, `{"a":1,"a":2}`, "\"\xff\"", `"\ud800"`, `"\ud800\u0041"`,
		`1e999999999`, `01`, `-`, `1.`, `.5`, `[1,]`, `{"a":1,}`, `{"a" 1}`, `nul`, ``, ` true `, `true false`, "\"a\tb\"", `"\x"`, `"\u12g4"`, `+1`, `"`,
		strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat("[", 64) + strings.Repeat("]", 64), `{"a":{"b":[{}]}}`, `"\u002b\u+123"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := parseJSON(text)
		want, standardErr := standard(text)
		if err != nil {
			if standardErr == nil && !stricter(err) {
				t.Fatalf("%q was refused: %v", text, err)
			}
			return
		}
		if standardErr != nil {
			t.Fatalf("%q was taken, but: %v", text, standardErr)
		}
		got, err := ast.JSON(value)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %#v, want %#v", text, got, want)
		}
	})
}

// stricter reports whether err names one of the reasons to refuse what encoding/json takes.
func stricter(err error) bool {
	for _, reason := range []string{"UTF-8", "surrogates in pairs", "each key once", "nested values", "of at most", "want at most", "exponent"} {
		if strings.Contains(err.Error(), reason) {
			return true
		}
	}
	return false
}

func TestParseJSONRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"\"\xff\"":                        "want UTF-8",
		`{"a":1,"b":2,"\u0061":3}`:        "want each key once in an object",
		`"\ud800"`:                        "want surrogates in pairs",
		`"\ud800\ud800"`:                  "want surrogates in pairs",
		`"\udc00"`:                        "want surrogates in pairs",
		`[1e401]`:                         "want an exponent of at most 400",
		strings.Repeat("9", 65):           "want numbers of at most 64 characters",
		strings.Repeat(`{"a":`, 65) + "1": "want at most 64 nested values",
		strings.Repeat("[", 1<<20):        "want at most 64 nested values",
		`{"a":1} x`:                       "want one JSON value, got more after it",
		`"never ends`:                     "want the end of a string",
		"\"a\nb\"":                        "control characters",
		`"\q"`:                            "want an escape sequence",
		`[1 2]`:                           "want ',' or ']'",
		`{"a":1 "b":2}`:                   "want ',' or '}'",
		`{1:2}`:                           "want a key in quotes",
		`007`:                             "want a number",
	} {
		_, err := parseJSON(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
	deepest := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	if _, err := parseJSON(deepest); err != nil {
		t.Errorf("the deepest allowed value: %v", err)
	}
}

// The answer is written by hand, so it is held against encoding/json, too.
func FuzzAppendJSON(f *testing.F) {
	f.Add("granted", "perm_1", "a:b", "evt_1")
	f.Add("\"quoted\"", "\u2028\x00", "é\xff", "<&>")
	f.Fuzz(func(t *testing.T, reason, id, name, eventID string) {
		d := Decision{Allow: true, Reasons: []string{reason, name}, ID: id, Permission: &Permission{id, name, eventID}, DataRevision: "7", EventID: eventID, AsOf: id, PolicyRevision: name, Message: reason}
		b, err := d.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Decision bool
			Context  struct {
				Reasons        []string
				DecisionID     string                             `json:"decision_id"`
				Permission     struct{ ID, Name, EventID string } `json:"permission"`
				DataRevision   int                                `json:"data_revision"`
				PolicyRevision string                             `json:"policy_revision"`
				Message        string
			}
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if clean := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }; !got.Decision || len(got.Context.Reasons) != 2 || got.Context.DataRevision != 7 ||
			!sameText(got.Context.Reasons[0], clean(reason)) || !sameText(got.Context.DecisionID, clean(id)) || !sameText(got.Context.Permission.Name, clean(name)) {
			t.Fatalf("got %+v of %s", got, b)
		}
		if !bytes.HasSuffix(b, []byte("}}\n")) {
			t.Fatalf("it doesn't end: %s", b)
		}
	})
}

// sameText compares up to how many replacement characters stand for invalid bytes.
func sameText(a, b string) bool {
	fold := func(s string) string { return strings.ReplaceAll(s, "\ufffd", "") }
	return fold(a) == fold(b)
}

func TestQuestionRefuses(t *testing.T) {
	const good = `{"subject":{"type":"user","id":"usr_1"},"action":{"name":"a"},"resource":{"type":"r","id":"1"}}`
	if q, err := ParseQuestion([]byte(good)); err != nil || q.permission != "a" {
		t.Fatalf("got %v, %v", q, err)
	}
	for body, want := range map[string]string{
		``:     "want a JSON value",
		`[]`:   "want an object with subject, action and resource, got an array",
		`null`: "got null",
		`{}`:   "subject: want an object, got none",
		strings.Replace(good, `"type":"user"`, `"type":1`, 1):                    "subject.type: want a string, got a number",
		strings.Replace(good, `"id":"usr_1"`, `"id":""`, 1):                      "subject.id: want a string that isn't empty",
		strings.Replace(good, `{"name":"a"}`, `{}`, 1):                           "action.name: want a string, got none",
		strings.Replace(good, `{"name":"a"}`, `"a"`, 1):                          "action: want an object, got a string",
		strings.Replace(good, `{"name":"a"}`, `{"name":"a","properties":[]}`, 1): "action.properties: want an object, got an array",
		strings.Replace(good, `,"resource":{"type":"r","id":"1"}`, ``, 1):        "resource: want an object, got none",
		strings.Replace(good, `"id":"1"}}`, `"id":"1"},"context":null}`, 1):      "context: want an object, got null",
		strings.Replace(good, `"id":"1"}}`, `"id":"1"},"context":true}`, 1):      "context: want an object, got a boolean",
	} {
		if _, err := ParseQuestion([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

// What isn't part of a question must not reach policies: input.token will be Postern's word.
func TestUnknownMembersStayOutside(t *testing.T) {
	q, err := ParseQuestion([]byte(`{"token":{"valid":true},"subject":{"type":"user","id":"1","more":1},"action":{"name":"a"},"resource":{"type":"r","id":"1"},"context":{"ip":"::1"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(q.input); strings.Contains(got, "token") || !strings.Contains(got, `"ip"`) || !strings.Contains(got, `"more"`) {
		t.Errorf("got %s", got)
	}
}

// A question is a question whoever asks it: any body ends in a question or an error.
func FuzzParseQuestion(f *testing.F) {
	f.Add([]byte(`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":["data:manage"]}},"action":{"name":"data:manage"},"resource":{"type":"dataset","id":"ds_7"},"context":{}}`))
	f.Add([]byte(`{"subject":{"type":"user","id":"usr_1"},"action":{"name":"x"},"resource":{"type":"t","id":"i"},"extra":[1,{"deep":null}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := ParseQuestion(body)
		if err != nil {
			return
		}
		var want struct {
			Action struct {
				Name string `json:"name"`
			} `json:"action"`
		}
		if err := json.Unmarshal(body, &want); err != nil || q.permission == "" {
			t.Fatalf("got %q, %v", q.permission, err)
		}
		if len(q.input.Keys()) > 4 {
			t.Fatalf("got %v", q.input)
		}
	})
}

// BenchmarkParseQuestion compares the ways from a body to what OPA evaluates.
func BenchmarkParseQuestion(b *testing.B) {
	body := []byte(`{"subject":{"type":"user","id":"usr_1","properties":{"permissions":["data:manage","data:read","data:write","data:list"]}},"action":{"name":"data:manage"},"resource":{"type":"dataset","id":"ds_7"},"context":{}}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseQuestion(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json-to-map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var input map[string]any
			if err := json.Unmarshal(body, &input); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json-to-map-to-value", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var input map[string]any
			if err := json.Unmarshal(body, &input); err != nil {
				b.Fatal(err)
			}
			if _, err := ast.InterfaceToValue(input); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("opa-reader", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ast.ValueFromReader(bytes.NewReader(body)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a policy adds and can't be told doesn't get through as an allow.
func TestAnAnswerThatCantBeToldIsADeny(t *testing.T) {
	d := Decision{Allow: true, Reasons: []string{"granted"}, ID: "id", extra: ast.NewObject(ast.Item(ast.StringTerm("x"), ast.VarTerm("unbound")))}
	answer, told := encode(d)
	if told.Allow || told.Reasons[0] != ReasonEvaluationError || !strings.Contains(string(answer), `"decision":false`) || !json.Valid(answer) {
		t.Errorf("got %s", answer)
	}
}
