package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/sidecar/listener"
)

// Place is where policies come from: a directory, a bundle file, a bundle URL, or what the
// binary brings along.
type Place struct {
	setting string // that named it, for errors
	name    string // for logs and errors: no password and no query in it
	fsys    fs.FS  // of what the binary brings along
	path    string // of a directory or a bundle file
	remote  *address
}

// address is a bundle URL, and how it is asked.
type address struct {
	url          *url.URL
	client       *http.Client                // nil: that of bundle URLs in --policy
	prepare      func(*http.Request) error   // puts the credentials on; nil: the token of Config
	header       map[string]string           // sent along, to the URL's own origin alone
	answerWithin time.Duration               // the time to the first byte; zero: the usual one
	verification func() *bundle.Verification // nil: that of Config
	polling      polling                     // zero: that of Config
	largest      int64                       // of the bundle, in bytes; 0: the usual one
}

// polling is how often a bundle URL is asked: after a random time between the two, or, where
// the server can hold a request until there is something new, at once and for up to wait.
type polling struct{ least, most, wait time.Duration }

// Embedded is a policy that never changes, and is never signed.
func Embedded(name string, fsys fs.FS) Place {
	return Place{setting: "--policy", name: name, fsys: fsys}
}

// ParsePlace takes a value of --policy: the path of a directory or of a bundle file, which
// isn't looked at yet, or a bundle URL, https or http on a loopback address. Its errors quote
// nothing that may be a password.
func ParsePlace(text string) (Place, error) {
	scheme, _, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return Place{}, errors.New("want a directory, a bundle file or a bundle URL that isn't empty")
	case !isURL:
		return Place{setting: "--policy", name: text, path: text}, nil
	case scheme != "http" && scheme != "https":
		return Place{}, errors.New("want a URL that begins with https://, or a path")
	}
	at, err := parseURL(text)
	if err != nil {
		return Place{}, err
	}
	return Place{setting: "--policy", name: nameOf(at), remote: &address{url: at}}, nil
}

// Name says where the policy comes from, for people.
func (p Place) Name() string { return p.name }

// IsURL reports whether the policy is downloaded.
func (p Place) IsURL() bool { return p.remote != nil }

// prefix goes before the names of files in errors. It is joined with them as a path, which a
// scheme would not survive.
func (p Place) prefix() string {
	_, rest, isURL := strings.Cut(p.name, "://")
	if isURL {
		return rest
	}
	return p.name
}

// identity tells two places apart. Of a URL it is a digest, since its query may be a secret.
func (p Place) identity() string {
	if p.remote == nil {
		return p.name
	}
	sum := sha256.Sum256([]byte(p.remote.url.String()))
	return hex.EncodeToString(sum[:])
}

// parseURL takes https, and http on a loopback address: whoever can change a policy on its
// way decides everything, and a token may go along.
func parseURL(text string) (*url.URL, error) {
	at, err := url.Parse(text)
	switch {
	case err != nil || at.Hostname() == "" || at.Opaque != "":
		return nil, errors.New("want an absolute URL such as https://bundles.example.com/authz.tar.gz")
	case at.User != nil:
		return nil, errors.New("want no user or password in the URL; --policy-token-file takes a token")
	case at.Fragment != "":
		return nil, errors.New("want no fragment in the URL")
	case !trustworthy(at):
		return nil, errors.New("want an https URL (http on a loopback address alone)")
	}
	return at, nil
}

func trustworthy(at *url.URL) bool {
	return at.Scheme == "https" || at.Scheme == "http" && listener.IsLoopbackHost(at.Hostname())
}

// nameOf leaves the query out: presigned URLs have their secret there.
func nameOf(at *url.URL) string {
	named := *at
	named.RawQuery, named.ForceQuery = "", false
	return named.String()
}

// wrap puts the setting before an error.
func (p Place) wrap(err error) error { return fmt.Errorf("%s: %w", p.setting, err) }
