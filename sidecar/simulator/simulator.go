// Package simulator is a Scalekit to develop and test against: the token endpoint, the
// permissions and roles of the management API, keys and tokens, and signed webhooks with
// retries. Under /simulator/ it takes orders: change a permission, mint a token, go wrong.
//
// Its promise: what goes over the wire has the form that Scalekit's has, every change has a
// later time than the one before, and nothing goes wrong unless a fault says so. With one
// seed, the same changes and requests in the same order meet the same faults and make the
// same ids. State is in memory alone, and nothing here protects anything: whoever reaches
// the listener from this machine gets a token.
package simulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Config is what a [Simulator] is made of. URL, EnvironmentID, ClientID, ClientSecret, Now
// and Logger are required; a zero elsewhere means what its comment says.
type Config struct {
	// URL is the environment URL, "http://127.0.0.1:8580": the issuer of tokens, and where
	// the simulator is served. It has no path and no slash at its end.
	URL           string
	EnvironmentID string // "env_…", of the events
	ClientID      string // of the management API
	ClientSecret  string
	TokenLifetime time.Duration // expires_in of the management API's tokens; zero: 24 h less a second, as Scalekit's
	Webhooks      Webhooks
	Faults        Faults
	Fixture       Fixture
	Seed          uint64 // of ids and of everything that is left to chance
	Now           func() time.Time
	Logger        *slog.Logger
}

const defaultTokenLifetime = 86399 * time.Second

// Webhooks is where events go and how. Zero means that none are sent.
type Webhooks struct {
	// URL is the one endpoint: each event reaches it at least once, or is lost.
	URL string
	// Sign returns the headers of Standard Webhooks for one attempt. Required with URL.
	Sign     func(id string, at time.Time, body []byte) http.Header
	Attempts int           // before an event is lost; zero: 8
	First    time.Duration // wait after the first failure, doubled after each one; zero: 200 ms
	Longest  time.Duration // longest wait between two attempts; zero: 10 s
	Timeout  time.Duration // of one attempt; zero: 10 s
	InFlight int           // attempts at once; zero: 8. With 1 and no faults, events arrive in their order
	// Transport carries the attempts; nil: a clone of http.DefaultTransport.
	Transport http.RoundTripper
	// Observe is told of each delivery that ended: delivered, refused, dropped or lost. It may
	// be called concurrently. Nil: nobody is told.
	Observe func(Delivery)
}

// Simulator is the handler of the simulated environment URL. Its methods may be called
// concurrently.
type Simulator struct {
	config Config
	routes http.Handler
	faults *dice
	keys   *keyring
	tokens *apiTokens
	posts  *posts // nil without webhooks

	mu    sync.Mutex // guards world, and that events are queued in the order of their times
	world *world
}

// New returns a simulator that holds the fixture. Its error names the field of c that is
// wrong. Webhooks wait until [Simulator.Run] sends them.
func New(c Config) (*Simulator, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = defaultTokenLifetime
	}
	s := &Simulator{
		config: c,
		faults: newDice(c.Seed),
		keys:   &keyring{},
		tokens: &apiTokens{valid: map[string]time.Time{}},
		world:  newWorld(c.Seed),
	}
	if err := s.SetFaults(c.Faults); err != nil {
		return nil, err
	}
	if c.Webhooks.URL != "" {
		s.posts = newPosts(c.Webhooks, s.faults, c.Now, c.Logger)
	}
	if err := s.world.load(c.Fixture, c.Now()); err != nil {
		return nil, fmt.Errorf("fixture: %w", err)
	}
	s.routes = s.newRoutes()
	return s, nil
}

func (c Config) check() error {
	if err := CheckURL(c.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if c.EnvironmentID == "" || c.ClientID == "" || c.ClientSecret == "" || c.Now == nil || c.Logger == nil {
		return errors.New("want an environment id, a client id, a client secret, a clock and a logger")
	}
	if c.TokenLifetime < 0 {
		return fmt.Errorf("token lifetime: want a positive one, got %s", c.TokenLifetime)
	}
	return c.Webhooks.check()
}

func (w Webhooks) check() error {
	if w.Attempts < 0 || w.First < 0 || w.Longest < 0 || w.Timeout < 0 || w.InFlight < 0 {
		return errors.New("webhooks: want no negative number")
	}
	if w.URL == "" {
		return nil
	}
	if w.Sign == nil {
		return errors.New("webhooks: want what signs them, got none")
	}
	if err := CheckWebhookURL(w.URL); err != nil {
		return fmt.Errorf("webhook url: %w", err)
	}
	return nil
}

// CheckURL returns an error unless text is an environment URL: scheme and host alone.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != text {
		return errors.New("want scheme and host alone, such as http://127.0.0.1:8580")
	}
	return nil
}

// CheckWebhookURL returns an error unless text is where a webhook may go.
func CheckWebhookURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return errors.New("want a URL without credentials, such as http://127.0.0.1:8480/webhooks/scalekit")
	}
	return nil
}

// ServeHTTP answers for the environment URL, and takes orders under /simulator/.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// Run sends webhooks until ctx ends, and returns once no attempt is in flight. What is
// pending then stays so, and is sent when Run is called again: also what was in flight, and
// may have arrived.
func (s *Simulator) Run(ctx context.Context) {
	if s.posts == nil {
		<-ctx.Done()
		return
	}
	s.posts.run(ctx)
}

// Wait returns once no webhook is pending: each was delivered, refused, dropped or lost, and
// the observer knows. It returns the error of ctx if that ends first.
func (s *Simulator) Wait(ctx context.Context) error {
	if s.posts == nil {
		return nil
	}
	return s.posts.wait(ctx)
}

// Digest returns the digest of the live permissions: what GET /v1/sync of a sidecar says
// that knows them all. Scalekit's own permissions don't count.
func (s *Simulator) Digest() permission.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.world.digest
}

// Live returns the live permissions in the order of their creation, without Scalekit's own.
func (s *Simulator) Live() []Permission {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copies(s.world.live)
}

// Roles returns the roles in the order of their creation.
func (s *Simulator) Roles() []Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	roles := make([]Role, len(s.world.roles))
	for i, r := range s.world.roles {
		roles[i] = r.export()
	}
	return roles
}

// Deliveries returns the newest deliveries, oldest first, no more than a thousand.
func (s *Simulator) Deliveries() []Delivery {
	if s.posts == nil {
		return nil
	}
	return s.posts.deliveries()
}

// Counts returns how the deliveries went by now.
func (s *Simulator) Counts() Counts {
	if s.posts == nil {
		return Counts{}
	}
	return s.posts.counted()
}

// Resend sends an event once more, as Scalekit's dashboard does: with its webhook-id, and
// with retries. Its error wraps [ErrNotFound] when the event's delivery isn't remembered.
func (s *Simulator) Resend(eventID string) error {
	if s.posts == nil {
		return fmt.Errorf("%w: no webhooks are sent", ErrNotFound)
	}
	return s.posts.resend(eventID)
}
