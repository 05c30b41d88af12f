package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/webhook"
)

const (
	deliveryWithin = 10 * time.Second // Scalekit waits about as long
	longestAnswer  = 64 << 10
)

// eventConfig is what `postern event send` runs with.
type eventConfig struct {
	url, secret, secretFile, environmentID string
	id, kind, occurredAt                   string
	permissionID, name, description        string
}

func (c *eventConfig) settings() []setting {
	return []setting{
		configSetting(),
		{
			name: "url", initial: "http://127.0.0.1:8480/webhooks/scalekit", set: text(&c.url),
			help: "the receiver",
		},
		{
			name: "webhook-secret", repeat: true, secret: true, set: joined(&c.secret),
			help: "signing secret, whsec_…; --webhook-secret-file is safer",
		},
		{
			name: "webhook-secret-file", set: text(&c.secretFile),
			help: "file with the signing secret; the first one signs",
		},
		environmentSetting(&c.environmentID),
		{
			name: "type", initial: "permission.created", set: oneOf(&c.kind, "permission.created", "permission.updated", "permission.deleted"),
			help: "permission.created, permission.updated or permission.deleted",
		},
		{
			name: "id", set: text(&c.id),
			help: "the event's id (default a new one)",
		},
		{
			name: "permission-id", initial: "perm_1234567890", set: text(&c.permissionID),
			help: "the permission's id",
		},
		{
			name: "name", initial: "data:manage", set: text(&c.name),
			help: "the permission's name",
		},
		{
			name: "description", set: text(&c.description),
			help: "the permission's description",
		},
		{
			name: "occurred-at", set: text(&c.occurredAt),
			help: "RFC 3339 time of the event (default now)",
		},
	}
}

func (c *eventConfig) send(ctx context.Context, _ []string, std streams) error {
	if c.environmentID == "" {
		return usagef("--environment-id: want the environment that the receiver expects, got none")
	}
	keys, err := signingKeys(c.secret, c.secretFile)
	if err != nil {
		return usagef("--webhook-secret, --webhook-secret-file: %v", err)
	}
	event, err := c.event()
	if err != nil {
		return err
	}
	body, err := event.body()
	if err != nil {
		return err
	}
	answer, err := deliver(ctx, c.url, body, keys.Sign("msg_"+rand.Text(), time.Now(), body))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(std.stdout, "%d %s\n", answer.status, answer.body); err != nil {
		return err
	}
	if answer.status != http.StatusCreated {
		return errors.New("the event was refused")
	}
	return nil
}

// signingKeys joins the secrets of both settings; the first one signs.
func signingKeys(secrets, file string) (webhook.Keys, error) {
	if file != "" {
		content, err := readSmallFile(file, largestFollowedFile)
		if err != nil {
			return webhook.Keys{}, err
		}
		secrets += "\n" + string(content)
	}
	return webhook.ParseKeys(secrets)
}

func (c *eventConfig) event() (wireEvent, error) {
	e := wireEvent{
		ID: c.id, Type: c.kind, EnvironmentID: c.environmentID, OccurredAt: c.occurredAt,
		Permission: wirePermission{ID: c.permissionID, Name: c.name, Description: c.description},
	}
	if e.ID == "" {
		e.ID = "evt_" + rand.Text()
	}
	if e.OccurredAt == "" {
		e.OccurredAt = permission.InstantOf(time.Now()).String()
	}
	if _, err := permission.ParseInstant(e.OccurredAt); err != nil {
		return wireEvent{}, usagef("--occurred-at: %v, got %q", err, c.occurredAt)
	}
	return e, nil
}

// wireEvent is what Scalekit sends.
type wireEvent struct {
	ID, Type, EnvironmentID, OccurredAt string
	Permission                          wirePermission
}

type wirePermission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

func (e wireEvent) body() ([]byte, error) {
	return json.Marshal(struct {
		SpecVersion   string         `json:"spec_version"`
		ID            string         `json:"id"`
		Type          string         `json:"type"`
		Object        string         `json:"object"`
		EnvironmentID string         `json:"environment_id"`
		OccurredAt    string         `json:"occurred_at"`
		Data          wirePermission `json:"data"`
	}{"1", e.ID, e.Type, "Permission", e.EnvironmentID, e.OccurredAt, e.Permission})
}

// httpAnswer is what came back, its body bounded.
type httpAnswer struct {
	status int
	body   string
}

// deliver posts a body as JSON, as Scalekit does.
func deliver(ctx context.Context, url string, body []byte, header http.Header) (httpAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, deliveryWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return httpAnswer{}, fmt.Errorf("preparing the request: %w", err)
	}
	request.Header = header.Clone()
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return httpAnswer{}, fmt.Errorf("posting: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return httpAnswer{}, fmt.Errorf("reading the answer: %w", err)
	}
	return httpAnswer{response.StatusCode, strings.TrimSpace(string(answer))}, nil
}
