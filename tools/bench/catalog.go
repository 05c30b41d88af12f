package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// deletedCount is how many deletions the catalog remembers besides what lives.
const deletedCount = 200

// environmentID is the Scalekit environment that the catalog and all events are of.
const environmentID = "env_benchmark"

// instantLayout is how Postern writes times.
const instantLayout = "2006-01-02T15:04:05.000000000Z"

// catalog is what both servers know, made up.
type catalog struct {
	live    []record
	deleted []record
}

// record is one permission as policies see it.
type record struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	CreatedAt   string `json:"created_at"`
	UpdatedAt   string `json:"updated_at"`
	EventID     string `json:"event_id"`
	Source      string `json:"source"`
}

// newCatalog makes up so many live permissions and some deleted ones, in an order that
// says nothing about their names.
func newCatalog(permissions int) *catalog {
	c := &catalog{}
	for i := range permissions {
		c.live = append(c.live, madeUp(i, fmt.Sprintf("resource%04d:%s", i/4, [...]string{"read", "write", "manage", "share"}[i%4])))
	}
	for i := range deletedCount {
		c.deleted = append(c.deleted, madeUp(permissions+i, fmt.Sprintf("retired%04d:manage", i)))
	}
	random := rand.New(rand.NewPCG(traceSeed, 1)) //nolint:gosec // the same trace each time
	random.Shuffle(len(c.live), func(i, j int) { c.live[i], c.live[j] = c.live[j], c.live[i] })
	return c
}

func madeUp(i int, name string) record {
	created := time.Date(2024, 1, 15, 10, 0, 0, 123456789, time.UTC).Add(time.Duration(i) * time.Second)
	return record{
		ID: fmt.Sprintf("perm_%012d", i), Name: name, Description: "Lets its holder " + name,
		CreatedAt: created.Format(instantLayout), UpdatedAt: created.Add(time.Hour).Format(instantLayout),
		EventID: fmt.Sprintf("evt_%012d", i), Source: "webhook",
	}
}

// writeDump writes the catalog as `postern catalog restore` takes it.
func (c *catalog) writeDump(w io.Writer) error {
	lines := json.NewEncoder(w)
	if err := lines.Encode(map[string]any{
		"format": "postern-dump/1", "environment_id": environmentID, "complete": true,
		"states": len(c.live) + len(c.deleted),
	}); err != nil {
		return fmt.Errorf("writing the dump: %w", err)
	}
	for _, r := range c.live {
		if err := lines.Encode(map[string]any{
			"id": r.ID, "name": r.Name, "description": r.Description, "kind": "updated",
			"occurred_at": r.UpdatedAt, "event_id": r.EventID, "created_at": r.CreatedAt, "source": r.Source,
		}); err != nil {
			return fmt.Errorf("writing the dump: %w", err)
		}
	}
	for _, r := range c.deleted {
		content := sha256.Sum256([]byte(r.Name)) // of the deletion's text, which nobody reads
		if err := lines.Encode(map[string]any{
			"id": r.ID, "name": r.Name, "kind": "deleted", "occurred_at": r.UpdatedAt,
			"event_id": r.EventID, "source": r.Source, "content": hex.EncodeToString(content[:]),
		}); err != nil {
			return fmt.Errorf("writing the dump: %w", err)
		}
	}
	return nil
}

// writeData writes the catalog as a data file of OPA, with the document that Postern
// shows to policies.
func (c *catalog) writeData(w io.Writer) error {
	permissions, deleted := map[string]record{}, map[string]any{}
	for _, r := range c.live {
		permissions[r.Name] = r
	}
	for _, r := range c.deleted {
		deleted[r.Name] = map[string]string{"id": r.ID, "deleted_at": r.UpdatedAt, "event_id": r.EventID}
	}
	err := json.NewEncoder(w).Encode(map[string]any{
		"scalekit": map[string]any{
			"permissions": permissions,
			"deleted":     deleted,
			"sync":        map[string]any{"revision": 1, "complete": true, "count": len(permissions)},
		},
		"postern": map[string]any{"settings": map[string]any{"on_incomplete": "deny"}},
	})
	if err != nil {
		return fmt.Errorf("writing the data file: %w", err)
	}
	return nil
}
