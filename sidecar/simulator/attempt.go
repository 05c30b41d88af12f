package simulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// longestAnswer bounds what is read of an answer, so that the connection can be used again.
const longestAnswer = 64 << 10

// post makes one attempt. It returns the status of the answer, or 0 and why none came.
func (p *posts) post(ctx context.Context, d *delivery) (status int, failure string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.webhooks.URL, bytes.NewReader(d.letter.body))
	if err != nil {
		return 0, "the request can't be made"
	}
	request.Header = p.headers(d)
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return 0, reason(err)
	}
	_, readErr := io.Copy(io.Discard, io.LimitReader(response.Body, longestAnswer))
	if err := errors.Join(readErr, response.Body.Close()); err != nil {
		return response.StatusCode, reason(err)
	}
	return response.StatusCode, ""
}

// reason leaves the URL out: it may hold what only its owner should read.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err.Error()
}
