package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postern-authz/postern/sidecar/permission"
)

const documentedEvent = `{"spec_version":"1","id":"evt_2345678901","type":"permission.updated","object":"Permission",
 "environment_id":"env_1234567890","occurred_at":"2024-01-15T10:35:00.123456789Z",
 "data":{"id":"perm_1234567890","name":"data:manage","description":"Updated permission to manage all data"}}`

func TestDecodeDocumentedEvents(t *testing.T) {
	for eventType, kind := range map[string]permission.Kind{
		"permission.created": permission.Created, "permission.updated": permission.Updated, "permission.deleted": permission.Deleted,
	} {
		d, err := decode([]byte(strings.Replace(documentedEvent, "permission.updated", eventType, 1)))
		if err != nil {
			t.Fatal(err)
		}
		want := permission.Event{
			ID: "evt_2345678901", Kind: kind, OccurredAt: 1705314900123456789, EnvironmentID: "env_1234567890",
			PermissionID: "perm_1234567890", Name: "data:manage", Description: "Updated permission to manage all data",
		}
		if d.event != want || d.eventType != eventType || len(d.warnings) > 0 {
			t.Errorf("got %+v", d)
		}
	}
}

// with changes the documented event once.
func with(old, replacement string) string {
	changed := strings.Replace(documentedEvent, old, replacement, 1)
	if changed == documentedEvent {
		panic("nothing was changed: " + old)
	}
	return changed
}

func TestDecodeIsLenientWhereARefusalWouldLoseTheEvent(t *testing.T) {
	for name, test := range map[string]struct{ body, warning string }{
		"unknown fields":             {with(`"object"`, `"new":{"deep":[1]},"object"`), ""},
		"another spec_version":       {with(`"spec_version":"1"`, `"spec_version":"2"`), "spec_version"},
		"a numeric spec_version":     {with(`"spec_version":"1"`, `"spec_version":1`), "spec_version"},
		"no spec_version":            {with(`"spec_version":"1",`, ``), "spec_version"},
		"no object":                  {with(`"object":"Permission",`, ``), ""},
		"no description":             {with(`,"description":"Updated permission to manage all data"`, ``), ""},
		"a null description":         {with(`"Updated permission to manage all data"`, `null`), ""},
		"an empty description":       {with(`"Updated permission to manage all data"`, `""`), ""},
		"another offset":             {with(`2024-01-15T10:35:00.123456789Z`, `2024-01-15T12:35:00+02:00`), ""},
		"a name of 256 bytes":        {with(`data:manage`, strings.Repeat("n", 256)), "data.name"},
		"a name with a hyphen":       {with(`data:manage`, `data-manage`), "data.name"},
		"an id of 33 bytes":          {with(`evt_2345678901`, strings.Repeat("e", 33)), "an id is longer"},
		"escapes and pairs":          {with(`"Updated permission to manage all data"`, `"\ud83d\ude00 \"\\\u0041\\ud800"`), ""},
		"pairs of any case":          {with(`"Permission"`, `"\uD83D\uDE00\uDBFF\uDFFF\udAaA\udeAd\ud83d\ude00"`), ""},
		"32 nested values":           {with(`"Permission"`, strings.Repeat(`{"a":`, 31)+"1"+strings.Repeat("}", 31)), ""},
		"a name of 100 bytes":        {with(`data:manage`, strings.Repeat("n", 100)), ""},
		"a name of 101 bytes":        {with(`data:manage`, strings.Repeat("n", 101)), "data.name"},
		"every documented character": {with(`data:manage`, `azAZ09_:`), ""},
		"an id of 32 bytes":          {with(`evt_2345678901`, strings.Repeat("e", 32)), ""},
		"an id of 256 bytes":         {with(`evt_2345678901`, strings.Repeat("e", 256)), "an id is longer"},
		"a permission id of 33":      {with(`perm_1234567890`, strings.Repeat("p", 33)), "an id is longer"},
		"a key in two objects":       {with(`"object"`, `"x":[{"id":1},{"id":1}],"object"`), ""},
		"a description of the limit": {with(`Updated permission to manage all data`, strings.Repeat("d", permission.MaxDescription)), ""},
		"an upper-case twin field":   {with(`"id":"evt_2345678901"`, `"ID":"evt_other","id":"evt_2345678901"`), ""},
	} {
		d, err := decode([]byte(test.body))
		if err != nil || (len(d.warnings) > 0) != (test.warning != "") || (test.warning != "" && !strings.HasPrefix(d.warnings[0], test.warning)) {
			t.Errorf("%s: got %v, %v", name, d.warnings, err)
		}
		if d.event.ID == "evt_other" {
			t.Errorf("%s: another field was taken for the id", name)
		}
	}
}

