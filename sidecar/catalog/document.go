package catalog

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// Root is the key under which the catalog stands in the data document.
const Root = "scalekit"

// Document is the data document that policies see: data.scalekit comes from the
// catalog, everything else from a base store that holds the data of the policy.
//
// It serves data.scalekit.permissions[name] and .deleted[name] record by record, .sync,
// and each of them, or all, as a whole. Within one transaction it answers from one
// revision. It is an OPA storage.Store for reading; the catalog changes by events alone.
type Document struct {
	storage.WritesNotSupported
	storage.PolicyNotSupported
	storage.TriggersNotSupported
	catalog *Catalog
	base    storage.Store
}

// Document returns the data document of the catalog over base. Nothing may write to
// base afterwards. What base holds under [Root] is hidden.
func (c *Catalog) Document(base storage.Store) *Document {
	return &Document{catalog: c, base: base}
}

// pinned is a transaction on the document: one revision and one state of the base.
type pinned struct {
	storage.Transaction // of the base
	at                  sight
}

// UnavailableError reports that the catalog could not be read, which says nothing
// about any permission.
type UnavailableError struct{ cause error }

// Error says what failed.
func (e *UnavailableError) Error() string { return "reading the catalog: " + e.cause.Error() }

// Unwrap returns what failed.
func (e *UnavailableError) Unwrap() error { return e.cause }

// CatalogUnavailable marks the error for those who don't know this package.
func (e *UnavailableError) CatalogUnavailable() {}

// errAbsent is OPA's "not found", which makes a reference undefined. It names no path:
// it is made once, and a missing permission is no rare event.
var errAbsent = &storage.Error{Code: storage.NotFoundErr, Message: "no such document"}

// NewTransaction pins the newest revision. It refuses to write.
func (d *Document) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	if len(params) > 0 && params[0].Write {
		return nil, &storage.Error{Code: storage.WritesNotSupportedErr, Message: "the data document is changed by permission events alone"}
	}
	base, err := d.base.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	return &pinned{Transaction: base, at: d.catalog.sight()}, nil
}

// Commit ends a transaction.
func (d *Document) Commit(ctx context.Context, txn storage.Transaction) error {
	d.Abort(ctx, txn)
	return nil
}

// Abort ends a transaction.
func (d *Document) Abort(ctx context.Context, txn storage.Transaction) {
	if p, ok := txn.(*pinned); ok {
		d.base.Abort(ctx, p.Transaction)
	}
}

// Truncate refuses: it would replace the document.
func (d *Document) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr, Message: "the data document can't be truncated"}
}

// ListPolicies returns none: policies are compiled before they meet the document.
func (d *Document) ListPolicies(context.Context, storage.Transaction) ([]string, error) {
	return nil, nil
}

// Read returns the document at path as of the transaction's revision: an ast.Value from
// the catalog, or what the base store returns. The error is a storage.Error with code
// NotFoundErr where there is nothing, an [UnavailableError] where the catalog can't be
// read, and otherwise says which limit a whole-document read exceeds.
func (d *Document) Read(ctx context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	p, ok := txn.(*pinned)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr, Message: fmt.Sprintf("want a transaction of the data document, got %T", txn)}
	}
	switch {
	case len(path) == 0:
		return d.everything(ctx, p)
	case path[0] != Root:
		return d.base.Read(ctx, p.Transaction, path)
	case len(path) == 1:
		return d.root(ctx, p.at)
	}
	return d.readCatalog(ctx, p.at, path[1:])
}

func (d *Document) readCatalog(ctx context.Context, at sight, path storage.Path) (ast.Value, error) {
	switch path[0] {
	case "permissions":
		return d.readCollection(ctx, at.snapshot, livePermissions, path[1:])
	case "deleted":
		return d.readCollection(ctx, at.snapshot, deletedPermissions, path[1:])
	case "sync":
		return below(at.document(), path[1:])
	case "roles":
		return below(at.roles.document, path[1:])
	}
	return nil, errAbsent
}

func (d *Document) readCollection(ctx context.Context, at *snapshot, which collection, path storage.Path) (ast.Value, error) {
	if len(path) == 0 {
		value, err := d.catalog.whole(ctx, at, which)
		if err != nil {
			return nil, err
		}
		return value, nil
	}
	e, err := d.catalog.lookup(at, path[0])
	if err != nil {
		return nil, &UnavailableError{err}
	}
	value := which.pick(e)
	if value == nil {
		return nil, errAbsent
	}
	return below(value, path[1:])
}

// below descends from value along path.
func below(value ast.Value, path storage.Path) (ast.Value, error) {
	for _, key := range path {
		object, ok := value.(ast.Object)
		if !ok {
			return nil, errAbsent
		}
		term := object.Get(ast.StringTerm(key))
		if term == nil {
			return nil, errAbsent
		}
		value = term.Value
	}
	return value, nil
}

// root returns all of data.scalekit.
func (d *Document) root(ctx context.Context, at sight) (ast.Object, error) {
	live, err := d.catalog.whole(ctx, at.snapshot, livePermissions)
	if err != nil {
		return nil, err
	}
	deleted, err := d.catalog.whole(ctx, at.snapshot, deletedPermissions)
	if err != nil {
		return nil, err
	}
	return ast.NewObject(
		ast.Item(ast.StringTerm("permissions"), ast.NewTerm(live)),
		ast.Item(ast.StringTerm("deleted"), ast.NewTerm(deleted)),
		ast.Item(ast.StringTerm("sync"), ast.NewTerm(at.document())),
		ast.Item(ast.StringTerm("roles"), ast.NewTerm(at.roles.document)),
	), nil
}

// everything returns all of data, with the catalog's root in place of the base's.
func (d *Document) everything(ctx context.Context, p *pinned) (ast.Value, error) {
	base, err := d.base.Read(ctx, p.Transaction, storage.RootPath)
	if err != nil {
		return nil, err
	}
	value, err := ast.InterfaceToValue(base)
	if err != nil {
		return nil, fmt.Errorf("converting the policy's data: %w", err)
	}
	object, ok := value.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("converting the policy's data: want an object, got %s", ast.ValueName(value))
	}
	scalekit, err := d.root(ctx, p.at)
	if err != nil {
		return nil, err
	}
	merged := object.Copy()
	merged.Insert(ast.StringTerm(Root), ast.NewTerm(scalekit))
	return merged, nil
}

// NonEmpty reports whether there is data below a path, so that OPA refuses a policy
// that declares a package there. It asks the catalog for no record.
func (d *Document) NonEmpty(ctx context.Context, txn storage.Transaction) func([]string) (bool, error) {
	return func(path []string) (bool, error) {
		if len(path) == 0 || path[0] == Root {
			return true, nil
		}
		p, ok := txn.(*pinned)
		if !ok {
			return false, &storage.Error{Code: storage.InvalidTransactionErr, Message: "want a transaction of the data document"}
		}
		return storage.NonEmpty(ctx, d.base, p.Transaction)(path)
	}
}

var (
	_ storage.Store      = (*Document)(nil)
	_ storage.NonEmptyer = (*Document)(nil)
)
