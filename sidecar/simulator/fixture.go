package simulator

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/postern-authz/postern/sidecar/permission"
)

// MaxFixture is the largest fixture file, in bytes.
const MaxFixture = 8 << 20

// Fixture is what exists at the start. Listings show it; no webhook tells of it.
type Fixture struct {
	Permissions []FixturePermission
	Roles       []Role // each behind those that it extends
}

// FixturePermission is a permission of a [Fixture].
type FixturePermission struct {
	ID          string // empty: one is made
	Name        string
	Description string
}

// Numbered returns a fixture of n permissions, "generated:1" and so on.
func Numbered(n int) Fixture {
	f := Fixture{Permissions: make([]FixturePermission, n)}
	for i := range f.Permissions {
		f.Permissions[i] = FixturePermission{Name: fmt.Sprintf("generated:%d", i+1), Description: fmt.Sprintf("Generated permission %d", i+1)}
	}
	return f
}

// ReadFixture reads YAML or JSON:
//
//	permissions:
//	  - {name: data:read, description: Read data}
//	roles:
//	  - {name: viewer, permissions: [data:read]}
//
// Its error wraps [ErrInvalid] and names the field, what was expected and what came.
func ReadFixture(text []byte) (Fixture, error) {
	if len(text) > MaxFixture {
		return Fixture{}, fmt.Errorf("%w: want at most %d bytes, got %d", ErrInvalid, MaxFixture, len(text))
	}
	top, err := parseYAML(text)
	if err != nil {
		return Fixture{}, err
	}
	top.only("permissions", "roles")
	var f Fixture
	for _, o := range top.objects("permissions") {
		f.Permissions = append(f.Permissions, o.fixturePermission())
		top.fail(o.err)
	}
	for _, o := range top.objects("roles") {
		f.Roles = append(f.Roles, o.role())
		top.fail(o.err)
	}
	if top.err != nil {
		return Fixture{}, top.err
	}
	return f, nil
}

// parseYAML makes JSON of it, which one decoder then reads. YAML refuses a key twice itself.
func parseYAML(text []byte) (*object, error) {
	var document any
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%w: want YAML or JSON: %w", ErrInvalid, err)
	}
	encoded, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("%w: want what JSON can say, too: keys that are texts, and numbers", ErrInvalid)
	}
	o := parseObject(encoded)
	return o, o.err
}

func (o *object) fixturePermission() FixturePermission {
	o.only("id", "name", "description")
	o.require("name")
	f := FixturePermission{ID: o.text("id"), Name: o.text("name"), Description: o.text("description")}
	if err := permission.CheckText(o.path+"id", f.ID, 0, documentedIDLength); err != nil {
		o.fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	return f
}

// documentedIDLength is the longest id that Scalekit documents, in bytes.
const documentedIDLength = 32

func (o *object) role() Role {
	o.only("name", "display_name", "description", "extends", "permissions")
	o.require("name")
	return Role{
		Name: o.text("name"), DisplayName: o.text("display_name"), Description: o.text("description"),
		Extends: o.text("extends"), Permissions: o.texts("permissions"),
	}
}
