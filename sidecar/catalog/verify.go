package catalog

import (
	"bytes"
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// mostProblems bounds what a report lists; a damaged file can have as many as records.
const mostProblems = 100

// Report is what [Catalog.Verify] found.
type Report struct {
	Revision uint64   `json:"revision"`
	Digest   string   `json:"digest"`
	Live     int      `json:"live"`
	Deleted  int      `json:"deleted"`
	Problems []string `json:"problems"` // at most 100; none: the catalog is sound
}

func (r *Report) problem(format string, arguments ...any) {
	if len(r.Problems) < mostProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, arguments...))
	}
}

// Verify reads the whole file and compares what follows from the states with what stands
// beside them. Where no writer runs it reads each page as well. The error says why it
// could not finish.
func (c *Catalog) Verify(ctx context.Context, progress Progress) (report Report, err error) {
	defer containDamage(&err)()
	report.Problems = []string{}
	err = c.view(func(tx *bbolt.Tx) error { return verify(ctx, tx, &report, progress.orNone()) })
	if err == nil && c.writer == nil {
		if err := inspectFile(ctx, c.path); err != nil {
			report.problem("%v", err)
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return report, err
}

func verify(ctx context.Context, tx *bbolt.Tx, report *Report, progress Progress) error {
	// Each of the three goes over about as many entries.
	count := &counter{ctx: ctx, total: 3 * int64(tx.Bucket(bucketStates).Inspect().KeyN), progress: progress}
	head, err := readHeader(tx.Bucket(bucketMeta))
	if err != nil {
		return err
	}
	report.Revision, report.Digest = head.revision, head.digest.String()
	if err := verifyStates(count, tx, head, report); err != nil {
		return err
	}
	if err := verifyBearers(count, tx, report); err != nil {
		return err
	}
	return verifyNames(count, tx, head, report)
}

// verifyStates checks each state by itself and that the index leads to it.
func verifyStates(count *counter, tx *bbolt.Tx, head header, report *Report) error {
	states, bearers := tx.Bucket(bucketStates), tx.Bucket(bucketBearers)
	return states.ForEach(func(id, sealed []byte) error {
		if err := count.advance(); err != nil {
			return err
		}
		s, err := openState(id, sealed)
		if err != nil {
			report.problem("%v", err)
			return nil
		}
		if _, found, _ := readState(states, id); !found {
			report.problem("permission %.64q can't be found by its id", id)
		}
		if s.Kind != permission.Deleted && s.Content != permission.ContentDigest(s.ID, s.Name, s.Description) {
			report.problem("permission %.64q: its content has another digest", id)
		}
		if s.EventID != "" && head.newest.olderThan(keyOf(s)) {
			report.problem("permission %.64q: its event is newer than the newest", id)
		}
		if key, _ := bearers.Cursor().Seek(bearerKey(s.Name, s.ID)); !bytes.Equal(key, bearerKey(s.Name, s.ID)) {
			report.problem("permission %.64q: its name %.64q doesn't lead to it", id, s.Name)
		}
		return nil
	})
}

// verifyBearers checks that the index leads to nothing else.
func verifyBearers(count *counter, tx *bbolt.Tx, report *Report) error {
	return tx.Bucket(bucketBearers).ForEach(func(key, _ []byte) error {
		if err := count.advance(); err != nil {
			return err
		}
		name, id, _ := bytes.Cut(key, []byte{0})
		s, found, err := readState(tx.Bucket(bucketStates), id)
		if err == nil && (!found || s.Name != string(name)) {
			report.problem("the name %.64q leads to permission %.64q, which doesn't bear it", name, id)
		}
		if tx.Bucket(bucketNames).Get(name) == nil {
			report.problem("nobody decides for the name %.64q", name)
		}
		return nil
	})
}

// verifyNames recomputes who decides for each name, and the count and the digest.
func verifyNames(count *counter, tx *bbolt.Tx, head header, report *Report) error {
	states, bearers := tx.Bucket(bucketStates), tx.Bucket(bucketBearers)
	var digest permission.Digest
	err := tx.Bucket(bucketNames).ForEach(func(name, _ []byte) error {
		if err := count.advance(); err != nil {
			return err
		}
		s, _, err := readDecider(tx, name)
		if err != nil {
			report.problem("%v", err)
			return nil
		}
		if all, err := bearersOf(states, bearers, string(name), ""); err == nil && permission.Decides(all) != s {
			report.problem("permission %.64q doesn't decide for the name %.64q", s.ID, name)
		}
		if !s.Live() {
			report.Deleted++
			return nil
		}
		report.Live++
		digest = digest.Plus(s.Content)
		return nil
	})
	if uint64(report.Live) != head.count {
		report.problem("the header counts %d live permissions and there are %d", head.count, report.Live)
	}
	if digest != head.digest {
		report.problem("the header's digest is %s and that of the live permissions %s", head.digest, digest)
	}
	return err
}
