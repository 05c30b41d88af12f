package policies_test

import (
	"testing"
	"testing/fstest"

	"github.com/postern-authz/postern/policies/policiestest"
)

// A typo in a reference is an error, free-form parts are free.
func TestSchemasCatchTypos(t *testing.T) {
	for reference, wantError := range map[string]bool{
		"input.subject.id":                                false,
		"input.subject.properties.department.name":        false,
		"input.action.properties.x":                       false,
		"input.resource.properties.owner[0]":              false,
		"input.context.ip.v6":                             false,
		"input.token.claims.anything.else":                false,
		`input.token.error == "token_expired"`:            false,
		"data.scalekit.roles.admin.permissions":           false,
		`data.scalekit.sync.state == "fresh"`:             false,
		"input.token.valid == 1":                          true,
		"input.token.claim":                               true,
		"input.tokens":                                    true,
		"data.scalekit.role":                              true,
		"data.scalekit.permissions[input.action.name].id": false,
		`data.scalekit.permissions["data:manage"]`:        false,
		"data.scalekit.deleted[input.action.name]":        false,
		"data.scalekit.sync.complete":                     false,
		"data.postern.settings.on_incomplete":             false,
		"data.other.anything":                             false,
		"input.sbject":                                    true,
		"input.subject.proprties":                         true,
		"input.action.nam":                                true,
		"input.resource.organization_id":                  true,
		"input.permission":                                true,
		"data.scalekit.permisions":                        true,
		"data.scalekit.permission":                        true,
		"data.scalekit.sync.completed":                    true,
		"data.postern.setings":                            true,
		"data.postern.settings.onIncomplete":              true,
		"data.scalekit.sync.event_id == null":             false,
		"data.scalekit.sync.revision == 7":                false,
		`data.scalekit.sync.complete == "true"`:           true,
		`data.postern.settings.on_incomplete == true`:     true,
	} {
		source := "# METADATA\n# schemas:\n#   - input: schema.input\n#   - data.scalekit: schema.scalekit\n#   - data.postern: schema.postern\npackage trial\n\np if " + reference + "\n"
		_, err := policiestest.TryCompile(t, fstest.MapFS{"trial.rego": {Data: []byte(source)}})
		if (err != nil) != wantError {
			t.Errorf("%s: got %v, want an error: %t", reference, err, wantError)
		}
	}
}
