package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/postern-authz/postern/sidecar/catalog"
	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	reportEvery = 200 * time.Millisecond // between two lines about the progress of a work
	barAfter    = time.Second            // shorter works show no bar
)

// workLine is a line of the answer to a long piece of work on the control socket: how far
// it is, and in the last line its result or what it failed with.
type workLine struct {
	Done   int64           `json:"done,omitempty"`
	Total  int64           `json:"total,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *workError      `json:"error,omitempty"`
}

type workError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// answerWork does a long piece of work and answers 200 with a line of JSON now and then,
// so that whoever waits sees that it goes on. What becomes of it stands in the last line.
func answerWork[T any](w http.ResponseWriter, r *http.Request, do func(context.Context, catalog.Progress) (T, error), refuse func(error) *listener.Error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	var told time.Time
	result, err := do(r.Context(), func(done, total int64) {
		if time.Since(told) < reportEvery {
			return
		}
		told = time.Now()
		if lines.Encode(workLine{Done: done, Total: total}) == nil { // else the peer has hung up
			_ = http.NewResponseController(w).Flush()
		}
	})
	last := workLine{}
	if err == nil {
		last.Result, err = json.Marshal(result)
	}
	if err != nil {
		refused := refuse(err)
		last = workLine{Error: &workError{refused.Code, refused.Message}}
	}
	_ = lines.Encode(last) // the peer may have hung up
}

// followWork reads the answer of answerWork into result.
func followWork(answer io.Reader, progress catalog.Progress, result any) error {
	for lines := json.NewDecoder(answer); ; {
		var line workLine
		if err := lines.Decode(&line); err != nil {
			return fmt.Errorf("asking the running sidecar: its answer broke off: %w", err)
		}
		switch {
		case line.Error != nil:
			return errors.New(line.Error.Code + ": " + line.Error.Message)
		case line.Result != nil:
			return json.Unmarshal(line.Result, result)
		}
		progress(line.Done, line.Total)
	}
}

// bar shows the progress of a work that takes longer than a second, if screen is a
// terminal. Its work is not called from several goroutines at once.
type bar struct {
	screen io.Writer
	what   string
	begun  time.Time
	shown  *progressbar.ProgressBar
}

func newBar(screen io.Writer, what string) *bar {
	b := &bar{what: what, begun: time.Now()}
	if f, ok := screen.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.screen = screen
	}
	return b
}

// progress is a [catalog.Progress].
func (b *bar) progress(done, total int64) {
	if b.screen == nil || time.Since(b.begun) < barAfter {
		return
	}
	if b.shown == nil {
		b.shown = progressbar.NewOptions64(max(total, 1),
			progressbar.OptionSetWriter(b.screen), progressbar.OptionSetDescription(b.what),
			progressbar.OptionShowCount(), progressbar.OptionThrottle(reportEvery), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	_ = b.shown.Set64(min(done, total)) // a screen that can't be written to shows nothing
}

// end takes the bar off the screen.
func (b *bar) end() {
	if b.shown != nil {
		_ = b.shown.Clear()
	}
}

// countingLines tells the progress of a dump that passes by: each line but the first one is
// a state.
type countingLines struct {
	to       io.Writer
	progress catalog.Progress
	head     []byte // the first line as far as it has come
	headRead bool
	total    int64 // states announced in the first line
	done     int64
}

// Write passes p on and counts the lines in it.
func (c *countingLines) Write(p []byte) (int, error) {
	for _, b := range p {
		if !c.headRead {
			c.head = append(c.head, b)
		}
		if b == '\n' {
			c.line()
		}
	}
	return c.to.Write(p)
}

func (c *countingLines) line() {
	if !c.headRead {
		var header catalog.DumpHeader
		if json.Unmarshal(c.head, &header) == nil {
			c.total = int64(header.States)
		}
		c.head, c.headRead = nil, true
		return
	}
	if c.done++; c.done%1000 == 0 {
		c.progress(c.done, c.total)
	}
}