// A refused deletion would be lost after the last retry, and the permission stay alive. Its
// description isn't kept, so it is no reason to refuse.
func TestDecodeTakesADeletionWithADescriptionOfAnyLength(t *testing.T) {
	long := with(`Updated permission to manage all data`, strings.Repeat("d", permission.MaxDescription+1))
	if d, err := decode([]byte(strings.Replace(long, "permission.updated", "permission.deleted", 1))); err != nil || d.event.Kind != permission.Deleted {
		t.Errorf("got %v, %v", d.event.Kind, err)
	}
}

func TestDecodeForeignTypes(t *testing.T) {
	for _, body := range []string{
		`{"type":"organization.created","environment_id":"env_1"}`,
		`{"type":"permission.archived","environment_id":"env_1","occurred_at":"never","data":7}`,
	} {
		if d, err := decode([]byte(body)); err != nil || d.event.Kind != 0 || d.event.EnvironmentID != "env_1" {
			t.Errorf("%s: got %+v, %v", body, d, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32) // within the event: 33
	for body, want := range map[string]string{
		``:      "want one JSON value",
		`{`:     "want one JSON value",
		`{} {}`: "want one JSON value",
		`[]`:    "want an object, got an array",
		`null`:  "want an object, got null",
		`{}`:    "type: want a string that isn't empty, got none",
		with(`"environment_id":"env_1234567890",`, ``):                                                  "environment_id: want a string that isn't empty, got none",
		`{"type":7,"environment_id":"env_1"}`:                                                           "type: want a string that isn't empty, got a number",
		`{"type":"user.created"}`:                                                                       "environment_id: want a string that isn't empty, got none",
		`{"type":"user.created","environment_id":["env_1"]}`:                                            "environment_id: want a string that isn't empty, got an array",
		`{"type":"user.created","environment_id":"e","type":"x"}`:                                       "want each key once",
		`{"Type":"user.created","environment_id":"env_1"}`:                                              "type: want a string that isn't empty, got none",
		with(`evt_2345678901`, `evt\n1`):                                                                "id: want no control characters",
		with(`perm_1234567890`, strings.Repeat("p", 257)):                                               "data.id: want 1 to 256 bytes, got 257",
		with(`"occurred_at":"2024-01-15T10:35:00.123456789Z",`, ``):                                     "occurred_at: want a string that isn't empty, got none",
		with(`"2024-01-15T10:35:00.123456789Z"`, `1705314900`):                                          "occurred_at: want a string that isn't empty, got a number",
		with(`"id":"perm_1234567890",`, ``):                                                             "data.id: want a string that isn't empty, got none",
		with(`"name":"data:manage",`, ``):                                                               "data.name: want a string that isn't empty, got none",
		with(`"data":{`, `"data":"x","more":{`):                                                         "data: want an object, got a string",
		documentedEvent + `{}`:                                                                          "want one JSON value",
		with(`"Permission"`, `"\ud83d\ude00\ud800"`):                                                    "surrogates in pairs",
		with(`"Permission"`, `"\ud800xudc00"`):                                                          "surrogates in pairs",
		with(`"Permission"`, `"\ud800\ndc00"`):                                                          "surrogates in pairs",
		with(`"Permission"`, `"\udc00\udc00"`):                                                          "surrogates in pairs",
		with(`"Permission"`, `"\ud800x"`):                                                               "surrogates in pairs",
		with(`"Permission"`, `"\ud800\ud800"`):                                                          "surrogates in pairs",
		with(`"Permission"`, `"\uDFFF"`):                                                                "surrogates in pairs",
		with(`"id":"evt_2345678901"`, `"id":7`):                                                         "id: want a string that isn't empty, got a number",
		with(`"id":"evt_2345678901"`, `"id":null`):                                                      "id: want a string that isn't empty, got null",
		with(`"id":"evt_2345678901"`, `"ID":"evt_2345678901"`):                                          "id: want a string that isn't empty, got none",
		with(`evt_2345678901`, strings.Repeat("e", 257)):                                                "id: want 1 to 256 bytes, got 257",
		with(`2024-01-15T10:35:00.123456789Z`, `yesterday`):                                             "occurred_at: want an RFC 3339 time",
		with(`2024-01-15T10:35:00.123456789Z`, `0001-01-01T00:00:00Z`):                                  "occurred_at: want a time from 1970",
		with(`"name":"data:manage"`, `"name":["data:manage"]`):                                          "data.name: want a string that isn't empty, got an array",
		with(`data:manage`, ``):                                                                         "data.name: want a string that isn't empty, got an empty one",
		with(`data:manage`, `data\u0000manage`):                                                         "data.name: want no control characters",
		with(`data:manage`, strings.Repeat("n", 257)):                                                   "data.name: want 1 to 256 bytes, got 257",
		with(`"id":"perm_1234567890"`, `"id":{}`):                                                       "data.id: want a string that isn't empty, got an object",
		with(`Updated permission to manage all data`, strings.Repeat("d", permission.MaxDescription+1)): "data.description: want at most",
		with(`"Updated permission to manage all data"`, `true`):                                         "data.description: want a string that isn't empty, got a boolean",
		with(`"data":{`, `"data":null,"more":{`):                                                        "data: want an object, got null",
		with(`"object"`, `"id":"evt_other","object"`):                                                   "want each key once",
		with(`"name":"data:manage"`, `"name":"data:manage","na\u006de":"x"`):                            "want each key once",
		with(`"object"`, `"x":[{"a":1,"a":2}],"object"`):                                                "want each key once",
		with(`"Permission"`, `"\ud800"`):                                                                "surrogates in pairs",
		with(`"Permission"`, `"\udc00\ud800"`):                                                          "surrogates in pairs",
		with(`"Permission"`, `"\ud800\u0041"`):                                                          "surrogates in pairs",
		with(`"Permission"`, "\"\xff\""):                                                                "want UTF-8",
		with(`"Permission"`, deep):                                                                      "want at most 32 nested values",
	} {
		_, err := decode([]byte(body))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s…: got %v, want %q", body, err, want)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

// FuzzDecode: what is taken can be kept, says what encoding/json reads of it, and survives
// being written again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(documentedEvent))
	f.Add([]byte(`{"type":"organization.created","environment_id":"env_1"}`))
	f.Add([]byte(with(`"object"`, `"x":"\ud83d\ude00\ud800","object"`)))
	f.Add([]byte(with(`"object"`, `"a":{"b":[[[]]]},"a":1,"object"`)))
	f.Add([]byte(`{"type":"permission.created","environment_id":"e","id":"i","occurred_at":"2024-01-15T10:35:00+23:59","data":{"id":"p","name":"\u00e9"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := decode(body)
		if err != nil {
			return
		}
		var envelope map[string]any
		if err := json.Unmarshal(body, &envelope); err != nil || envelope["type"] != d.eventType || envelope["environment_id"] != d.event.EnvironmentID {
			t.Fatalf("got %q of %q, want %v, %v", d.eventType, d.event.EnvironmentID, envelope, err)
		}
		if d.event.Kind == 0 {
			return
		}
		if err := permission.CheckText("id", d.event.ID, 1, permission.MaxID); err != nil {
			t.Fatal(err)
		}
		if err := d.event.State().Check(); err != nil {
			t.Fatalf("an event that can't be kept was taken: %v", err)
		}
		var standard map[string]any
		if err := json.Unmarshal(body, &standard); err != nil || !utf8.Valid(body) {
			t.Fatalf("not JSON: %v", err)
		}
		data := standard["data"].(map[string]any)
		if description, _ := data["description"].(string); description != d.event.Description {
			t.Fatalf("got the description %q of %s", d.event.Description, body)
		}
		if standard["id"] != d.event.ID || data["name"] != d.event.Name || data["id"] != d.event.PermissionID || standard["environment_id"] != d.event.EnvironmentID {
			t.Fatalf("got %+v of %s", d.event, body)
		}
		again, err := json.Marshal(map[string]any{
			"type": d.eventType, "environment_id": d.event.EnvironmentID, "id": d.event.ID, "occurred_at": d.event.OccurredAt.String(),
			"data": map[string]any{"id": d.event.PermissionID, "name": d.event.Name, "description": d.event.Description},
		})
		if err != nil {
			t.Fatal(err)
		}
		if rewritten, err := decode(again); err != nil || rewritten.event != d.event {
			t.Fatalf("got %+v, %v, want %+v", rewritten.event, err, d.event)
		}
	})
}

func ExampleKeys() {
	keys, err := ParseKeys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	fmt.Println(keys, err)
	// Output: [redacted] <nil>
}
