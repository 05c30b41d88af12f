package main

import (
	"context"
	"errors"
	"io"
)

// gogc400 lets both collect less often. As shipped neither sets GOGC, so that both run at
// Go's own default of 100.
const gogc400 = "GOGC=400"

// door is the suite of questions as fast as they are answered.
type door struct {
	*field
	sidecar *sidecar // as shipped, also a contender

	postern, postern400   *contender
	opa, opa400, opaNoisy *contender // the noisy one logs each request, as shipped
	ceiling               *contender

	allocated, opaAllocated allocation
}

// runDoor measures the decision API beside OPA's.
func runDoor(ctx context.Context, o options, progress io.Writer) (told section, err error) {
	f, err := newField(o, progress)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	d := &door{field: f}
	if err := d.prepare(ctx); err != nil {
		return told, err
	}
	if err := d.warmUp(ctx, d.contenders()); err != nil {
		return told, err
	}
	before, err := d.sidecar.lookups(ctx)
	if err != nil {
		return told, err
	}
	for round := range o.rounds {
		if err := d.round(ctx, round, d.contenders()); err != nil {
			return told, err
		}
	}
	after, err := d.sidecar.lookups(ctx)
	if err != nil {
		return told, err
	}
	if err := d.allocations(ctx); err != nil {
		return told, err
	}
	return d.report(ctx, after.since(before))
}

// allocations asks Postern and OPA once more, as shipped but for a trace of the collector.
func (d *door) allocations(ctx context.Context) error {
	own, err := d.startPostern(ctx, posternSetup{name: "postern-traced", dataDir: d.path("data-traced"), environment: []string{traceCollector}})
	if err != nil {
		return err
	}
	if d.allocated, err = measureAllocation(ctx, own.server, posternTarget(own.addr, d.trace), d.options); err != nil {
		return err
	}
	peer, err := d.startOPA(ctx, "opa-traced", []string{traceCollector}, "--log-level", "error")
	if err != nil {
		return err
	}
	d.opaAllocated, err = measureAllocation(ctx, peer, opaTarget(peer.addr, d.trace), d.options)
	return err
}

// contenders returns the servers in the order of a round: what is compared stands close.
func (d *door) contenders() []*contender {
	return []*contender{d.postern400, d.opa, d.postern, d.opa400, d.opaNoisy, d.ceiling}
}

// prepare builds the servers and starts all of them.
func (d *door) prepare(ctx context.Context) (err error) {
	if err := errors.Join(d.buildPostern(ctx), d.buildOPA(ctx)); err != nil {
		return err
	}
	if d.sidecar, err = d.startPostern(ctx, posternSetup{name: "postern", dataDir: d.path("data")}); err != nil {
		return err
	}
	d.postern = &contender{name: "postern", server: d.sidecar.server, target: posternTarget(d.sidecar.addr, d.trace)}
	unhurried, err := d.startPostern(ctx, posternSetup{name: "postern-400", dataDir: d.path("data-400"), environment: []string{gogc400}})
	if err != nil {
		return err
	}
	d.postern400 = &contender{name: "postern-400", server: unhurried.server, target: posternTarget(unhurried.addr, d.trace)}
	if d.opa, err = d.opaContender(ctx, "opa", nil, "--log-level", "error"); err != nil {
		return err
	}
	if d.opa400, err = d.opaContender(ctx, "opa-400", []string{gogc400}, "--log-level", "error"); err != nil {
		return err
	}
	if d.opaNoisy, err = d.opaContender(ctx, "opa-info", nil); err != nil {
		return err
	}
	constant, err := d.startConstant(ctx)
	if err != nil {
		return err
	}
	d.ceiling = &contender{name: "constant", server: constant, target: constantTarget(constant.addr, d.trace)}
	return nil
}

func (d *door) opaContender(ctx context.Context, name string, environment []string, flags ...string) (*contender, error) {
	s, err := d.startOPA(ctx, name, environment, flags...)
	if err != nil {
		return nil, err
	}
	return &contender{name: name, server: s, target: opaTarget(s.addr, d.trace)}, nil
}
