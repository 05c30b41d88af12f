package simulator

// The JSON that the control API shows.

type shownRole struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name"`
	Description string   `json:"description"`
	Extends     string   `json:"extends"`
	Permissions []string `json:"permissions"`
}

func showRole(r Role) shownRole {
	return shownRole(r)
}

type shownKey struct {
	ID        string `json:"kid"`
	Published bool   `json:"published"`
	Current   bool   `json:"current"`
}

func showKeys(keys []Key) []shownKey {
	shown := make([]shownKey, len(keys))
	for i, k := range keys {
		shown[i] = shownKey(k)
	}
	return shown
}

type shownFaults struct {
	Rules      map[Fault]string `json:"rules"`
	Delay      string           `json:"delay"`
	RetryAfter string           `json:"retry_after"`
	Hang       string           `json:"hang"`
}

func showFaults(f Faults) shownFaults {
	shown := shownFaults{map[Fault]string{}, f.Delay.String(), f.RetryAfter.String(), f.Hang.String()}
	for name, rule := range f.Rules {
		if rule != (Rule{}) {
			shown.Rules[name] = rule.String()
		}
	}
	return shown
}

type shownCounts struct {
	Pending        uint64 `json:"pending"`
	Delivered      uint64 `json:"delivered"`
	Dropped        uint64 `json:"dropped"`
	Lost           uint64 `json:"lost"`
	Refused        uint64 `json:"refused"`
	ForgeriesTaken uint64 `json:"forgeries_taken"`
	Attempts       uint64 `json:"attempts"`
}

type shownDelivery struct {
	Kind       Kind   `json:"kind"`
	State      State  `json:"state"`
	EventID    string `json:"event_id"`
	WebhookID  string `json:"webhook_id"`
	Type       string `json:"type"`
	SubjectID  string `json:"subject_id"`
	Name       string `json:"name"`
	OccurredAt string `json:"occurred_at"`
	Attempts   int    `json:"attempts"`
	Status     int    `json:"status"`
	Error      string `json:"error"`
}

func showDelivery(d Delivery) shownDelivery {
	return shownDelivery{
		d.Kind, d.State, d.EventID, d.WebhookID, d.Type, d.SubjectID, d.Name, wireTime(d.OccurredAt),
		d.Attempts, d.Status, d.Error,
	}
}

// shownState is the answer of GET /simulator/state. Digest and count are of one moment.
type shownState struct {
	URL           string           `json:"url"`
	EnvironmentID string           `json:"environment_id"`
	Seed          uint64           `json:"seed"`
	Digest        string           `json:"digest"`
	Count         int              `json:"count"`
	Permissions   []wirePermission `json:"permissions"`
	Roles         []shownRole      `json:"roles"`
	Keys          []shownKey       `json:"keys"`
	Webhooks      shownCounts      `json:"webhooks"`
	Faults        shownFaults      `json:"faults"`
}

func (s *Simulator) state() shownState {
	roles := []shownRole{}
	for _, r := range s.Roles() {
		roles = append(roles, showRole(r))
	}
	s.mu.Lock()
	live, digest := copies(s.world.live), s.world.digest
	s.mu.Unlock()
	return shownState{
		URL: s.config.URL, EnvironmentID: s.config.EnvironmentID, Seed: s.config.Seed,
		Digest: digest.String(), Count: len(live), Permissions: wirePermissions(live), Roles: roles,
		Keys: showKeys(s.Keys()), Webhooks: shownCounts(s.Counts()), Faults: showFaults(s.Faults()),
	}
}
