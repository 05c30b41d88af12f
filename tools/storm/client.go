package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// client speaks to one process of Postern over HTTP.
type client struct{ http *http.Client }

func newClient() *client {
	return &client{&http.Client{
		Timeout:   hangsAfter,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// response is an answer, read to its end.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (c *client) do(ctx context.Context, method, url string, header http.Header, body []byte) (*response, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = header
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	return &response{answer.StatusCode, answer.Header, text}, nil
}

// sign makes the headers of Standard Webhooks.
func sign(key []byte, id string, at time.Time, body []byte) http.Header {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return http.Header{
		"Content-Type":      {"application/json"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {timestamp},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
}

// decodeSecret returns the key behind whsec_.
func decodeSecret(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
}

// deliver posts a signed webhook.
func (s *sidecar) deliver(ctx context.Context, header http.Header, body []byte) (*response, error) {
	return s.client.do(ctx, http.MethodPost, "http://"+s.addrs["webhook"]+"/webhooks/scalekit", header, body)
}

// ask asks whether a subject that holds the given permissions may do what name says.
func (s *sidecar) ask(ctx context.Context, name string, held []string) (a answer, err error) {
	question, err := json.Marshal(map[string]any{
		"subject":  map[string]any{"type": "user", "id": "usr_1", "properties": map[string]any{"permissions": held}},
		"action":   map[string]string{"name": name},
		"resource": map[string]string{"type": "dataset", "id": "ds_7"},
	})
	if err != nil {
		return a, err
	}
	r, err := s.client.do(ctx, http.MethodPost, "http://"+s.addrs["authorize"]+"/v1/authorize", http.Header{"Content-Type": {"application/json"}}, question)
	if err != nil {
		return a, err
	}
	if r.status != http.StatusOK {
		return a, fmt.Errorf("asking about %s: %d %s", name, r.status, r.body)
	}
	return a, json.Unmarshal(r.body, &a)
}

// syncAnswer is what GET /v1/sync says.
type syncAnswer struct {
	Revision uint64 `json:"revision"`
	Digest   string `json:"digest"`
	Count    int    `json:"count"`
	State    string `json:"state"`
	EventID  string `json:"event_id"`
	AsOf     string `json:"as_of"`
}

func (s *sidecar) sync(ctx context.Context) (a syncAnswer, err error) {
	r, err := s.client.do(ctx, http.MethodGet, "http://"+s.addrs["authorize"]+"/v1/sync", nil, nil)
	if err != nil {
		return a, err
	}
	if r.status != http.StatusOK {
		return a, fmt.Errorf("GET /v1/sync: %d %s", r.status, r.body)
	}
	return a, json.Unmarshal(r.body, &a)
}

// readiness returns the status and the text of /readyz?verbose.
func (s *sidecar) readiness(ctx context.Context) (*response, error) {
	return s.client.do(ctx, http.MethodGet, "http://"+s.addrs["admin"]+"/readyz?verbose", nil, nil)
}
