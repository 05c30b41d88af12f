package catalog

import (
	"testing"

	"github.com/postern-authz/postern/sidecar/permission"
)

// What is decoded can be kept, and survives being encoded again; anything else is an error.
func FuzzDecodeState(f *testing.F) {
	for _, kind := range []permission.Kind{permission.Created, permission.Deleted} {
		s := described(kind, 1, "a", "described").State()
		f.Add(encodeState(s))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := decodeState("perm_1", payload)
		if err != nil {
			return
		}
		if err := s.Check(); err != nil {
			t.Fatalf("a state that can't be kept was decoded: %v", err)
		}
		again, err := decodeState("perm_1", encodeState(s))
		if err != nil || again != s {
			t.Fatalf("got %+v, %v, want %+v", again, err, s)
		}
	})
}

func TestSealTellsEveryFlippedBitAndEveryOtherPlace(t *testing.T) {
	payload := encodeState(described(permission.Created, 1, "a", "described").State())
	sealed := seal(bucketStates, []byte("perm_a"), payload)
	if got, err := unseal(bucketStates, []byte("perm_a"), sealed); err != nil || string(got) != string(payload) {
		t.Fatalf("got %x, %v", got, err)
	}
	for bit := range len(sealed) * 8 {
		flipped := append([]byte(nil), sealed...)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := unseal(bucketStates, []byte("perm_a"), flipped); err == nil {
			t.Fatalf("flipping bit %d was not noticed", bit)
		}
	}
	if _, err := unseal(bucketStates, []byte("perm_b"), sealed); err == nil {
		t.Error("a value under another key was taken")
	}
	if _, err := unseal(bucketNames, []byte("perm_a"), sealed); err == nil {
		t.Error("a value in another bucket was taken")
	}
	for length := range payload {
		if _, err := decodeState("perm_a", payload[:length]); err == nil {
			t.Fatalf("a state cut off after %d bytes was decoded", length)
		}
	}
}
