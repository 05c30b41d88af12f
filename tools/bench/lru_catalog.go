package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	lake "github.com/postern-authz/postern/sidecar/catalog"
)

// makeCatalog makes a catalog of a dump in a directory, with Postern's own code.
func makeCatalog(ctx context.Context, dir string, writeDump func(io.Writer) error) error {
	c, err := lake.Open(ctx, lake.Options{Dir: dir, EnvironmentID: environmentID, LRUSize: 1})
	if err != nil {
		return fmt.Errorf("making a catalog: %w", err)
	}
	reader, writer := io.Pipe()
	go func() { _ = writer.CloseWithError(writeDump(writer)) }() // never fails, by its documentation
	dump, err := lake.ReadDump(reader)
	if err == nil {
		_, err = c.Restore(ctx, dump, nil)
	}
	if err := errors.Join(err, reader.Close(), c.Close()); err != nil {
		return fmt.Errorf("filling a catalog: %w", err)
	}
	return nil
}
