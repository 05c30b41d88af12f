package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent lets the heap grow to five times of what lives before it is collected. A
	// question leaves garbage and hardly anything that lives, so that the runtime's own 100
	// would collect all the time: docs/benchmarks.md has the figures.
	gcPercent = 400
	// memoryShare of the container's limit is the heap's; beyond it the collector works
	// harder. The rest is for stacks and for the pages of the catalog's file.
	memoryShare = 0.8
)

// tuneRuntime sets what GOGC and GOMEMLIMIT set, unless they are set: the runtime reads
// them from the environment itself, and so does this.
func tuneRuntime() error {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	// Does nothing without a limit, and nothing where GOMEMLIMIT is set.
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare)); err != nil {
		return fmt.Errorf("reading the memory limit of the container: %w", err)
	}
	return nil
}
