package webhook

import (
	"fmt"
	"strings"

	"github.com/postern-authz/postern/sidecar/permission"
	"github.com/postern-authz/postern/sidecar/strictjson"
)

const (
	// MaxBody is the largest delivery, in bytes.
	MaxBody = 256 << 10
	// maxDepth is how deep a body's JSON may nest. Scalekit's own events nest twice.
	maxDepth = 32

	documentedSpecVersion = "1"
	documentedIDLength    = 32
	documentedNameLength  = 100
)

// delivery is what a verified body says. Kind is zero for an event that isn't a
// permission's: only its type and environment are known then.
type delivery struct {
	webhookID string // the header's, once it is verified; set by the receiver
	eventType string
	event     permission.Event
	// warnings name what isn't as documented and was taken all the same: a refused event is
	// retried, and then lost for ever.
	warnings []string
}

var kinds = map[string]permission.Kind{
	"permission.created": permission.Created,
	"permission.updated": permission.Updated,
	"permission.deleted": permission.Deleted,
}

// decode reads a body. Its error names the field, what was expected and what came; it
// never quotes the body.
func decode(body []byte) (delivery, error) {
	if err := strictjson.Check(body, maxDepth); err != nil {
		return delivery{}, err
	}
	top, err := strictjson.Parse(body)
	if err != nil {
		return delivery{}, err
	}
	var d delivery
	if d.eventType, err = top.Text("type"); err != nil {
		return delivery{}, err
	}
	if d.event.EnvironmentID, err = top.Text("environment_id"); err != nil {
		return delivery{}, err
	}
	if d.event.Kind = kinds[d.eventType]; d.event.Kind == 0 {
		return d, nil
	}
	if err := d.readEvent(top); err != nil {
		return delivery{}, err
	}
	return d, nil
}

func (d *delivery) readEvent(top strictjson.Object) (err error) {
	e := &d.event
	if e.ID, err = top.Text("id"); err != nil {
		return err
	}
	occurredAt, err := top.Text("occurred_at")
	if err != nil {
		return err
	}
	if e.OccurredAt, err = permission.ParseInstant(occurredAt); err != nil {
		return fmt.Errorf("occurred_at: %w", err)
	}
	data, err := top.Object("data")
	if err != nil {
		return err
	}
	if e.PermissionID, err = data.Text("data.id"); err != nil {
		return err
	}
	if e.Name, err = data.Text("data.name"); err != nil {
		return err
	}
	if e.Description, err = data.OptionalText("data.description"); err != nil {
		return err
	}
	if err := permission.CheckText("id", e.ID, 1, permission.MaxID); err != nil {
		return err
	}
	// The state, not the event: a deletion's description isn't kept, so one of any length
	// passes. A refused deletion would leave the permission alive for good.
	if err := e.State().Check(); err != nil {
		return fmt.Errorf("data.%w", err)
	}
	d.warn(top)
	return nil
}

func (d *delivery) warn(top strictjson.Object) {
	if version, err := top.Text("spec_version"); err != nil || version != documentedSpecVersion {
		d.warnings = append(d.warnings, "spec_version isn't 1")
	}
	if len(d.event.ID) > documentedIDLength || len(d.event.PermissionID) > documentedIDLength {
		d.warnings = append(d.warnings, fmt.Sprintf("an id is longer than %d bytes", documentedIDLength))
	}
	if len(d.event.Name) > documentedNameLength || strings.ContainsFunc(d.event.Name, undocumented) {
		d.warnings = append(d.warnings, fmt.Sprintf("data.name isn't of up to %d characters of [a-zA-Z0-9_:]", documentedNameLength))
	}
}

func undocumented(r rune) bool {
	letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
	return !letter && (r < '0' || r > '9') && r != '_' && r != ':'
}
