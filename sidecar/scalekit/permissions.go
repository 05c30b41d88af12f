package scalekit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/postern-authz/postern/sidecar/listing"
	"github.com/postern-authz/postern/sidecar/permission"
)

const (
	pageSize         = "100"   // the most that Scalekit lists on one page
	longestPageToken = 4 << 10 // bytes; it becomes a part of a URL

	// A page is tried again when another attempt may help, so that one failure doesn't throw
	// away the pages before it. A limit on requests a minute needs more patience than the rest:
	// ten attempts wait for more than a minute on average.
	attempts            = 4
	attemptsRateLimited = 10
	longestPageWait     = 2 * time.Minute // who is asked to wait longer begins anew, later
)

// Listing is what one walk over all pages showed: the permissions of the environment. Pages
// are no snapshot: a permission that changed between Began and Ended shows either state.
type Listing struct {
	// States are those of live permissions, in the order of their ids and with the source
	// reconcile, without Scalekit's own. OccurredAt is update_time.
	States []permission.State
	Began  permission.Instant // earliest Date of a page's answer, Scalekit's clock, in whole seconds
	Ended  permission.Instant // latest Date of a page's answer
	Pages  int
}

// Permissions lists the environment's permissions. An error is an [APIError], or wraps
// [context.Canceled]; nothing is returned then. The first page is asked for once, the others
// again when that may help.
func (c *Client) Permissions(ctx context.Context) (*Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.time)
	defer cancel()
	w := &walk{client: c, seen: map[[sha256.Size]byte]bool{}}
	for next, more := "", true; more; more = next != "" {
		var err error
		if next, err = w.page(ctx, next); err != nil {
			return nil, onPage(w.pages.Count()+1, err)
		}
	}
	states, err := w.pages.Whole()
	if err != nil {
		return nil, w.fail(KindIncomplete, err)
	}
	notAhead(states, w.ended)
	return &Listing{States: states, Began: w.began, Ended: w.ended, Pages: w.pages.Count()}, nil
}

// notAhead takes back times that are ahead of the answer that told them: what is dated later would
// win over all events until then, and no listing could miss it. Date is cut to the second.
func notAhead(states []permission.State, ended permission.Instant) {
	latest := ended + permission.Instant(time.Second) - 1
	for i := range states {
		states[i].OccurredAt = min(states[i].OccurredAt, latest)
		states[i].CreatedAt = min(states[i].CreatedAt, latest)
	}
}

// onPage tells an error of the listing which page it met.
func onPage(page int, err error) error {
	if failure := new(APIError); errors.As(err, &failure) && failure.Op == OpPermissions {
		failure.Page = page
	}
	return err
}

// walk goes from page to page.
type walk struct {
	client       *Client
	pages        listing.Pages
	began, ended permission.Instant
	seen         map[[sha256.Size]byte]bool // hashes of page tokens: a token may be long
	bytes        int
	retries      int
}

func (w *walk) fail(kind ErrorKind, reason error) *APIError {
	e := w.client.malformed(OpPermissions, reason)
	e.Kind = kind
	return e
}

// page fetches the page of a token and returns the token of the page after it.
func (w *walk) page(ctx context.Context, token string) (next string, err error) {
	if err := w.checkEnd(token); err != nil {
		return "", w.fail(KindEndless, err)
	}
	got, err := w.fetch(ctx, token)
	if err != nil {
		return "", err
	}
	date, err := readDate(got.header)
	if err != nil {
		return "", w.fail(KindMalformed, err)
	}
	page, err := listing.ParsePage(got.body, permission.SourceReconcile)
	if err != nil {
		return "", w.fail(KindMalformed, err)
	}
	if len(page.Next) > longestPageToken {
		return "", w.fail(KindMalformed, fmt.Errorf("next_page_token: want at most %d bytes, got %d", longestPageToken, len(page.Next)))
	}
	if err := w.pages.Add(page); err != nil {
		return "", w.fail(KindIncomplete, err)
	}
	if w.pages.Count() == 1 {
		w.began = date
	}
	w.began, w.ended = min(w.began, date), max(w.ended, date) // a page out of a cache is as old as its Date
	w.bytes += len(got.body)
	return page.Next, nil
}

// readDate reads when Scalekit answered, by its own clock.
func readDate(header http.Header) (permission.Instant, error) {
	text := header.Get("Date")
	if text == "" {
		return 0, errors.New("the header Date: want when it was answered, got none")
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, errors.New("the header Date: want a time such as Mon, 15 Jan 2024 10:30:00 GMT, got something else")
	}
	instant, err := permission.ParseInstant(at.Format(time.RFC3339))
	if err != nil {
		return 0, errors.New("the header Date: want a time from 1970 to 2262")
	}
	return instant, nil
}

// checkEnd returns an error when it is time to stop believing in a last page.
func (w *walk) checkEnd(token string) error {
	limits := w.client.limits
	switch {
	case w.pages.Count() >= limits.pages:
		return fmt.Errorf("want at most %d pages", limits.pages)
	case w.pages.Entries() >= limits.permissions:
		return fmt.Errorf("want at most %d permissions", limits.permissions)
	case w.bytes >= limits.bytes:
		return fmt.Errorf("want at most %d bytes in all pages", limits.bytes)
	}
	hash := sha256.Sum256([]byte(token))
	if w.seen[hash] {
		return errors.New("next_page_token: want a new one, got one of a page before")
	}
	w.seen[hash] = true
	return nil
}

// fetch fetches a page, again when that may help.
func (w *walk) fetch(ctx context.Context, token string) (*answer, error) {
	query := url.Values{"page_size": {pageSize}, "type": {"ENVIRONMENT"}}
	if token != "" {
		query.Set("page_token", token)
	}
	wait := w.client.pageWait
	for attempt := 1; ; attempt++ {
		got, err := w.client.get(ctx, call{op: OpPermissions, path: "/api/v1/permissions", query: query, most: listing.MaxPage})
		failure := new(APIError)
		if !errors.As(err, &failure) || !w.worthAgain(failure, attempt) {
			return got, err
		}
		w.retries++
		if sleepErr := w.client.config.Sleep(ctx, wait.Next(failure.RetryAfter)); sleepErr != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, w.client.unanswered(ctx, OpPermissions, sleepErr)
			}
			return nil, err // what there was to wait for tells more than that time is over
		}
	}
}

// worthAgain tells whether the page is asked for once more. The first one isn't: whoever
// wants the listing begins anew, later, and has lost nothing.
func (w *walk) worthAgain(failure *APIError, attempt int) bool {
	if w.pages.Count() == 0 || w.retries >= w.client.limits.retries || failure.RetryAfter > longestPageWait {
		return false
	}
	switch failure.Kind {
	case KindRateLimited:
		return attempt < attemptsRateLimited
	case KindServerError, KindTimeout, KindUnreachable:
		return attempt < attempts
	default:
		return false
	}
}
