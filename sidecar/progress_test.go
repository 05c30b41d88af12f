package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
)

func TestALongWorkIsFollowedToItsResult(t *testing.T) {
	answer := httptest.NewRecorder()
	answerWork(answer, httptest.NewRequest(http.MethodPost, "/", nil), func(_ context.Context, progress catalog.Progress) (restored, error) {
		progress(1, 3)
		progress(2, 3) // too soon after the last one to be told
		return restored{States: 3}, nil
	}, nil)
	var told []string
	var got restored
	err := followWork(answer.Body, func(done, total int64) { told = append(told, fmt.Sprintf("%d/%d", done, total)) }, &got)
	if err != nil || got.States != 3 || fmt.Sprint(told) != "[1/3]" {
		t.Errorf("got %+v, %v after %v", got, err, told)
	}
}

func TestALongWorkThatFails(t *testing.T) {
	answer := httptest.NewRecorder()
	answerWork(answer, httptest.NewRequest(http.MethodPost, "/", nil), func(context.Context, catalog.Progress) (restored, error) { return restored{}, errors.New("no room") }, func(err error) *listener.Error {
		return &listener.Error{Code: "restore_failed", Message: err.Error()}
	})
	if err := followWork(answer.Body, nil, nil); err == nil || err.Error() != "restore_failed: no room" {
		t.Errorf("got %v", err)
	}
	for _, cut := range []string{"", `{"done":1,"total":2}` + "\n", `{"done":1`} {
		if err := followWork(strings.NewReader(cut), func(int64, int64) {}, nil); err == nil || !strings.Contains(err.Error(), "broke off") {
			t.Errorf("%q: got %v", cut, err)
		}
	}
}

func TestADumpIsCountedAndPassedOnUnchanged(t *testing.T) {
	dump := `{"format":"postern-dump/1","states":2500}` + "\n" + strings.Repeat(`{"id":"perm"}`+"\n", 2500)
	var out bytes.Buffer
	var last, total int64
	lines := &countingLines{to: &out, progress: func(done, all int64) { last, total = done, all }}
	for rest := dump; rest != ""; {
		piece := rest[:min(7, len(rest))]
		if n, err := lines.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
		rest = rest[len(piece):]
	}
	if out.String() != dump || last != 2000 || total != 2500 {
		t.Errorf("%d bytes of %d, %d/%d", out.Len(), len(dump), last, total)
	}
}

// What isn't a terminal gets no bar, however long it takes.
func TestNoBarWithoutATerminal(t *testing.T) {
	var screen bytes.Buffer
	b := newBar(&screen, "restoring")
	b.begun = b.begun.Add(-time.Hour)
	b.progress(1, 2)
	b.end()
	if screen.Len() > 0 || b.shown != nil {
		t.Errorf("%q", screen.String())
	}
}
