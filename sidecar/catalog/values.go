package catalog

import (
	"encoding/json"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Keys of the document, made once: they are shared by every record in memory.
var (
	keyID          = ast.StringTerm("id")
	keyName        = ast.StringTerm("name")
	keyDescription = ast.StringTerm("description")
	keyCreatedAt   = ast.StringTerm("created_at")
	keyUpdatedAt   = ast.StringTerm("updated_at")
	keyDeletedAt   = ast.StringTerm("deleted_at")
	keyEventID     = ast.StringTerm("event_id")
	keySource      = ast.StringTerm("source")
	keyRevision    = ast.StringTerm("revision")
	keyEpoch       = ast.StringTerm("epoch")
	keyAsOf        = ast.StringTerm("as_of")
	keyComplete    = ast.StringTerm("complete")
	keyCount       = ast.StringTerm("count")
	keyDigest      = ast.StringTerm("digest")
	keyState       = ast.StringTerm("state")

	sourceTerms = map[permission.Source]*ast.Term{
		permission.SourceWebhook:   ast.StringTerm(string(permission.SourceWebhook)),
		permission.SourceReconcile: ast.StringTerm(string(permission.SourceReconcile)),
		permission.SourceRestore:   ast.StringTerm(string(permission.SourceRestore)),
	}
)

// newEntry turns the state that decides for a name into what policies see of it: nil for
// the zero state, which says that there is none.
func newEntry(s permission.State) *entry {
	if s == (permission.State{}) {
		return nil
	}
	e := &entry{name: s.Name, bytes: int64(len(s.ID) + len(s.Name) + len(s.Description) + len(s.EventID))}
	if s.Live() {
		e.live = ast.NewObject(
			ast.Item(keyID, ast.StringTerm(s.ID)),
			ast.Item(keyName, ast.StringTerm(s.Name)),
			ast.Item(keyDescription, ast.StringTerm(s.Description)),
			ast.Item(keyCreatedAt, instantTerm(s.CreatedAt)),
			ast.Item(keyUpdatedAt, instantTerm(s.OccurredAt)),
			ast.Item(keyEventID, textOrNull(s.EventID)),
			ast.Item(keySource, sourceTerms[s.Source]),
		)
		return e
	}
	at, eventID := s.Deletion()
	e.deleted = ast.NewObject(
		ast.Item(keyID, ast.StringTerm(s.ID)),
		ast.Item(keyDeletedAt, instantTerm(at)),
		ast.Item(keyEventID, textOrNull(eventID)),
	)
	return e
}

func syncValue(s Sync) ast.Value {
	return ast.NewObject(
		ast.Item(keyRevision, numberTerm(s.Revision)),
		ast.Item(keyEpoch, ast.StringTerm(s.Epoch)),
		ast.Item(keyEventID, textOrNull(s.EventID)),
		ast.Item(keyAsOf, instantTerm(s.AsOf)),
		ast.Item(keyComplete, ast.BooleanTerm(s.Complete)),
		ast.Item(keyCount, numberTerm(s.Count)),
		ast.Item(keyDigest, ast.StringTerm(s.Digest.String())),
		ast.Item(keyState, ast.StringTerm(string(s.State))),
	)
}

func textOrNull(text string) *ast.Term {
	if text == "" {
		return ast.NullTerm()
	}
	return ast.StringTerm(text)
}

func instantTerm(i permission.Instant) *ast.Term {
	if i == 0 {
		return ast.NullTerm()
	}
	return ast.StringTerm(i.String())
}

func numberTerm(n uint64) *ast.Term {
	return ast.NumberTerm(json.Number(strconv.FormatUint(n, 10)))
}
