package author_test

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
	"github.com/postern-authz/postern/sidecar/author"
)

// libraryFunctions are the functions of the library, to the arguments that METADATA calls
// names of permissions.
func libraryFunctions(t *testing.T) map[string][]int {
	t.Helper()
	library, err := fs.Sub(policies.FS(), "lib")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := bundle.Load(t.Context(), library, bundle.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string][]int{}
	for _, module := range loaded.Modules() {
		for _, annotation := range module.Annotations {
			list, _ := annotation.Custom["permission_arguments"].([]any)
			for _, i := range list {
				index, err := strconv.Atoi(fmt.Sprint(i))
				if err != nil {
					t.Fatal(err)
				}
				name := annotation.GetTargetPath().String()
				functions[name] = append(functions[name], index)
			}
		}
	}
	return functions
}

// Names are followed into the library without being told where: what is found is what its
// METADATA says.
func TestNamesAreFollowedIntoTheLibrary(t *testing.T) {
	functions := libraryFunctions(t)
	if len(functions) < 5 {
		t.Fatalf("got %v", functions)
	}
	for name, arguments := range functions {
		if len(arguments) != 1 || arguments[0] != 0 {
			t.Fatalf("%s: this test knows functions of one argument, got %v", name, arguments)
		}
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.CopyFS("policies", policies.FS()); err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			for form, argument := range map[string]string{"a name": `"data:mange"`, "names": `["data:mange", "data:read"]`} {
				source := fmt.Sprintf("package mine\n\np if %s(%s)\n", name, argument)
				if err := os.WriteFile("policies/mine.rego", []byte(source), 0o600); err != nil {
					t.Fatal(err)
				}
				got := strings.Join(check(t, author.Check{Source: author.Source{Paths: []string{"policies"}}, Catalog: known()}), "\n")
				found[form] = strings.Contains(got, "policies/mine.rego:3:") && strings.Contains(got, `no permission "data:mange"; did you mean "data:manage"?`)
			}
			if !found["a name"] && !found["names"] {
				t.Errorf("a dead name wasn't found, neither alone nor among others")
			}
		})
	}
}

// The examples are clean but for names that a catalog without them can't have.
func TestExamplesAreClean(t *testing.T) {
	examples, err := fs.Glob(os.DirFS("../../examples"), "*-policy")
	if err != nil || len(examples) < 2 {
		t.Fatalf("got %v, %v", examples, err)
	}
	for _, example := range examples {
		c := author.Check{Source: author.Source{Paths: []string{"../../examples/" + example, "../../policies/lib"}}, Decision: "authz/decision"}
		wantLines(t, check(t, c))
		c.Catalog = known()
		for _, line := range check(t, c) {
			if !strings.Contains(line, "[unknown-permission]") {
				t.Errorf("got %s", line)
			}
		}
	}
}
