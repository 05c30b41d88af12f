package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/permission"
)

// What policies see of a catalog file is bounded as `postern run` bounds it by default.
const (
	catalogFileLRU     = 10_000
	catalogFileRecords = 100_000
	catalogFileBytes   = 32 << 20
)

// catalogFile is a catalog that was made of a file for as long as a verb runs: the real one,
// in a temporary directory, so that data.scalekit is exactly what a sidecar would show.
type catalogFile struct {
	catalog   *catalog.Catalog
	directory string
}

// openCatalogFile makes a catalog of the file at path, which is what `postern catalog restore`
// takes: a dump, or a listing of Scalekit's API. An empty path makes an empty, incomplete
// catalog. The caller closes it, which removes it.
func openCatalogFile(ctx context.Context, path string) (*catalogFile, error) {
	from := &catalog.Restorable{}
	if path != "" {
		var err error
		if from, err = readCatalogFile(path); err != nil {
			return nil, err
		}
	}
	directory, err := os.MkdirTemp("", "postern-catalog-")
	if err != nil {
		return nil, err
	}
	opened, err := catalog.Open(ctx, catalog.Options{
		Dir: directory, EnvironmentID: from.EnvironmentID, LRUSize: catalogFileLRU, Eager: true,
		MaxDocument: catalog.Limit{Records: catalogFileRecords, Bytes: catalogFileBytes},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a catalog of the file: %w", err), os.RemoveAll(directory))
	}
	f := &catalogFile{opened, directory}
	if path == "" {
		return f, nil
	}
	if _, err := opened.Restore(ctx, from, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

func readCatalogFile(path string) (*catalog.Restorable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	from, err := catalog.ReadRestorable(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: want what `postern catalog dump` prints, or a listing of Scalekit's API: %w", path, err)
	}
	return from, nil
}

// document returns the data document that policies see: data.scalekit comes from the file,
// everything else from base, to which nothing may write afterwards.
func (f *catalogFile) document(base storage.Store) storage.Store { return f.catalog.Document(base) }

// names returns the names whose newest state is alive, and those whose is a deletion.
func (f *catalogFile) names(ctx context.Context) (live, deleted []string, err error) {
	err = f.catalog.States(ctx, func(s permission.State, decides bool) error {
		switch {
		case !decides:
		case s.Live():
			live = append(live, s.Name)
		default:
			deleted = append(deleted, s.Name)
		}
		return nil
	})
	return live, deleted, err
}

// Close closes the catalog and removes it.
func (f *catalogFile) Close() error {
	return errors.Join(f.catalog.Close(), os.RemoveAll(f.directory))
}
