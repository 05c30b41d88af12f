package catalog

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Repair applies what a reconciliation found, in one commit and as one revision, or nothing
// of it. It returns how many states changed. Its errors are those of [Catalog.Apply], and
// one that names what can't be kept.
func (c *Catalog) Repair(ctx context.Context, r Repair, progress Progress) (changed int, err error) {
	if err := r.check(); err != nil {
		return 0, fmt.Errorf("checking the repair: %w", err)
	}
	if len(r.States) >= loadsFrom && c.writer != nil {
		return c.loadRepair(ctx, r, progress.orNone())
	}
	changes := make(chan int, 1)
	_, err = c.submit(ctx, func(t *transaction) (permission.Outcome, error) {
		n, err := t.repair(r)
		changes <- n
		return permission.OutcomeApplied, err
	})
	if err != nil {
		return 0, err
	}
	return <-changes, nil
}

// repair applies what was checked. An error may leave half of it written, and so breaks the
// transaction.
func (t *transaction) repair(r Repair) (changed int, err error) {
	changed, err = t.restoreStates(r.States)
	if err == nil && r.Roles != nil {
		err = t.putRoles(r.Roles)
	}
	t.header.complete = t.header.complete || r.Complete
	t.must(err)
	return changed, err
}

// States calls each for every state, live or not, in the order of ids, all of one revision;
// decides tells whether the state decides for its name. It holds a database transaction until
// it is done: each should be quick. Its error is the context's, that of each, or says what
// can't be read.
func (c *Catalog) States(ctx context.Context, each func(s permission.State, decides bool) error) (err error) {
	defer containDamage(&err)()
	return c.view(func(tx *bbolt.Tx) error {
		return forEachState(ctx, tx.Bucket(bucketStates), func(s permission.State) error {
			decider, _, err := readDecider(tx, []byte(s.Name))
			if err != nil {
				return err
			}
			return each(s, decider.ID == s.ID)
		})
	})
}
