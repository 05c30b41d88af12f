package permissiontest

import (
	"fmt"
	"sort"

	"pgregory.net/rapid"

	"github.com/postern-authz/postern/sidecar/permission"
)

// Claim is what a listing says of an id. The instants are as short as those of [Events].
type Claim struct {
	PermissionID, Name, Description string
	UpdatedAt                       permission.Instant
	Mark                            string // "", "absent", "seen" or "confirmed"
	At                              permission.Instant
}

// State returns the state that the claim alone leads to.
func (c Claim) State() permission.State {
	s := permission.State{
		ID: c.PermissionID, Name: c.Name, Description: c.Description,
		Kind: permission.Updated, OccurredAt: c.UpdatedAt, Source: permission.SourceReconcile,
		Content: permission.ContentDigest(c.PermissionID, c.Name, c.Description),
	}
	switch c.Mark {
	case "absent":
		s.AbsentAt = c.At
	case "seen":
		s.SeenAt = c.At
	case "confirmed":
		s.ConfirmedAt = c.At
	}
	return s
}

// Claims draws claims about the permissions of [Events].
func Claims() *rapid.Generator[[]Claim] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Claim {
		e := drawEvent(t)
		return Claim{
			PermissionID: e.PermissionID, Name: e.Name, Description: e.Description, UpdatedAt: e.OccurredAt,
			Mark: rapid.SampledFrom([]string{"", "absent", "seen", "confirmed"}).Draw(t, "mark"),
			At:   drawEvent(t).OccurredAt,
		}
	}), 0, 10)
}

// Judgement is what the oracle says of an id.
type Judgement struct {
	Gone        bool   // nobody shows it any more, or an event deleted it
	Name        string // that it bears
	Description string
	At          int64 // of what the state rests on
	EventID     string
	rank        []int64 // of an id among those that bear a name
	key         string
}

// Judge judges each id by events and claims, the slow and obvious way. It doesn't know what
// becomes of an event that comes after a deletion of its id which is overruled later.
func Judge(history []permission.Event, claims []Claim) map[string]Judgement {
	judged := map[string]Judgement{}
	for _, id := range idsOf(history, claims) {
		judged[id] = judge(id, history, claims)
	}
	return judged
}

// NameBearers returns the id that decides for each name.
func NameBearers(judged map[string]Judgement) map[string]string {
	bearers := map[string]string{}
	for id, j := range judged {
		holder, taken := bearers[j.Name]
		if !taken || less(judged[holder], j) {
			bearers[j.Name] = id
		}
	}
	return bearers
}

func less(a, b Judgement) bool {
	for i := range a.rank {
		if a.rank[i] != b.rank[i] {
			return a.rank[i] < b.rank[i]
		}
	}
	return a.key < b.key
}

// said is an event or a claim, as far as it says what an id is.
type said struct {
	at      int64
	rank    int64
	eventID string
	content [32]byte
	name    string
	text    string
}

func judge(id string, history []permission.Event, claims []Claim) Judgement {
	latest := map[string]int64{}
	for _, c := range claims {
		if c.PermissionID == id {
			latest[c.Mark] = max(latest[c.Mark], int64(c.At))
		}
	}
	absent, seen, confirmed := latest["absent"], latest["seen"], latest["confirmed"]
	live, deletions := candidates(id, confirmed, history, claims)
	if len(deletions) > 0 {
		last := lastSaid(deletions)
		return Judgement{Gone: true, Name: last.name, At: last.at, EventID: last.eventID, rank: rankOf(last, 1, max(last.at, seen, confirmed)), key: keyText(last)}
	}
	last := lastSaid(live)
	shown := max(last.at, seen, confirmed)
	j := Judgement{Name: last.name, Description: last.text, At: last.at, EventID: last.eventID, key: keyText(last)}
	if j.Gone = absent > 0 && absent >= shown; j.Gone {
		j.rank = rankOf(last, 0, shown)
		return j
	}
	j.rank = rankOf(last, 1, shown)
	return j
}

// candidates are what a confirmation of that instant leaves of what was said of an id.
func candidates(id string, confirmed int64, history []permission.Event, claims []Claim) (live, deletions []said) {
	for _, e := range history {
		switch {
		case e.PermissionID != id || int64(e.OccurredAt) <= confirmed:
		case e.Kind == permission.Deleted:
			deletions = append(deletions, said{int64(e.OccurredAt), 2, e.ID, contentOf(e), e.Name, ""})
		case e.Kind == permission.Updated:
			live = append(live, said{int64(e.OccurredAt), 1, e.ID, contentOf(e), e.Name, e.Description})
		default:
			live = append(live, said{int64(e.OccurredAt), 0, e.ID, contentOf(e), e.Name, e.Description})
		}
	}
	for _, c := range claims {
		base := c.Mark == "confirmed" && int64(c.At) == confirmed
		if c.PermissionID == id && (base || int64(c.UpdatedAt) > confirmed) {
			content := contentOf(permission.Event{PermissionID: id, Name: c.Name, Description: c.Description})
			live = append(live, said{int64(c.UpdatedAt), 1, "", content, c.Name, c.Description})
		}
	}
	return live, deletions
}

func rankOf(s said, class, shown int64) []int64 { return []int64{class, shown, s.at, s.rank} }

func keyText(s said) string { return fmt.Sprintf("%s\x00%x", s.eventID, s.content) }

func lastSaid(all []said) said {
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.at != b.at {
			return a.at < b.at
		}
		if a.rank != b.rank {
			return a.rank < b.rank
		}
		return keyText(a) < keyText(b)
	})
	return all[len(all)-1]
}

func idsOf(history []permission.Event, claims []Claim) []string {
	ids := map[string]bool{}
	for _, e := range history {
		ids[e.PermissionID] = true
	}
	for _, c := range claims {
		ids[c.PermissionID] = true
	}
	var all []string
	for id := range ids {
		all = append(all, id)
	}
	sort.Strings(all)
	return all
}
