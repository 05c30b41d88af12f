package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/postern-authz/postern/sidecar/listener"
)

const (
	largestOrder = 1 << 20          // bytes of a body under /simulator/
	longestWait  = 20 * time.Second // of GET /simulator/state?wait=
)

// newRoutes is every URL.
func (s *Simulator) newRoutes() http.Handler {
	r := mux.NewRouter().SkipClean(true)
	r.NotFoundHandler = http.HandlerFunc(listener.NotFound)
	routes := []struct {
		method, path string
		handler      http.Handler
	}{
		{http.MethodPost, "/oauth/token", http.HandlerFunc(s.serveToken)},
		{http.MethodGet, "/api/v1/permissions", s.api(s.listPermissions)},
		{http.MethodGet, "/api/v1/roles", s.api(s.listRoles)},
		{http.MethodGet, "/keys", s.unlessUnavailable(s.serveKeys)},
		{http.MethodGet, "/.well-known/openid-configuration", s.unlessUnavailable(s.serveDiscovery)},

		{http.MethodGet, "/simulator/state", order(http.StatusOK, s.takeState)},
		{http.MethodGet, "/simulator/deliveries", order(http.StatusOK, s.takeDeliveries)},
		{http.MethodPost, "/simulator/deliveries/{event_id}/resend", order(http.StatusAccepted, s.takeResend)},
		{http.MethodPost, "/simulator/permissions", order(http.StatusCreated, s.takeCreate)},
		{http.MethodPatch, "/simulator/permissions/{id}", order(http.StatusOK, s.takeUpdate)},
		{http.MethodDelete, "/simulator/permissions/{id}", order(http.StatusOK, s.takeDelete)},
		{http.MethodPost, "/simulator/roles", order(http.StatusCreated, s.takeCreateRole)},
		{http.MethodPatch, "/simulator/roles/{name}", order(http.StatusOK, s.takeUpdateRole)},
		{http.MethodDelete, "/simulator/roles/{name}", order(http.StatusOK, s.takeDeleteRole)},
		{http.MethodPost, "/simulator/tokens", order(http.StatusCreated, s.takeMint)},
		{http.MethodPost, "/simulator/keys", order(http.StatusCreated, s.takeRotate)},
		{http.MethodGet, "/simulator/faults", order(http.StatusOK, s.takeShowFaults)},
		{http.MethodPut, "/simulator/faults", order(http.StatusOK, s.takeFaults)},
	}
	allowed := map[string][]string{}
	for _, at := range routes {
		r.Handle(at.path, at.handler).Methods(at.method)
		allowed[at.path] = append(allowed[at.path], at.method)
	}
	for path, methods := range allowed {
		r.Handle(path, listener.MethodNotAllowed(methods...))
	}
	return r
}

// order serves a route of the control API for this machine alone, and owns its errors.
func order(status int, take func(*http.Request, *object) (any, error)) http.Handler {
	return listener.LocalOnly(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !listener.IsLoopbackHost(host) {
			listener.WriteError(w, &listener.Error{Status: http.StatusForbidden, Code: "peer_forbidden", Message: "orders are taken from this machine alone"})
			return
		}
		body, refused := readOrder(r)
		if refused != nil {
			listener.WriteError(w, refused)
			return
		}
		answer, err := take(r, body)
		if err != nil {
			listener.WriteError(w, refuse(err))
			return
		}
		listener.WriteJSON(w, status, answer)
	}))
}

// readOrder reads the body of a request that may have one; none is an empty object.
func readOrder(r *http.Request) (*object, *listener.Error) {
	body, refused := listener.ReadBody(r, largestOrder)
	if refused != nil {
		return nil, refused
	}
	if len(body) == 0 {
		return &object{}, nil
	}
	o := parseObject(body)
	if o.err != nil {
		return nil, refuse(o.err)
	}
	return o, nil
}

// refuse is the one map from errors to statuses.
func refuse(err error) *listener.Error {
	switch {
	case errors.Is(err, ErrInvalid):
		return &listener.Error{Status: http.StatusBadRequest, Code: "invalid_order", Message: err.Error()}
	case errors.Is(err, ErrNotFound):
		return &listener.Error{Status: http.StatusNotFound, Code: "nothing_there", Message: err.Error()}
	case errors.Is(err, ErrConflict):
		return &listener.Error{Status: http.StatusConflict, Code: "conflict", Message: err.Error()}
	default:
		return &listener.Error{Status: http.StatusInternalServerError, Code: "order_failed", Message: err.Error()}
	}
}

func (s *Simulator) takeCreate(_ *http.Request, o *object) (any, error) {
	o.only("name", "description")
	o.require("name")
	name, description := o.text("name"), o.text("description")
	if o.err != nil {
		return nil, o.err
	}
	p, err := s.Create(name, description)
	return p.wire(), err
}

