package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/postern-authz/postern/sidecar/listener"
	"github.com/postern-authz/postern/sidecar/strictjson"
)

// largestDiscovery bounds a discovery document, in bytes.
const largestDiscovery = 1 << 20

// source is where the keys are. Exactly one of discovery, keysURL and file is set.
type source struct {
	issuer    string
	discovery string
	keysURL   string
	file      string
	transport http.RoundTripper
}

func newSource(issuer, keysURL, file string, transport http.RoundTripper) (source, error) {
	_, err := checkURL(issuer)
	if err != nil {
		return source{}, fmt.Errorf("issuer: %w", err)
	}
	if transport == nil {
		transport = newTransport()
	}
	s := source{issuer: issuer, keysURL: keysURL, file: file, transport: transport}
	switch {
	case keysURL != "" && file != "":
		return s, errors.New("want the keys at a URL or in a file, got both")
	case keysURL != "":
		_, err = checkURL(keysURL)
	case file == "":
		s.discovery = strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	}
	if err != nil {
		return s, fmt.Errorf("the URL of the keys: %w", err)
	}
	return s, nil
}

// newTransport is net/http's own with bounds.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 2,
	}
}

// checkURL takes https, and http on a loopback address. It quotes nothing that may be a password.
func checkURL(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	switch {
	case err != nil || parsed.Hostname() == "" || parsed.Opaque != "":
		return nil, errors.New("want an absolute URL")
	case parsed.User != nil:
		return nil, errors.New("want no user or password in it")
	case strings.ContainsAny(text, "?#"):
		return nil, errors.New("want no query and no fragment in it")
	case parsed.Scheme != "https" && (parsed.Scheme != "http" || !listener.IsLoopbackHost(parsed.Hostname())):
		return nil, errors.New("want https (http on a loopback address alone)")
	}
	return parsed, nil
}

// name says where the keys are, for the log and the cache.
func (s source) name() string {
	return s.discovery + s.keysURL + s.file
}

// local reports whether nothing has to be fetched.
func (s source) local() bool { return s.file != "" }

// readSet returns the key set that is there now.
func (s source) readSet(ctx context.Context) (*keySet, error) {
	if s.local() {
		return readKeySetFile(s.file)
	}
	text, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return parseKeySet(text)
}

func readKeySetFile(path string) (*keySet, error) {
	text, err := readFile(path, largestKeySet)
	if err != nil {
		return nil, err
	}
	return parseKeySet(text)
}

// fetch returns the text of a key set that isn't in a file.
func (s source) fetch(ctx context.Context) ([]byte, error) {
	if s.keysURL != "" {
		return s.get(ctx, s.keysURL, largestKeySet)
	}
	text, err := s.get(ctx, s.discovery, largestDiscovery)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	found, err := s.readDiscovery(text)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	return s.get(ctx, found, largestKeySet)
}

// readDiscovery returns where a discovery document says that the keys are. It must be the
// issuer's own document, and the keys of the same origin: whoever could put another host there
// could sign for the issuer.
func (s source) readDiscovery(text []byte) (string, error) {
	if err := strictjson.Check(text, claimsDepth); err != nil {
		return "", err
	}
	document, err := strictjson.Parse(text)
	if err != nil {
		return "", err
	}
	issuer, err := document.Text("issuer")
	if err != nil {
		return "", err
	}
	if issuer != s.issuer {
		return "", fmt.Errorf("issuer: want %q, got %.200q", s.issuer, issuer)
	}
	found, err := document.Text("jwks_uri")
	if err != nil {
		return "", err
	}
	at, err := checkURL(found)
	if err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	base, err := checkURL(s.issuer)
	if err != nil {
		return "", err
	}
	if at.Scheme != base.Scheme || !strings.EqualFold(at.Host, base.Host) {
		return "", fmt.Errorf("jwks_uri: want a URL of the issuer's origin, got host %.200q; set --jwks-url if that is right", at.Host)
	}
	return found, nil
}

// get reads one answer. No redirect is followed: RoundTrip doesn't.
func (s source) get(ctx context.Context, from string, most int64) (text []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("want status 200, got %d", response.StatusCode)
	}
	return readAtMost(response.Body, most)
}

func readFile(path string, most int64) (text []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe may never open, and never end
		return nil, errors.New("want a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readAtMost(f, most)
}

func readAtMost(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("want at most %d bytes", most)
	}
	return text, err
}
