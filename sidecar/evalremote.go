package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/postern-authz/postern/sidecar/authz"
)

// askRemote asks a running sidecar.
func (c *evalConfig) askRemote(ctx context.Context, body []byte) ([]byte, error) {
	remote, err := c.remote.open()
	if err != nil {
		return nil, usagef("%v", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, remote.base+"/v1/authorize", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.explain {
		request.URL.RawQuery = "explain=true"
	}
	request.Header.Set("Content-Type", "application/json")
	if c.accessTokenFile != "" {
		token, err := readAccessToken(c.accessTokenFile)
		if err != nil {
			return nil, usagef("--access-token-file: %v", err)
		}
		request.Header.Set(authz.TokenHeader, token)
	}
	answer, err := remote.send(request)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	return c.checkAnswer(answer, body)
}

// checkAnswer returns the answer if it is a decision, and what the sidecar says otherwise.
func (c *evalConfig) checkAnswer(answer *remoteAnswer, body []byte) ([]byte, error) {
	var told struct {
		Decision *bool
		Error    struct{ Code, Message string }
	}
	err := json.Unmarshal(answer.body, &told)
	switch {
	case err != nil || told.Error.Code == "" && told.Decision == nil:
		return nil, fmt.Errorf("--from: want an answer of Postern's decision API, got %s", answer.status)
	case told.Error.Code == "malformed_question":
		return nil, c.question.mistake(body, told.Error.Message)
	case answer.code != http.StatusOK:
		return nil, fmt.Errorf("--from: %s: %s", told.Error.Code, told.Error.Message)
	}
	return answer.body, nil
}

// readAccessToken reads what can stand in a header.
func readAccessToken(path string) (string, error) {
	content, err := readSmallFile(path, largestFollowedFile)
	if err != nil {
		return "", err
	}
	token, err := parseHeaderToken([][]byte{content})
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}
