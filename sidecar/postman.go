package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// postmansAddress is where the simulated Scalekit of the demonstration sends its webhooks to:
// the postman knows where the sidecar is now.
const postmansAddress = "sidecar.invalid"

// postman carries webhooks to the sidecar, wherever it listens after a restart, and notes what
// it answered.
type postman struct {
	mu      sync.Mutex // guards what follows
	sidecar string     // host:port
	carried []carried
}

// carried is a webhook that was delivered.
type carried struct {
	event struct {
		ID         string `json:"id"`
		Type       string `json:"type"`
		OccurredAt string `json:"occurred_at"`
		Data       struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"data"`
	}
	answer httpAnswer
}

// outcome is the status of the answer, and the word for what became of the event.
func (c carried) outcome() string {
	var said struct {
		Outcome string `json:"outcome"`
		Error   struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal([]byte(c.answer.body), &said) // no JSON, no word
	return fmt.Sprint(c.answer.status, " ", cmp.Or(said.Outcome, said.Error.Code))
}

// deliverTo says where the sidecar is from now on.
func (p *postman) deliverTo(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sidecar = address
}

// collect returns what was delivered since it was last asked.
func (p *postman) collect() []carried {
	p.mu.Lock()
	defer p.mu.Unlock()
	collected := p.carried
	p.carried = nil
	return collected
}

// RoundTrip delivers one webhook.
func (p *postman) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err := errors.Join(err, request.Body.Close()); err != nil {
		return nil, err
	}
	p.mu.Lock()
	to := p.sidecar
	p.mu.Unlock()
	onward := request.Clone(request.Context())
	onward.URL.Host, onward.Host = to, to
	onward.Body = io.NopCloser(bytes.NewReader(body))
	response, err := http.DefaultTransport.RoundTrip(onward)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(answer))
	it := carried{answer: httpAnswer{response.StatusCode, strings.TrimSpace(string(answer))}}
	if err := json.Unmarshal(body, &it.event); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carried = append(p.carried, it)
	return response, nil
}
