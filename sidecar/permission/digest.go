package permission

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Digest is a number modulo 2^256, big-endian: the SHA-256 of one content, or the
// sum of many. A sum doesn't depend on the order in which its terms came and gives up
// a term as cheaply as it takes one, so two catalogs compare by one number.
type Digest [sha256.Size]byte

// ContentDigest returns the SHA-256 over id, name and description, each preceded by
// its length in bytes as eight big-endian bytes. An absent description is an empty one.
func ContentDigest(id, name, description string) Digest {
	buffer := make([]byte, 0, 24+len(id)+len(name)+len(description))
	for _, part := range [...]string{id, name, description} {
		buffer = binary.BigEndian.AppendUint64(buffer, uint64(len(part)))
		buffer = append(buffer, part...)
	}
	return sha256.Sum256(buffer)
}

// Plus returns d + e modulo 2^256.
func (d Digest) Plus(e Digest) Digest {
	carry := 0
	for i := len(d) - 1; i >= 0; i-- {
		carry += int(d[i]) + int(e[i])
		d[i] = byte(carry)
		carry >>= 8
	}
	return d
}

// Minus returns d - e modulo 2^256.
func (d Digest) Minus(e Digest) Digest {
	borrow := 0
	for i := len(d) - 1; i >= 0; i-- {
		borrow += int(d[i]) - int(e[i])
		d[i] = byte(borrow)
		borrow >>= 8
	}
	return d
}

// Compare orders digests as the numbers they are.
func (d Digest) Compare(e Digest) int { return bytes.Compare(d[:], e[:]) }

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest is the inverse of [Digest.String].
func ParseDigest(text string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(d) {
		return Digest{}, fmt.Errorf("digest: want 64 hexadecimal digits")
	}
	copy(d[:], raw)
	return d, nil
}
