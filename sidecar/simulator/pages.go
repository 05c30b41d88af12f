package simulator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	mostPageSize    = 100 // as documented
	defaultPageSize = 30  // ours: Scalekit's isn't documented
	longestToken    = 128 // bytes of a page token
)

// pageToken says where a page begins, and what the whole listing leaves out. Pages aren't a
// snapshot: what is created or deleted meanwhile shows on the pages behind.
type pageToken struct {
	after  uint64 // position of the last entry of the page before
	hidden uint64 // position of a permission that the listing leaves out; 0: none
	lap    uint64 // how often an endless listing began again, so that no two tokens are alike
}

func (t pageToken) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%d.%d", t.after, t.hidden, t.lap))
}

// parsePageToken is the inverse of [pageToken.String]; "" begins a listing.
func parsePageToken(text string) (pageToken, error) {
	var t pageToken
	if text == "" {
		return t, nil
	}
	bad := errors.New("page_token: want the next_page_token or prev_page_token of a page")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	parts := strings.Split(string(raw), ".")
	if err != nil || len(text) > longestToken || len(parts) != 3 {
		return t, bad
	}
	for i, into := range []*uint64{&t.after, &t.hidden, &t.lap} {
		if *into, err = strconv.ParseUint(parts[i], 10, 63); err != nil {
			return t, bad
		}
	}
	if t.String() != text {
		return t, bad
	}
	return t, nil
}

// query is a request for a page.
type query struct {
	size            int
	token           pageToken
	environmentOnly bool // type=ENVIRONMENT: without Scalekit's own
}

// page is one page of a listing.
type page struct {
	entries []Permission
	next    string // "" on the last one
	prev    string // "" on the first one
	total   int
}

// list returns a page. What goes wrong with it is up to the caller.
func (w *world) list(q query) page {
	all := &listed{w: w, own: len(w.own), hidden: q.token.hidden}
	if q.environmentOnly {
		all.own = 0
	}
	begin := all.behind(q.token.after)
	p := page{total: all.total()}
	i := begin
	for ; i < all.length() && len(p.entries) < q.size; i++ {
		if all.shows(i) {
			p.entries = append(p.entries, *all.at(i))
		}
	}
	if i < all.length()-1 || (i < all.length() && all.shows(i)) {
		p.next = pageToken{all.at(i - 1).position, q.token.hidden, q.token.lap}.String()
	}
	if begin > 0 {
		p.prev = pageToken{all.before(begin, q.size), q.token.hidden, q.token.lap}.String()
	}
	return p
}

// listed is what a listing goes through: Scalekit's own permissions, unless they are left
// out, and behind them the live ones.
type listed struct {
	w      *world
	own    int
	hidden uint64
}

func (l *listed) length() int { return l.own + len(l.w.live) }

func (l *listed) at(i int) *Permission {
	if i < l.own {
		return l.w.own[i]
	}
	return l.w.live[i-l.own]
}

func (l *listed) shows(i int) bool { return l.at(i).position != l.hidden }

// before returns the position behind which the size entries in front of an index begin.
func (l *listed) before(i, size int) uint64 {
	for size > 0 && i > 0 {
		if i--; l.shows(i) {
			size--
		}
	}
	if i == 0 {
		return 0
	}
	return l.at(i - 1).position
}

// behind returns the index of the first entry behind a position.
func (l *listed) behind(position uint64) int {
	for i := range l.own {
		if l.w.own[i].position > position {
			return i
		}
	}
	return l.own + l.w.after(position)
}

func (l *listed) total() int {
	i := l.w.after(l.hidden - 1)
	if l.hidden > 0 && i < len(l.w.live) && l.w.live[i].position == l.hidden {
		return l.length() - 1
	}
	return l.length()
}
