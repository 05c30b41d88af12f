package catalog

import "context"

// Progress is told how much of a long piece of work is done, from time to time. Both
// numbers count the same things, of which there are about total.
type Progress func(done, total int64)

// orNone returns a progress that can be called in any case.
func (p Progress) orNone() Progress {
	if p == nil {
		return func(int64, int64) {}
	}
	return p
}

// stepsPerProgress is how many steps are done between two looks at progress and context.
const stepsPerProgress = 10_000

// counter counts the steps of a piece of work.
type counter struct {
	ctx         context.Context
	progress    Progress
	done, total int64
}

// advance counts a step. Its error is the context's.
func (c *counter) advance() error {
	if c.done++; c.done%stepsPerProgress != 0 {
		return nil
	}
	c.progress(c.done, c.total)
	return c.ctx.Err()
}
