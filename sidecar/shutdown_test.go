package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// What is in flight at SIGTERM is finished, nothing new is accepted, and the exit status is 0.
func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	c := sidecarStarter(t)()
	const question = `{"subject":{"type":"user","id":"u"},"action":{"name":"a"},"resource":{"type":"r","id":"1"}}`
	conn := must(net.Dial("tcp", c.addr("authorize")))
	defer func() { _ = conn.Close() }()
	// The server asks for the body once the request is in the handler's hands.
	fmt.Fprintf(conn, "POST /v1/authorize HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(question))
	answers := bufio.NewReader(conn)
	if line := must(answers.ReadString('\n')); !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q", line)
	}
	if err := c.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until the listener is closed
		other, err := net.Dial("tcp", c.addr("authorize"))
		if err != nil {
			break
		}
		_ = other.Close()
	}
	fmt.Fprint(conn, question)
	must(answers.ReadString('\n')) // ends the interim answer
	response, err := http.ReadResponse(answers, nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v", response, err)
	}
	<-c.exited
	if err := c.command.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}
