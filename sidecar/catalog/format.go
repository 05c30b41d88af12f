package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// The file, format 2. It is a bbolt file (B+tree, copy on write) with four buckets:
//
//	meta      "format"       → "postern-catalog/2"
//	          "identity"     → seal( text epoch │ text environment )
//	          "header"       → seal( u64 revision │ u64 count │ u8 complete │ 32 digest │
//	                                 i64 newest instant │ u8 newest kind │ 32 newest content │ text newest event id )
//	          "roles"        → seal( uvarint count, and for each role text id │ text name │
//	                                 uvarint count, and as many texts ), absent before there are any
//	states    permission id  → seal( u8 kind │ u8 source │ i64 occurred_at │ i64 created_at │ 32 content │
//	                                 text name │ text event id │ text description │ marks )
//	bearers   name 00 id     → (empty)         every id whose state bears the name
//	names     name           → seal( id )      the id whose state decides for the name
//
//	marks are nothing, or i64 absent at │ i64 seen at │ i64 confirmed at
//	seal(x) is CRC-32C(bucket 00 key 00 x) as a u32, then x: a flipped bit, or a value that
//	stands under another key, is an error and not another permission. u64, i64 and u32 are
//	big-endian, i64 are Unix nanoseconds; text is a uvarint length and that many bytes.
//
// states is the truth; bearers, names, count and digest follow from it (see [Catalog.Verify]).
// Names and ids hold no control characters, so 00 ends them.
//
// "format" is read before anything else and stands outside of the seals, so that any
// version can tell which one wrote the file. A version reads its own format and, from the
// second on, the one before.
const (
	formatVersion = "postern-catalog/2"
	// formatBefore has neither marks nor roles. A file of it becomes one of this format with
	// the first commit.
	formatBefore = "postern-catalog/1"
)

var (
	bucketMeta    = []byte("meta")
	bucketStates  = []byte("states")
	bucketBearers = []byte("bearers")
	bucketNames   = []byte("names")

	keyFormat   = []byte("format")
	keyIdentity = []byte("identity")
	keyHeader   = []byte("header")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

var (
	errSeal      = errors.New("a value is damaged: its checksum doesn't match")
	errTruncated = errors.New("a value is damaged: it ends too early")
	errTrailing  = errors.New("a value is damaged: it goes on after its end")
)

// identity is what a file is, for as long as it exists.
type identity struct {
	epoch       string
	environment string
}

// header is what changes with each revision.
type header struct {
	revision uint64
	count    uint64
	complete bool
	digest   permission.Digest
	newest   eventKey
}

// eventKey is the merge rule's key of an event; the greatest one ever seen is the newest.
type eventKey struct {
	occurredAt permission.Instant
	kind       permission.Kind
	content    permission.Digest
	eventID    string
}

func keyOf(s permission.State) eventKey {
	return eventKey{s.OccurredAt, s.Kind, s.Content, s.EventID}
}

func (k eventKey) olderThan(other eventKey) bool {
	return permission.Compare(k.state(), other.state()) < 0
}

func (k eventKey) state() permission.State {
	return permission.State{OccurredAt: k.occurredAt, Kind: k.kind, EventID: k.eventID, Content: k.content}
}

func checksum(bucket, key, payload []byte) uint32 {
	sum := crc32.Update(0, castagnoli, bucket)
	sum = crc32.Update(sum, castagnoli, []byte{0})
	sum = crc32.Update(sum, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, []byte{0})
	return crc32.Update(sum, castagnoli, payload)
}

func seal(bucket, key, payload []byte) []byte {
	sealed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)), checksum(bucket, key, payload))
	return append(sealed, payload...)
}

func unseal(bucket, key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 || binary.BigEndian.Uint32(sealed) != checksum(bucket, key, sealed[4:]) {
		return nil, errSeal
	}
	return sealed[4:], nil
}

// encodeState leaves out the id, which is the key that the value stands under.
func encodeState(s permission.State) []byte {
	b := append(make([]byte, 0, 64+len(s.Name)+len(s.EventID)+len(s.Description)), byte(s.Kind), sourceCode(s.Source))
	b = binary.BigEndian.AppendUint64(b, uint64(s.OccurredAt))
	b = binary.BigEndian.AppendUint64(b, uint64(s.CreatedAt))
	b = append(b, s.Content[:]...)
	b = appendText(b, s.Name)
	b = appendText(b, s.EventID)
	b = appendText(b, s.Description)
	if s.Marks == (permission.Marks{}) {
		return b
	}
	for _, at := range [...]permission.Instant{s.AbsentAt, s.SeenAt, s.ConfirmedAt} {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	return b
}

func decodeState(id string, payload []byte) (permission.State, error) {
	d := decoder{rest: payload}
	s := permission.State{ID: id}
	s.Kind = permission.Kind(d.byte())
	s.Source = d.source()
	s.OccurredAt = d.instant()
	s.CreatedAt = d.instant()
	s.Content = d.digest()
	s.Name = d.text()
	s.EventID = d.text()
	s.Description = d.text()
	s.Marks = d.marks()
	if err := d.end(); err != nil {
		return permission.State{}, err
	}
	return s, s.Check()
}

func encodeHeader(h header) []byte {
	b := binary.BigEndian.AppendUint64(nil, h.revision)
	b = binary.BigEndian.AppendUint64(b, h.count)
	b = append(b, boolByte(h.complete))
	b = append(b, h.digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.newest.occurredAt))
	b = append(b, byte(h.newest.kind))
	b = append(b, h.newest.content[:]...)
	return appendText(b, h.newest.eventID)
}

