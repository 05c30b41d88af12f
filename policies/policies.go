// Package policies holds the Rego that Postern answers with when it is given no other:
// the built-in policy (package authz, entry rule authz/decision), the library that it and other
// policies are made of (the packages below lib), their tests, and the JSON schemas of what
// policies see.
//
// It promises that what a policy author finds in this directory is what the binary
// embeds, byte for byte, and that `opa test policies/` passes on it unchanged. Schemas
// end in .jsonschema because OPA would load .json and .yaml files as data.
package policies

import (
	"embed"
	"io/fs"
)

//go:embed authz lib schemas
var tree embed.FS

// FS returns the policies, tests included, as this directory holds them.
func FS() fs.FS { return tree }

// Schemas returns the JSON schemas of what policies see. The schema that a policy names
// as schema.input is in the file input.jsonschema, and so on.
func Schemas() fs.FS {
	schemas, err := fs.Sub(tree, "schemas")
	if err != nil {
		panic(err) // only for a name that isn't a path
	}
	return schemas
}
