package bundle_test

import (
	"testing"

	"github.com/postern-authz/postern/bundle"
)

// FuzzSignatures takes bytes for the .signatures.json of a bundle, and for a key. Whatever
// they are: no panic, and only what the key signed is taken.
func FuzzSignatures(f *testing.F) {
	files := map[string]string{"authz.rego": allowRego}
	signing := bundle.SigningKey{Content: secret().private}
	good, err := bundle.Sign(f.Context(), bundle.Source{FS: tree(files)}, signing, bundle.LoadOptions{})
	if err != nil {
		f.Fatal(err)
	}
	for _, signatures := range []string{string(good), `{"signatures":["a.b.c"]}`, `{"signatures":["e30.e30.e30"],"plugin":"_default"}`, `{}`, `[`} {
		for _, key := range [][]byte{secret().public, pemOf("PUBLIC KEY", []byte("x")), []byte("-----BEGIN")} {
			f.Add(signatures, key)
		}
	}
	f.Fuzz(func(t *testing.T, signatures string, key []byte) {
		for _, files := range []map[string]string{files, {"authz.rego": allowRego + "# changed\n"}} {
			signed := tree(files)
			signed[".signatures.json"] = tree(map[string]string{"x": signatures})["x"]
			v, err := bundle.NewVerification([]bundle.VerificationKey{{Content: key}}, "")
			if err != nil {
				continue
			}
			_, err = bundle.Load(t.Context(), signed, bundle.LoadOptions{Verification: v})
			if err == nil && (string(key) != string(secret().public) || files["authz.rego"] != allowRego) {
				t.Errorf("got it with the key %q", key)
			}
		}
		_ = bundle.SigningKey{Content: key}.Check()
	})
}