func decodeHeader(payload []byte) (header, error) {
	d := decoder{rest: payload}
	var h header
	h.revision = d.uint64()
	h.count = d.uint64()
	h.complete = d.byte() == 1
	h.digest = d.digest()
	h.newest.occurredAt = d.instant()
	h.newest.kind = permission.Kind(d.byte())
	h.newest.content = d.digest()
	h.newest.eventID = d.text()
	return h, d.end()
}

func putIdentity(meta *bbolt.Bucket, i identity) error {
	payload := appendText(appendText(nil, i.epoch), i.environment)
	return meta.Put(keyIdentity, seal(bucketMeta, keyIdentity, payload))
}

// putter is a bucket, or one whose changes are noted.
type putter interface{ Put(key, value []byte) error }

func putHeader(meta putter, h header) error {
	return meta.Put(keyHeader, seal(bucketMeta, keyHeader, encodeHeader(h)))
}

// readMeta reads the format first: what else stands in the file depends on it.
func readMeta(tx *bbolt.Tx) (identity, header, error) {
	var format []byte
	meta := tx.Bucket(bucketMeta)
	if meta != nil {
		format = meta.Get(keyFormat)
	}
	if err := checkFormat(format, func(name []byte) bool { return tx.Bucket(name) != nil }); err != nil {
		return identity{}, header{}, err
	}
	i, err := openIdentity(meta.Get(keyIdentity))
	if err != nil {
		return identity{}, header{}, err
	}
	h, err := readHeader(meta)
	return i, h, err
}

// notOursError is about a file that may be whole, and isn't for this version of Postern.
type notOursError string

// Error says what the file is and what to do.
func (e notOursError) Error() string { return string(e) }

const errNoCatalog = notOursError("it isn't a Postern catalog; set --data-dir to another directory")

// checkFormat judges what stands under "format", nil where nothing does, and whether the
// buckets are there.
func checkFormat(found []byte, has func(bucket []byte) bool) error {
	if found == nil {
		return errNoCatalog
	}
	if string(found) != formatVersion && string(found) != formatBefore {
		return notOursError(fmt.Sprintf("its format is %.40q and this version reads %q and %q; run the version of Postern that wrote it, or set --data-dir to another directory", found, formatBefore, formatVersion))
	}
	for _, name := range [][]byte{bucketStates, bucketBearers, bucketNames} {
		if !has(name) {
			return fmt.Errorf("its bucket %q is missing", name)
		}
	}
	return nil
}

func openIdentity(sealed []byte) (identity, error) {
	payload, err := unseal(bucketMeta, keyIdentity, sealed)
	if err != nil {
		return identity{}, fmt.Errorf("reading its identity: %w", err)
	}
	d := decoder{rest: payload}
	i := identity{epoch: d.text(), environment: d.text()}
	return i, d.end()
}

func readHeader(meta *bbolt.Bucket) (header, error) { return openHeader(meta.Get(keyHeader)) }

func openHeader(sealed []byte) (header, error) {
	payload, err := unseal(bucketMeta, keyHeader, sealed)
	if err != nil {
		return header{}, fmt.Errorf("reading its header: %w", err)
	}
	return decodeHeader(payload)
}

// readState returns false when there is no state of that id.
func readState(states *bbolt.Bucket, id []byte) (permission.State, bool, error) {
	sealed := states.Get(id)
	if sealed == nil {
		return permission.State{}, false, nil
	}
	s, err := openState(id, sealed)
	return s, err == nil, err
}

// openState reads the value that stands under id.
func openState(id, sealed []byte) (permission.State, error) {
	payload, err := unseal(bucketStates, id, sealed)
	if err != nil {
		return permission.State{}, fmt.Errorf("reading the state of permission %.64q: %w", id, err)
	}
	s, err := decodeState(string(id), payload)
	if err != nil {
		return permission.State{}, fmt.Errorf("decoding the state of permission %.64q: %w", id, err)
	}
	return s, nil
}

func bearerKey(name, id string) []byte {
	key := make([]byte, 0, len(name)+1+len(id))
	return append(append(append(key, name...), 0), id...)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func sourceCode(s permission.Source) byte {
	switch s {
	case permission.SourceReconcile:
		return 2
	case permission.SourceRestore:
		return 3
	default:
		return 1
	}
}
