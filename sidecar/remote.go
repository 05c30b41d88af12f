package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	remoteWithin        = 30 * time.Second // for each answer
	largestRemoteAnswer = 16 << 20         // bytes of it: a page of 1000 records is a third of that at most, an explanation less
)

// remoteConfig is the running sidecar that a verb asks.
type remoteConfig struct{ from, apiTokenFile string }

// settings say what the verb asks the sidecar for.
func (c *remoteConfig) settings(help string) []setting {
	return []setting{
		{name: "from", set: text(&c.from), help: help},
		{
			name: "api-token-file", set: text(&c.apiTokenFile),
			help: "file with the bearer token that the decision API of --from asks for",
		},
	}
}

func (c *remoteConfig) open() (*remoteSidecar, error) {
	remote, err := newRemoteSidecar(c.from, c.apiTokenFile)
	if err != nil {
		return nil, fmt.Errorf("--from: %w, got %q", err, c.from)
	}
	return remote, nil
}

// remoteSidecar is asked through its decision API.
type remoteSidecar struct {
	base   string // of its URLs, without a slash at the end
	token  string // bearer token, or empty
	client *http.Client
}

// newRemoteSidecar wants http://host:port, https://host:port or unix:///path.sock, and the file
// with the API's token, if it asks for one.
func newRemoteSidecar(from, tokenFile string) (*remoteSidecar, error) {
	r := &remoteSidecar{base: strings.TrimRight(from, "/"), client: &http.Client{
		Timeout: remoteWithin,
		// The token is for this address alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if strings.HasPrefix(from, "unix:") {
		at, err := listener.ParseAddress(from)
		if err != nil {
			return nil, err
		}
		r.base = "http://localhost"
		r.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at.Address)
		}}
	} else if u, err := url.Parse(from); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("want a decision API such as http://127.0.0.1:8181 or unix:///path.sock")
	}
	if tokenFile == "" {
		return r, nil
	}
	content, err := readSmallFile(tokenFile, largestConfigFile)
	if err != nil {
		return nil, fmt.Errorf("--api-token-file: %w", err)
	}
	if r.token, err = parseAPIToken([][]byte{content}); err != nil {
		return nil, fmt.Errorf("--api-token-file: %w", err)
	}
	return r, nil
}

// remoteAnswer is an answer, read to its end.
type remoteAnswer struct {
	code   int
	status string // code and its text
	body   []byte
}

// send sends a request with the API's token, and reads the answer.
func (r *remoteSidecar) send(request *http.Request) (*remoteAnswer, error) {
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, largestRemoteAnswer+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > largestRemoteAnswer {
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", request.URL.EscapedPath(), largestRemoteAnswer)
	}
	return &remoteAnswer{response.StatusCode, response.Status, body}, nil
}

// get asks for a path and reads the answer into into. It returns the code of a refusal.
func (r *remoteSidecar) get(ctx context.Context, path string, into any) (code string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := r.send(request)
	if err != nil {
		return "", err
	}
	if answer.code == http.StatusOK {
		if err := json.Unmarshal(answer.body, into); err != nil {
			return "", fmt.Errorf("%s: want an answer of Postern's decision API: %w", path, err)
		}
		return "", nil
	}
	var refusal struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(answer.body, &refusal) != nil || refusal.Error.Code == "" {
		return "", fmt.Errorf("%s: want an answer of Postern's decision API, got %s", path, answer.status)
	}
	return refusal.Error.Code, fmt.Errorf("%s: %s: %s", path, refusal.Error.Code, refusal.Error.Message)
}

// names returns the names of the live permissions, page by page, and whether the catalog is
// complete.
func (r *remoteSidecar) names(ctx context.Context) (live []string, complete bool, err error) {
	var at syncAnswer
	if _, err := r.get(ctx, "/v1/sync", &at); err != nil {
		return nil, false, err
	}
	seen := map[string]bool{} // a cursor that comes again would go on for ever
	for cursor := ""; ; {
		var page permissionsPage
		query := url.Values{"limit": {strconv.Itoa(largestPage)}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		if _, err := r.get(ctx, "/v1/permissions?"+query.Encode(), &page); err != nil {
			return nil, false, err
		}
		for _, record := range page.Permissions {
			live = append(live, record.Name)
		}
		if page.NextCursor == nil {
			return live, at.Complete, nil
		}
		if cursor = *page.NextCursor; seen[cursor] {
			return nil, false, errors.New("/v1/permissions: the same page comes twice")
		}
		seen[cursor] = true
	}
}

// wasDeleted reports whether the newest that the sidecar knows of a name is its deletion.
func (r *remoteSidecar) wasDeleted(ctx context.Context, name string) (bool, error) {
	if name == "" {
		return false, nil // which isn't a path either
	}
	code, err := r.get(ctx, "/v1/permissions/"+url.PathEscape(name), new(permissionAnswer))
	switch code {
	case "permission_deleted":
		return true, nil
	case "permission_unknown", "malformed_name":
		return false, nil // no such name is ever kept
	}
	return false, err
}
