package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
)

// pipes is a listener in a bubble: what waits on it waits on the bubble's clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

// bubble runs test with a receiver on a listener whose time is the bubble's.
func bubble(t *testing.T, test func(t *testing.T, f *fixture, p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newReceiver(t), pipes{make(chan net.Conn), make(chan struct{})}
		go func() { _ = f.config.Serve(p) }()
		defer func() { _ = f.config.Close() }()
		test(t, f, p)
	})
}

// sender is one connection that posts the event, of which it sends all but the last bytes.
type sender struct {
	net.Conn
	answer chan string // "201 applied after 0s"
}

func (f *fixture) send(t *testing.T, p pipes, bodyBytes int) sender {
	t.Helper()
	s, server := net.Pipe()
	p.conns <- server
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n", len(event))
	if err := parse(t, secret).Sign("msg_1", f.now, []byte(event)).Write(&request); err != nil {
		t.Fatal(err)
	}
	request.WriteString("\r\n" + event[:bodyBytes])
	answer, start := make(chan string, 1), time.Now()
	go func() {
		if _, err := s.Write(request.Bytes()); err == nil {
			answer <- readAnswer(s, start)
		}
	}()
	t.Cleanup(func() { _ = s.Close() })
	return sender{s, answer}
}

func readAnswer(conn io.Reader, start time.Time) string {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error()
	}
	after := time.Since(start)
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Outcome string
		Error   struct{ Code string }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s after %s %s", response.StatusCode, answer.Outcome+answer.Error.Code, after, response.Header.Get("Retry-After")))
}

func (s sender) want(t *testing.T, want string) {
	t.Helper()
	if got := <-s.answer; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A sender who stops in the middle of its body gives up its turn after ten seconds.
func TestABodyThatComesTooSlowly(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture, p pipes) {
		f.send(t, p, 3).want(t, "400 body_incomplete after 10s")
		if f.sink.count() != 0 {
			t.Error("half an event was kept")
		}
	})
}

func TestABodyThatBreaksOff(t *testing.T) {
	f := newFixture(t)
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n", len(event)+1)
	if err := parse(t, secret).Sign("msg_1", f.now, []byte(event)).Write(&request); err != nil {
		t.Fatal(err)
	}
	request.WriteString("\r\n" + event)
	if _, err := conn.Write(request.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(conn, time.Now()); !strings.HasPrefix(got, "400 body_incomplete") || f.sink.count() != 0 {
		t.Errorf("got %s and %d events", got, f.sink.count())
	}
}

// Senders who have proved nothing can't hold more than 64 bodies: the next one waits three
// seconds for its turn, and is told to come back.
func TestBodiesAtOnceAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture, p pipes) {
		slow := make([]sender, 63)
		for i := range slow {
			slow[i] = f.send(t, p, 3)
		}
		synctest.Wait()
		f.send(t, p, len(event)).want(t, "201 applied after 0s")
		last := f.send(t, p, 3)
		synctest.Wait()
		f.send(t, p, len(event)).want(t, "503 too_many_deliveries after 3s 5")
		if f.sink.count() != 1 {
			t.Errorf("%d events", f.sink.count())
		}
		hungUp, hangUp := context.WithCancel(context.Background())
		hangUp()
		request := httptest.NewRequestWithContext(hungUp, http.MethodPost, "/", strings.NewReader(event))
		request.Header = parse(t, secret).Sign("msg_1", f.now, []byte(event))
		start := time.Now()
		if f.config.Handler.ServeHTTP(httptest.NewRecorder(), request); time.Since(start) != 0 {
			t.Errorf("a sender who is gone waits for %s", time.Since(start))
		}
		waiting := f.send(t, p, len(event))
		time.Sleep(2 * time.Second)
		if err := last.Close(); err != nil {
			t.Fatal(err)
		}
		waiting.want(t, "201 applied after 2s")
	})
}

// A body that has come whole is in memory until its signature is checked, so it counts.
func TestBodiesCountUntilTheyAreVerified(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture, p pipes) {
		checked := make(chan struct{})
		f.asked = func() { <-checked }
		var whole [64]sender
		for i := range whole {
			whole[i] = f.send(t, p, len(event))
		}
		synctest.Wait()
		f.send(t, p, len(event)).want(t, "503 too_many_deliveries after 3s 5")
		close(checked)
		for _, s := range whole {
			s.want(t, "201 applied after 3s")
		}
	})
}

// Events that wait for the catalog take no turns: it commits them in groups, and a turn
// held meanwhile would keep a group small.
func TestWaitingForTheCatalogTakesNoTurn(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture, p pipes) {
		committed := make(chan struct{})
		f.sink.do = func(context.Context) (permission.Outcome, error) {
			<-committed
			return permission.OutcomeApplied, nil
		}
		for range 65 {
			f.send(t, p, len(event))
		}
		synctest.Wait()
		if f.sink.count() != 65 {
			t.Errorf("%d events got through", f.sink.count())
		}
		close(committed)
	})
}

// A catalog that doesn't answer is a failure in time: Scalekit waits for about ten seconds.
func TestACatalogThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture, p pipes) {
		f.sink.do = func(ctx context.Context) (permission.Outcome, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		f.send(t, p, len(event)).want(t, "503 catalog_unavailable after 5s 5")
	})
}
