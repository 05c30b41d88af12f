package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// constantAnswer is about as long as an answer of Postern.
const constantAnswer = `{"decision":true,"context":{"reasons":["granted"],"decision_id":"00000000-0000-4000-8000-000000000000",` +
	`"permission":{"id":"perm_000000000000","name":"resource0000:read","event_id":"evt_000000000000"},"data_revision":1,` +
	`"event_id":null,"as_of":null,"policy_revision":"0000000000000000000000000000000000000000000000000000000000000000"}}` + "\n"

// serveConstant is the ceiling of any server on net/http: it reads the question, does
// nothing with it and gives the same answer to each. It says on log where it listens.
func serveConstant(ctx context.Context, log io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	fmt.Fprintln(log, l.Addr())
	answer, length := []byte(constantAnswer), []string{strconv.Itoa(len(constantAnswer))}
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the generator notices what goes wrong
			w.Header()["Content-Type"] = []string{"application/json"}
			w.Header()["Content-Length"] = length
			_, _ = w.Write(answer)
		}),
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // its listener is all it has
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving a constant: %w", err)
	}
	return nil
}
