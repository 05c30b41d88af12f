package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/postern-authz/postern/sidecar/webhook"
)

const deliveryPath = "/webhooks/scalekit"

// firstDelivery is later than anything that a made-up catalog holds, so that each event
// changes it. In the past, as an event has to be.
var firstDelivery = time.Date(2025, 1, 15, 10, 0, 0, 123456789, time.UTC)

// eventStream makes up signed deliveries for one catalog, without end. By turns one creates
// a permission and one updates a permission that was there before, so that each leg does
// the same work, however many events it gets through. The known ones have to be many more
// than the senders: of two updates in flight the earlier one may come last and change nothing.
type eventStream struct {
	keys  webhook.Keys
	known func(i int) (id, name string) // the permissions to update
	count int                           // of the known ones
	next  int                           // number of the next event
}

// newEventStream streams events over a catalog's permissions.
func newEventStream(keys webhook.Keys, c *catalog) *eventStream {
	return &eventStream{keys: keys, count: len(c.live), known: func(i int) (id, name string) { return c.live[i].ID, c.live[i].Name }}
}

// draw returns the next n deliveries as whole HTTP requests, signed now: Postern takes a
// signature for five minutes.
func (s *eventStream) draw(n int) [][]byte {
	now := time.Now()
	requests := make([][]byte, n)
	for i := range requests {
		requests[i] = s.sign(s.next+i, now)
	}
	return requests
}

// advance goes on to the events behind the next n, which were sent.
func (s *eventStream) advance(n int) { s.next += n }

// sign returns an event of the stream as a request. The event is the same each time, the
// signature is that of now.
func (s *eventStream) sign(number int, now time.Time) []byte {
	body := s.body(number)
	headers := s.keys.Sign(fmt.Sprintf("msg_%012d", number), now, body)
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", deliveryPath, len(body))
	_ = headers.Write(&request) // a buffer takes everything
	request.WriteString("\r\n")
	request.Write(body)
	return request.Bytes()
}

// body returns an event as Scalekit's guide shows them.
func (s *eventStream) body(number int) []byte {
	kind, title := "created", "Permission Created"
	id, name := fmt.Sprintf("perm_new%09d", number), fmt.Sprintf("incoming%09d:manage", number)
	if number%2 == 1 {
		kind, title = "updated", "Permission Updated"
		id, name = s.known(number / 2 % s.count)
	}
	occurred := firstDelivery.Add(time.Duration(number) * time.Microsecond).Format(time.RFC3339Nano)
	return fmt.Appendf(nil, `{"spec_version":"1","id":"evt_new%012d","type":"permission.%s","object":"Permission","environment_id":%q,`+
		`"occurred_at":%q,"display_name":%q,"data":{"id":%q,"name":%q,"description":"Lets its holder %s, says event %d"}}`,
		number, kind, environmentID, occurred, title, id, name, name, number)
}
