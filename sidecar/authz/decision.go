package authz

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// Keys of what a policy answers and of the document, made once.
var (
	keyDecision = ast.StringTerm("decision")
	keyReasons  = ast.StringTerm("reasons")
	keyEventID  = ast.StringTerm("event_id")
	keyRevision = ast.StringTerm("revision")
	keyAsOf     = ast.StringTerm("as_of")

	pathSync        = storage.Path{"scalekit", "sync"}
	pathPermissions = storage.Path{"scalekit", "permissions"}
	pathDeleted     = storage.Path{"scalekit", "deleted"}
)

// readDecision takes apart what the decision rule answered: a boolean, or an object with
// a boolean decision and optionally reasons, a set or an array of strings.
func readDecision(value ast.Value) (Decision, error) {
	switch answer := value.(type) {
	case ast.Boolean:
		return withReason(Decision{Allow: bool(answer)}), nil
	case ast.Object:
		return readDecisionObject(answer)
	}
	return Decision{}, fmt.Errorf("want a boolean or an object from the decision rule, got %s", ast.ValueName(value))
}

func readDecisionObject(answer ast.Object) (Decision, error) {
	allow := answer.Get(keyDecision)
	if allow == nil {
		return Decision{}, errors.New("want a boolean decision from the decision rule, got none")
	}
	allowed, ok := allow.Value.(ast.Boolean)
	if !ok {
		return Decision{}, fmt.Errorf("want a boolean decision from the decision rule, got %s", ast.ValueName(allow.Value))
	}
	d := Decision{Allow: bool(allowed)}
	known := 1
	if reasons := answer.Get(keyReasons); reasons != nil {
		known++
		var err error
		if d.Reasons, err = readReasons(reasons.Value); err != nil {
			return Decision{}, err
		}
	}
	if answer.Len() > known {
		d.extra = answer
	}
	return withReason(d), nil
}

func readReasons(value ast.Value) (reasons []string, err error) {
	add := func(reason *ast.Term) error {
		text, ok := reason.Value.(ast.String)
		if !ok {
			return fmt.Errorf("want strings as reasons from the decision rule, got %s", ast.ValueName(reason.Value))
		}
		reasons = append(reasons, string(text))
		return nil
	}
	switch list := value.(type) {
	case ast.Set:
		err = list.Iter(add)
	case *ast.Array:
		err = list.Iter(add)
	default:
		err = fmt.Errorf("want a set or an array of reasons from the decision rule, got %s", ast.ValueName(value))
	}
	return reasons, err
}

func withReason(d Decision) Decision {
	if !d.Allow && len(d.Reasons) == 0 {
		d.Reasons = []string{ReasonPolicyDenied}
	}
	return d
}

// explain adds the provenance, from the transaction that the decision was made in. Where
// that can't be read, the decision becomes a deny: it can't be said what it rests on.
func (p *prepared) explain(ctx context.Context, txn storage.Transaction, q Question, d *Decision) {
	err := p.explainRevision(ctx, txn, d)
	if err == nil && q.permission != "" {
		d.Permission, err = p.permission(ctx, txn, q.permission)
	}
	if err != nil {
		failed := unavailableDecision(err)
		d.Allow, d.extra, d.answer = false, nil, nil
		d.Reasons, d.Message, d.trouble = failed.Reasons, failed.Message, failed.trouble
	}
	d.ID = newID()
	d.PolicyRevision = p.revision
}

func (p *prepared) explainRevision(ctx context.Context, txn storage.Transaction, d *Decision) error {
	value, err := p.store.Read(ctx, txn, pathSync)
	if err != nil {
		return err
	}
	document, ok := value.(ast.Object)
	if !ok {
		return fmt.Errorf("want an object at %s, got %T", pathSync, value)
	}
	if revision := document.Get(keyRevision); revision != nil {
		if number, ok := revision.Value.(ast.Number); ok {
			d.DataRevision = string(number)
		}
	}
	d.EventID = textAt(document, keyEventID)
	d.AsOf = textAt(document, keyAsOf)
	return nil
}

// permission finds what the document says of a permission, live or deleted.
func (p *prepared) permission(ctx context.Context, txn storage.Transaction, name string) (*Permission, error) {
	for _, collection := range [...]storage.Path{pathPermissions, pathDeleted} {
		value, err := p.store.Read(ctx, txn, append(collection[:2:2], name))
		if storage.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		record, ok := value.(ast.Object)
		if !ok {
			return nil, fmt.Errorf("want an object at %s, got %T", collection, value)
		}
		return &Permission{ID: textAt(record, keyID), Name: name, EventID: textAt(record, keyEventID)}, nil
	}
	return nil, nil
}

// textAt returns the string at key, or "" for anything else.
func textAt(object ast.Object, key *ast.Term) string {
	if term := object.Get(key); term != nil {
		if text, ok := term.Value.(ast.String); ok {
			return string(text)
		}
	}
	return ""
}

// newID returns a random UUID. It names a decision in logs and guards nothing, so that
// the fast generator will do; the runtime seeds it from the system's entropy.
func newID() string {
	var raw [16]byte
	binary.NativeEndian.PutUint64(raw[:8], rand.Uint64()) //nolint:gosec // see above: it guards nothing
	binary.NativeEndian.PutUint64(raw[8:], rand.Uint64()) //nolint:gosec // see above: it guards nothing
	raw[6] = raw[6]&0x0f | 0x40                           // version 4 (RFC 9562, section 5.4)
	raw[8] = raw[8]&0x3f | 0x80                           // variant
	var text [36]byte
	hex.Encode(text[:8], raw[:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
