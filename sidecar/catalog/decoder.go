package catalog

import (
	"encoding/binary"
	"fmt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// decoder takes a value apart from the front. Its first failure sticks, so that a
// reader of many fields asks once, at the end.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint64) []byte {
	if d.err == nil && n > uint64(len(d.rest)) {
		d.err = errTruncated
	}
	if d.err != nil {
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) digest() (digest permission.Digest) {
	copy(digest[:], d.take(uint64(len(digest))))
	return digest
}

func (d *decoder) text() string { return string(d.bytes()) }

// bytes returns a text in place.
func (d *decoder) bytes() []byte {
	return d.take(d.count())
}

func (d *decoder) source() permission.Source {
	switch code := d.byte(); code {
	case 1:
		return permission.SourceWebhook
	case 2:
		return permission.SourceReconcile
	case 3:
		return permission.SourceRestore
	default:
		if d.err == nil {
			d.err = fmt.Errorf("a value is damaged: no source has the code %d", code)
		}
		return ""
	}
}

// marks returns those that end the state of a permission, if there are any.
func (d *decoder) marks() (m permission.Marks) {
	if d.err == nil && len(d.rest) > 0 {
		m.AbsentAt, m.SeenAt, m.ConfirmedAt = d.instant(), d.instant(), d.instant()
	}
	return m
}

// count returns how many things follow.
func (d *decoder) count() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		size, n = len(d.rest)+1, 0 // take fails
	}
	d.take(uint64(size))
	return n
}

func (d *decoder) instant() permission.Instant { return permission.Instant(d.uint64()) }

func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.err = errTrailing
	}
	return d.err
}
