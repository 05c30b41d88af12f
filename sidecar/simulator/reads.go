package simulator

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/postern-authz/postern/sidecar/listener"
)

// The JSON of the management API.

type wirePermission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	CreateTime  string `json:"create_time"`
	UpdateTime  string `json:"update_time"`
	Own         bool   `json:"is_scalekit_permission"`
}

func (p Permission) wire() wirePermission {
	return wirePermission{p.ID, p.Name, p.Description, wireTime(p.CreatedAt), wireTime(p.UpdatedAt), p.own}
}

func wirePermissions(permissions []Permission) []wirePermission {
	out := make([]wirePermission, len(permissions))
	for i, p := range permissions {
		out[i] = p.wire()
	}
	return out
}

type wireListing struct {
	Permissions   []wirePermission `json:"permissions"`
	NextPageToken string           `json:"next_page_token"`
	PrevPageToken string           `json:"prev_page_token"`
	TotalSize     int              `json:"total_size"`
}

type wireRole struct {
	ID              string               `json:"id"`
	Name            string               `json:"name"`
	DisplayName     string               `json:"display_name"`
	Description     string               `json:"description"`
	DefaultCreator  bool                 `json:"default_creator"`
	DefaultMember   bool                 `json:"default_member"`
	Extends         string               `json:"extends,omitempty"`
	Permissions     []wireRolePermission `json:"permissions"`
	DependentRoles  int                  `json:"dependent_roles_count"`
	IsOrganizations bool                 `json:"is_org_role"`
}

type wireRolePermission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	CreateTime  string `json:"create_time"`
	UpdateTime  string `json:"update_time"`
	RoleName    string `json:"role_name"` // of the role that it comes from
}

// listPermissions is GET /api/v1/permissions.
func (s *Simulator) listPermissions(parameters url.Values) (any, *apiError) {
	q, refused := parseQuery(parameters)
	if refused != nil {
		return nil, refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.fires(EmptyList) {
		return wireListing{Permissions: []wirePermission{}}, nil
	}
	if live := s.world.live; parameters.Get("page_token") == "" && len(live) > 0 && s.faults.fires(HiddenPermission) {
		q.token.hidden = live[s.faults.pick(HiddenPermission, len(live))].position
	}
	p := s.world.list(q)
	if s.faults.fires(LostPage) {
		p = s.skip(q, p)
	}
	if p.next == "" && s.faults.fires(EndlessPaging) {
		p.next = pageToken{hidden: q.token.hidden, lap: q.token.lap + 1}.String()
	}
	return wireListing{wirePermissions(p.entries), p.next, p.prev, p.total}, nil
}

// skip returns the page behind p in its place, or p without entries if it is the last one.
func (s *Simulator) skip(q query, p page) page {
	if p.next == "" {
		p.entries = nil
		return p
	}
	token, err := parsePageToken(p.next)
	if err != nil {
		return p // it is our own
	}
	q.token = token
	return s.world.list(q)
}

func parseQuery(parameters url.Values) (query, *apiError) {
	q := query{size: defaultPageSize}
	if text := parameters.Get("page_size"); text != "" {
		size, err := strconv.Atoi(text)
		if err != nil || size < 1 || size > mostPageSize {
			return q, invalidArgument("page_size: want a whole number from 1 to %d, got %.40q", mostPageSize, text)
		}
		q.size = size
	}
	switch kind := parameters.Get("type"); kind {
	case "":
	case "ENVIRONMENT":
		q.environmentOnly = true
	default:
		return q, invalidArgument("type: want ENVIRONMENT or none, got %.40q", kind)
	}
	var err error
	if q.token, err = parsePageToken(parameters.Get("page_token")); err != nil {
		return q, invalidArgument("%v", err)
	}
	return q, nil
}

// listRoles is GET /api/v1/roles. Without include=permissions:all the roles come bare.
func (s *Simulator) listRoles(parameters url.Values) (any, *apiError) {
	include := parameters.Get("include")
	if include != "" && include != "permissions:all" {
		return nil, invalidArgument("include: want permissions:all or none, got %.40q", include)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	roles := make([]wireRole, len(s.world.roles))
	for i, r := range s.world.roles {
		roles[i] = wireRole{
			ID: r.ID, Name: r.Name, DisplayName: r.DisplayName, Description: r.Description, Extends: r.Extends,
			DependentRoles: s.world.dependents(r.Name), Permissions: []wireRolePermission{},
		}
		if include == "" {
			continue
		}
		for _, h := range s.world.effective(r) {
			p := h.permission
			roles[i].Permissions = append(roles[i].Permissions, wireRolePermission{p.ID, p.Name, p.Description, wireTime(p.CreatedAt), wireTime(p.UpdatedAt), h.from})
		}
	}
	return map[string]any{"roles": roles}, nil
}

// serveKeys is GET /keys (RFC 7517).
func (s *Simulator) serveKeys(w http.ResponseWriter, _ *http.Request) {
	set, err := s.keys.published()
	if err != nil {
		s.config.Logger.Error("no keys", "error", err)
		writeAPIError(w, internalError())
		return
	}
	listener.WriteJSON(w, http.StatusOK, set)
}

// serveDiscovery is GET /.well-known/openid-configuration (OpenID Connect Discovery 1.0),
// with what the simulator has: nobody can log in here.
func (s *Simulator) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	listener.WriteJSON(w, http.StatusOK, map[string]any{
		"issuer":                                s.config.URL,
		"jwks_uri":                              s.config.URL + "/keys",
		"token_endpoint":                        s.config.URL + "/oauth/token",
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"subject_types_supported":               []string{"public"},
	})
}

// unlessUnavailable answers 503 while the fault says so.
func (s *Simulator) unlessUnavailable(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.faults.fires(KeysUnavailable) {
			writeAPIError(w, unavailable())
			return
		}
		serve(w, r)
	})
}
