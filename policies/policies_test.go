package policies_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/loader"

	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/policies/policiestest"
)

// The tests beside the policies, as `opa test` runs them, with each line covered.
func TestRego(t *testing.T) {
	policiestest.RunRego(t, 100, ".")
}

// What `opa test policies/` does with this directory: all it can read becomes data. Only
// Rego may be among it.
func TestTheDirectoryHoldsNoData(t *testing.T) {
	loaded, err := loader.NewFileLoader().WithProcessAnnotation(true).Filtered([]string{"."}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.Documents) > 0 {
		t.Errorf("got data %v, want none", loaded.Documents)
	}
	if here, within := len(loaded.Modules), len(policiestest.Parse(t, policies.FS())); here != within {
		t.Errorf("got %d modules in the directory and %d embedded, want as many", here, within)
	}
}
