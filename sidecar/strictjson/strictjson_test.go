package strictjson_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-authz/postern/sidecar/strictjson"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":[1,"x",null,true],"b":{"a":1}}`: "<nil>",
		`"\ud83d\ude00 \\ud800"`:              "<nil>",
		`[[1]]`:                               "<nil>",
		`[[[1]]]`:                             "want at most 2 nested values",
		`{"a":1,"b":{"c":1,"c":2}}`:           "want each key once in an object",
		`{"a":1,"\u0061":2}`:                  "want each key once in an object",
		`"\ud800"`:                            "want escaped surrogates in pairs",
		`"\ude00\ud83d"`:                      "want escaped surrogates in pairs",
		"\"\xff\"":                            "want UTF-8",
		`{} {}`:                               "want one JSON value",
		``:                                    "want one JSON value",
		`{"a":1`:                              "want one JSON value",
	} {
		if got := fmt.Sprint(strictjson.Check([]byte(text), 2)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestMembers(t *testing.T) {
	object, err := strictjson.Parse([]byte(`{"text":"x","empty":"","null":null,"number":1,"inner":{"text":"y"}}`))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := object.Object("top.inner")
	if text, textErr := inner.Text("top.inner.text"); err != nil || textErr != nil || text != "y" {
		t.Errorf("got %q, %v, %v", text, err, textErr)
	}
	for path, want := range map[string]string{"text": "x", "empty": "", "null": "", "none": ""} {
		if got, err := object.OptionalText(path); err != nil || got != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
	for path, want := range map[string]string{"top.Text": "got none", "top.empty": "got an empty one", "top.null": "got null", "top.number": "got a number", "top.inner": "got an object"} {
		if _, err := object.Text(path); err == nil || !strings.HasPrefix(err.Error(), path+": want a string that isn't empty") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := object.Object("top.text"); fmt.Sprint(err) != "top.text: want an object, got a string" {
		t.Errorf("got %v", err)
	}
	if _, err := object.OptionalText("top.number"); fmt.Sprint(err) != "top.number: want a string that isn't empty, got a number" {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{"true": "true <nil>", "false": "false <nil>", "null": "false <nil>", "1": "false top.b: want true or false, got a number", `"true"`: "false top.b: want true or false, got a string"} {
		got, err := strictjson.Object{"b": []byte(text)}.OptionalBoolean("top.b")
		if fmt.Sprint(got, err) != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	if got, err := object.OptionalBoolean("none"); got || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
