package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	largePermissions = 1_000_000
	largeDeleted     = 1000
	largeTrace       = 1 << 17 // questions: most of their names don't fit into the LRU
)

// largeCatalog is a catalog of so many permissions that it is made up line by line and
// never held. Its ids follow the numbers of the permissions; the names' frequencies in a
// trace don't, so that what is asked for often lies all over the file.
type largeCatalog struct{ live, deleted int }

func (c largeCatalog) name(i int) string {
	return fmt.Sprintf("resource%06d:%s", i/4, [...]string{"read", "write", "manage", "share"}[i%4])
}

func (c largeCatalog) retiredName(i int) string { return fmt.Sprintf("retired%06d:manage", i) }

// ranked returns the number of the permission that is asked for that often, 0 most often.
func (c largeCatalog) ranked(rank int) int {
	const prime = 7_368_787 // larger than any catalog here, so that each rank has a permission of its own
	return rank * prime % c.live
}

// records hands over all records, the deleted ones last.
func (c largeCatalog) records(take func(r record, deleted bool) error) error {
	for i := range c.live {
		if err := take(madeUp(i, c.name(i)), false); err != nil {
			return err
		}
	}
	for i := range c.deleted {
		if err := take(madeUp(c.live+i, c.retiredName(i)), true); err != nil {
			return err
		}
	}
	return nil
}

// writeDump writes what `postern catalog restore` takes.
func (c largeCatalog) writeDump(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	fmt.Fprintf(buffered, `{"format":"postern-dump/1","environment_id":%q,"complete":true,"states":%d}`+"\n", environmentID, c.live+c.deleted)
	err := c.records(func(r record, deleted bool) error {
		if deleted {
			// The digest is of the deletion's text, which nobody reads.
			_, err := fmt.Fprintf(buffered, `{"id":%q,"name":%q,"kind":"deleted","occurred_at":%q,"event_id":%q,"source":%q,"content":"%064d"}`+"\n",
				r.ID, r.Name, r.UpdatedAt, r.EventID, r.Source, 0)
			return err
		}
		_, err := fmt.Fprintf(buffered, `{"id":%q,"name":%q,"description":%q,"kind":"updated","occurred_at":%q,"event_id":%q,"created_at":%q,"source":%q}`+"\n",
			r.ID, r.Name, r.Description, r.UpdatedAt, r.EventID, r.CreatedAt, r.Source)
		return err
	})
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("writing the dump: %w", err)
	}
	return nil
}

// writeData writes a data file of OPA with the document that Postern shows to policies.
func (c largeCatalog) writeData(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	lines := json.NewEncoder(buffered)
	between := `{"scalekit":{"permissions":{`
	begun := false // the deletions
	err := c.records(func(r record, deleted bool) error {
		if deleted && !begun {
			begun, between = true, `},"deleted":{`
		}
		fmt.Fprintf(buffered, "%s%q:", between, r.Name)
		between = ","
		if deleted {
			return lines.Encode(map[string]string{"id": r.ID, "deleted_at": r.UpdatedAt, "event_id": r.EventID})
		}
		return lines.Encode(r)
	})
	fmt.Fprintf(buffered, `},"sync":{"revision":1,"complete":true,"count":%d}},"postern":{"settings":{"on_incomplete":"deny"}}}`, c.live)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("writing the data file: %w", err)
	}
	return nil
}

// events streams changes of the catalog.
func (c largeCatalog) events(keys webhook.Keys) *eventStream {
	return &eventStream{keys: keys, count: c.live, known: func(i int) (id, name string) {
		i = c.ranked(i)
		return fmt.Sprintf("perm_%012d", i), c.name(i)
	}}
}

// trace draws questions as newTrace does: which permission by Zipf's law over all of them.
func (c largeCatalog) trace(length int) []question {
	random := rand.New(rand.NewPCG(traceSeed, 2)) //nolint:gosec // the same trace each time
	zipf := rand.NewZipf(random, zipfS, 1, uint64(c.live-1))
	trace := make([]question, length)
	for i := range trace {
		name := c.name(c.ranked(int(zipf.Uint64())))
		switch dice := random.IntN(100); {
		case dice < percentNotGranted:
			trace[i] = c.question(random, name, "not_granted")
		case dice < percentNotGranted+percentUnknown:
			trace[i] = c.question(random, "unheard-of:"+strconv.Itoa(random.IntN(1000)), "permission_unknown")
		case dice < percentNotGranted+percentUnknown+percentDeleted:
			trace[i] = c.question(random, c.retiredName(random.IntN(c.deleted)), "permission_deleted")
		default:
			trace[i] = c.question(random, name, "granted")
		}
	}
	return trace
}

// granted returns a question for each of the permissions, which the subject holds. No two
// are the same, and so none is answered from anything but the record.
func (c largeCatalog) granted(permissions []int) []question {
	random := rand.New(rand.NewPCG(traceSeed, 3)) //nolint:gosec // the same questions each time
	questions := make([]question, len(permissions))
	for i, permission := range permissions {
		questions[i] = c.question(random, c.name(permission), "granted")
	}
	return questions
}

func (c largeCatalog) question(random *rand.Rand, name, reason string) question {
	held := make([]string, 0, heldCount)
	if reason != "not_granted" {
		held = append(held, name)
	}
	for len(held) < heldCount {
		if other := c.name(random.IntN(c.live)); other != name {
			held = append(held, other)
		}
	}
	random.Shuffle(heldCount, func(i, j int) { held[i], held[j] = held[j], held[i] })
	var body bytes.Buffer
	fmt.Fprintf(&body, `{"subject":{"type":"user","id":"usr_%06d","properties":{"permissions":[`, random.IntN(1_000_000))
	for i, permission := range held {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, "%q", permission)
	}
	fmt.Fprintf(&body, `]}},"action":{"name":%q},"resource":{"type":"dataset","id":"ds_%06d"},"context":{}}`, name, random.IntN(1_000_000))
	return question{body: slices.Clip(body.Bytes()), name: name, allow: reason == "granted", reason: reason}
}
