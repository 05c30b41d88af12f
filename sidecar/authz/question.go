package authz

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// MaxQuestion is the largest request body, in bytes.
const MaxQuestion = 1 << 20

// Question is one request in the AuthZEN information model (OpenID AuthZEN
// Authorization API 1.0, section 5), checked and ready to be evaluated.
type Question struct {
	permission string     // action.name
	input      ast.Object // subject, action, resource and context, nothing else
	token      string     // the raw access token that came in the context, which isn't in input
}

// Keys of a question, made once.
var (
	keySubject    = ast.StringTerm("subject")
	keyAction     = ast.StringTerm("action")
	keyResource   = ast.StringTerm("resource")
	keyContext    = ast.StringTerm("context")
	keyProperties = ast.StringTerm("properties")
	keyType       = ast.StringTerm("type")
	keyID         = ast.StringTerm("id")
	keyName       = ast.StringTerm("name")
)

// knownKeys are those, and what else the documentation puts into a question.
var knownKeys = map[string]*ast.Term{
	"subject": keySubject, "action": keyAction, "resource": keyResource, "context": keyContext,
	"properties": keyProperties, "type": keyType, "id": keyID, "name": keyName,
	"permissions": ast.StringTerm("permissions"), "organization_id": ast.StringTerm("organization_id"),
}

// ParseQuestion reads the JSON of a question. Unknown members are ignored and don't
// reach the policy, which can so rely on what Postern itself adds to the input. The
// error names the member, what was expected and what came.
func ParseQuestion(body []byte) (Question, error) {
	value, err := parseJSON(string(body))
	if err != nil {
		return Question{}, err
	}
	request, ok := value.(ast.Object)
	if !ok {
		return Question{}, fmt.Errorf("want an object with subject, action and resource, got %s", describe(value))
	}
	if err := checkEntity(request, keySubject, keyType, keyID); err != nil {
		return Question{}, err
	}
	if err := checkEntity(request, keyAction, keyName); err != nil {
		return Question{}, err
	}
	if err := checkEntity(request, keyResource, keyType, keyID); err != nil {
		return Question{}, err
	}
	if err := checkOptionalObject(request, keyContext, "context"); err != nil {
		return Question{}, err
	}
	request, token, err := stripToken(request)
	if err != nil {
		return Question{}, err
	}
	name := request.Get(keyAction).Value.(ast.Object).Get(keyName).Value.(ast.String)
	return Question{permission: string(name), input: knownMembers(request), token: token}, nil
}

func checkEntity(request ast.Object, key *ast.Term, required ...*ast.Term) error {
	path := string(key.Value.(ast.String))
	member := request.Get(key)
	if member == nil {
		return fmt.Errorf("%s: want an object, got none", path)
	}
	entity, ok := member.Value.(ast.Object)
	if !ok {
		return fmt.Errorf("%s: want an object, got %s", path, describe(member.Value))
	}
	for _, field := range required {
		if err := checkText(entity, path, field); err != nil {
			return err
		}
	}
	return checkOptionalObject(entity, keyProperties, path+".properties")
}

func checkText(entity ast.Object, path string, key *ast.Term) error {
	field := entity.Get(key)
	name := string(key.Value.(ast.String))
	if field == nil {
		return fmt.Errorf("%s.%s: want a string, got none", path, name)
	}
	text, ok := field.Value.(ast.String)
	if !ok {
		return fmt.Errorf("%s.%s: want a string, got %s", path, name, describe(field.Value))
	}
	if text == "" {
		return fmt.Errorf("%s.%s: want a string that isn't empty", path, name)
	}
	return nil
}

func checkOptionalObject(entity ast.Object, key *ast.Term, path string) error {
	member := entity.Get(key)
	if member == nil {
		return nil
	}
	if _, ok := member.Value.(ast.Object); !ok {
		return fmt.Errorf("%s: want an object, got %s", path, describe(member.Value))
	}
	return nil
}

// knownMembers leaves out what a question has no meaning for.
func knownMembers(request ast.Object) ast.Object {
	members := make([][2]*ast.Term, 0, 4)
	for _, key := range [...]*ast.Term{keySubject, keyAction, keyResource, keyContext} {
		if value := request.Get(key); value != nil {
			members = append(members, [2]*ast.Term{key, value})
		}
	}
	if len(members) == request.Len() {
		return request
	}
	return ast.NewObject(members...)
}

// describe names the JSON type of a value, with its article.
func describe(value ast.Value) string {
	switch value.(type) {
	case ast.Object:
		return "an object"
	case *ast.Array:
		return "an array"
	case ast.String:
		return "a string"
	case ast.Number:
		return "a number"
	case ast.Boolean:
		return "a boolean"
	default:
		return "null"
	}
}
