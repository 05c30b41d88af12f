package authz

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// TokenHeader is the header that may carry a question's access token, in place of the member
// context.access_token.
const TokenHeader = "Postern-Access-Token"

// TokenVerifier judges access tokens.
type TokenVerifier interface {
	// Verify returns the claims of a token that is good, an object that is shared and must not
	// be changed, and "", or what is wrong with it: a reason such as "token_expired". It returns
	// soon after ctx ends.
	Verify(ctx context.Context, raw string) (claims ast.Value, code string)
}

// Keys and values of input.token, made once.
var (
	keyAccessToken = ast.StringTerm("access_token")
	keyToken       = ast.StringTerm("token")
	keyValid       = ast.StringTerm("valid")
	keyClaims      = ast.StringTerm("claims")
	keyError       = ast.StringTerm("error")
	keyState       = ast.StringTerm("state")

	stateStale = ast.String("stale")
)

// stripToken takes context.access_token out of a request, so that nobody else sees it. It is
// empty where there is none.
func stripToken(request ast.Object) (ast.Object, string, error) {
	member := request.Get(keyContext)
	if member == nil {
		return request, "", nil
	}
	given, ok := member.Value.(ast.Object) // which checkOptionalObject saw to
	if !ok || given.Get(keyAccessToken) == nil {
		return request, "", nil
	}
	raw, ok := given.Get(keyAccessToken).Value.(ast.String)
	if !ok {
		return nil, "", fmt.Errorf("context.access_token: want a string, got %s", describe(given.Get(keyAccessToken).Value))
	}
	if raw == "" {
		return nil, "", errors.New("context.access_token: want a string that isn't empty")
	}
	return replaced(request, keyContext, without(given, keyAccessToken)), string(raw), nil
}

func without(object ast.Object, key *ast.Term) ast.Object {
	rest := ast.NewObject()
	object.Foreach(func(k, v *ast.Term) {
		if !k.Equal(key) {
			rest.Insert(k, v)
		}
	})
	return rest
}

func replaced(object ast.Object, key *ast.Term, value ast.Value) ast.Object {
	changed := without(object, key)
	changed.Insert(key, ast.NewTerm(value))
	return changed
}

var (
	errTwoTokens  = errors.New("context.access_token, " + TokenHeader + ": want the access token in one of them, got it in both")
	errNoVerifier = errors.New("an access token came, and this sidecar can't verify any; set --issuer and --audience, or leave the token out")
)

// judgeToken verifies the access token of a question and tells its policy what came of it. It
// returns the reason for which the question is denied whatever the policy says, if there is one.
func (e *Engine) judgeToken(ctx context.Context, q *Question, header string) (floor string, err error) {
	raw := q.token
	q.token = ""
	switch {
	case raw != "" && header != "":
		return "", errTwoTokens
	case raw == "":
		raw = header
	}
	if raw == "" {
		if e.options.RequireToken {
			return ReasonTokenRequired, nil
		}
		return "", nil
	}
	if e.options.Tokens == nil {
		return "", errNoVerifier
	}
	claims, code := e.options.Tokens.Verify(ctx, raw)
	if code == "" && claims == nil {
		code = reasonTokenInvalid // a verifier that says nothing of a token says nothing good
	}
	switch {
	case code != "" && e.options.RequireToken:
		return code, nil
	case code != "" && ended(ctx): // no time is left to ask the policy
		return ReasonEvaluationTimeout, nil
	}
	q.input = replaced(q.input, keyToken, tokenInput(claims, code))
	return "", nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// reasonTokenInvalid is what a verifier says of what isn't a token.
const reasonTokenInvalid = "token_invalid"

// tokenInput is input.token.
func tokenInput(claims ast.Value, code string) ast.Value {
	if code != "" {
		return ast.NewObject(ast.Item(keyValid, ast.BooleanTerm(false)), ast.Item(keyError, ast.StringTerm(code)))
	}
	return ast.NewObject(ast.Item(keyValid, ast.BooleanTerm(true)), ast.Item(keyClaims, ast.NewTerm(claims)))
}

// ParseClaims reads the claims of an access token as a question is read: strictly, and within
// the same limits. The error doesn't quote them.
func ParseClaims(claims []byte) (ast.Value, error) {
	value, err := parseJSON(string(claims))
	if err != nil {
		return nil, err
	}
	if _, ok := value.(ast.Object); !ok {
		return nil, fmt.Errorf("want an object, got %s", describe(value))
	}
	return value, nil
}

// stale reports whether the transaction's catalog is.
func (p *prepared) stale(ctx context.Context, txn storage.Transaction) (bool, error) {
	value, err := p.store.Read(ctx, txn, pathSync)
	if err != nil {
		return false, err
	}
	document, ok := value.(ast.Object)
	if !ok {
		return false, fmt.Errorf("want an object at %s, got %T", pathSync, value)
	}
	state := document.Get(keyState)
	return state != nil && state.Value.Compare(stateStale) == 0, nil
}

// floorDecision denies for a reason that comes before every policy.
func floorDecision(reason string) Decision {
	d := Decision{Reasons: []string{reason}}
	if reason == ReasonEvaluationTimeout {
		d.Message, d.trouble = "the access token could not be verified within --evaluation-timeout", "timeout of the token's verification"
	}
	return d
}