func (s *Simulator) takeUpdate(r *http.Request, o *object) (any, error) {
	o.only("name", "description")
	change := Change{Name: o.given("name"), Description: o.given("description")}
	if o.err != nil {
		return nil, o.err
	}
	p, err := s.Update(mux.Vars(r)["id"], change)
	return p.wire(), err
}

func (s *Simulator) takeDelete(r *http.Request, o *object) (any, error) {
	if o.only(); o.err != nil {
		return nil, o.err
	}
	p, err := s.Delete(mux.Vars(r)["id"])
	return p.wire(), err
}

func (s *Simulator) takeCreateRole(_ *http.Request, o *object) (any, error) {
	role := o.role()
	if o.err != nil {
		return nil, o.err
	}
	made, err := s.CreateRole(role)
	return showRole(made), err
}

func (s *Simulator) takeUpdateRole(r *http.Request, o *object) (any, error) {
	o.only("display_name", "description", "extends", "permissions")
	change := RoleChange{DisplayName: o.given("display_name"), Description: o.given("description"), Extends: o.given("extends")}
	if permissions := o.texts("permissions"); permissions != nil {
		change.Permissions = &permissions
	}
	if o.err != nil {
		return nil, o.err
	}
	changed, err := s.UpdateRole(mux.Vars(r)["name"], change)
	return showRole(changed), err
}

func (s *Simulator) takeDeleteRole(r *http.Request, o *object) (any, error) {
	if o.only(); o.err != nil {
		return nil, o.err
	}
	deleted, err := s.DeleteRole(mux.Vars(r)["name"])
	return showRole(deleted), err
}

func (s *Simulator) takeMint(_ *http.Request, o *object) (any, error) {
	o.only("sub", "oid", "roles", "permissions", "aud", "lifetime_seconds", "age_seconds", "key", "claims")
	request := TokenRequest{
		Subject: o.text("sub"), OrganizationID: o.text("oid"), Roles: o.texts("roles"), Permissions: o.texts("permissions"),
		Audience: o.texts("aud"), Lifetime: o.seconds("lifetime_seconds"), Age: o.seconds("age_seconds"), Key: o.text("key"),
	}
	o.read("claims", "an object", &request.Claims)
	if o.err != nil {
		return nil, o.err
	}
	token, err := s.Mint(request)
	return map[string]string{"access_token": token}, err
}

func (s *Simulator) takeRotate(_ *http.Request, o *object) (any, error) {
	o.only("keep")
	keep := o.truth("keep", true)
	if o.err != nil {
		return nil, o.err
	}
	id, err := s.RotateKeys(keep)
	return map[string]any{"kid": id, "keys": showKeys(s.Keys())}, err
}

func (s *Simulator) takeShowFaults(*http.Request, *object) (any, error) {
	return showFaults(s.Faults()), nil
}

func (s *Simulator) takeFaults(_ *http.Request, o *object) (any, error) {
	o.only("rules", "delay", "retry_after", "hang")
	faults := Faults{Delay: o.duration("delay"), RetryAfter: o.duration("retry_after"), Hang: o.duration("hang"), Rules: map[Fault]Rule{}}
	var rules map[string]json.RawMessage
	o.read("rules", `an object such as {"webhook_drop":"5%"}`, &rules)
	for name, raw := range rules {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			o.wrong("rules."+name, `a text such as "5%"`, raw)
			continue
		}
		rule, err := ParseRule(text)
		if err != nil {
			return nil, fmt.Errorf("%w: rules.%.40s: %w, got %.40q", ErrInvalid, name, err, text)
		}
		faults.Rules[Fault(name)] = rule
	}
	if o.err != nil {
		return nil, o.err
	}
	if err := s.SetFaults(faults); err != nil {
		return nil, err
	}
	return showFaults(s.Faults()), nil
}

// takeState waits, where it is asked to, until no webhook is pending.
func (s *Simulator) takeState(r *http.Request, _ *object) (any, error) {
	if text := r.URL.Query().Get("wait"); text != "" {
		within, err := time.ParseDuration(text)
		if err != nil || within < 0 || within > longestWait {
			return nil, fmt.Errorf("%w: wait: want a time up to %s, got %.40q", ErrInvalid, longestWait, text)
		}
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		_ = s.Wait(ctx) // the state tells how many are pending
	}
	return s.state(), nil
}

func (s *Simulator) takeDeliveries(*http.Request, *object) (any, error) {
	deliveries := s.Deliveries()
	shown := make([]shownDelivery, len(deliveries))
	for i, d := range deliveries {
		shown[i] = showDelivery(d)
	}
	return map[string]any{"deliveries": shown}, nil
}

func (s *Simulator) takeResend(r *http.Request, o *object) (any, error) {
	if o.only(); o.err != nil {
		return nil, o.err
	}
	return struct{}{}, s.Resend(mux.Vars(r)["event_id"])
}
