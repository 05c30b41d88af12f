# METADATA
# title: Support access
# description: |
#   How a vendor's support staff gets at customers' data: within a window that the customer
#   opened, in office hours and for a ticket; or, while an incident is young, by breaking the
#   glass, which the answer tells the app to report. Customers' own people need neither.
#
#   Own reasons of an allow: support_window, break_glass. Of a deny: not_support, window_closed,
#   out_of_hours, ticket_missing.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package authz

import data.lib.organization
import data.lib.permissions
import data.lib.subject
import data.lib.times

# METADATA
# title: Decision
# description: |
#   A boolean, and the reasons for it. An allow by breaking the glass has the member report,
#   which Postern passes on in the answer's context.
# scope: document
# entrypoint: true
decision := {"decision": true, "reasons": {"granted"}} if {
	permissions.held
	organization.matches
} else := {"decision": true, "reasons": {"support_window"}} if {
	_supports
	_window_open
	_in_office
	_ticket_named
} else := {"decision": true, "reasons": {"break_glass"}, "report": "security"} if {
	_supports
	_glass_broken
} else := {"decision": false, "reasons": {"not_support"}} if {
	not _supports
} else := {"decision": false, "reasons": _objections}

_objections contains "window_closed" if not _window_open

_objections contains "out_of_hours" if not _in_office

_objections contains "ticket_missing" if not _ticket_named

# One of the permissions of support, for what support does.
_supports if {
	subject.organization == data.support.organization_id
	permissions.holds_any(["support:read", "support:lead"])
	permissions.live(input.action.name)
	input.action.name in data.support.actions
}

# The customer opened it, and closes it by writing another end.
_window_open if {
	window := input.resource.properties.support_window
	times.between(window.from, window.until)
}

_in_office if {
	times.on_weekdays(data.support.days, data.support.offset)
	times.within_hours(data.support.opens, data.support.closes, data.support.offset)
}

_ticket_named if {
	is_string(input.context.ticket)
	regex.match(`^TICKET-\d{1,9}$`, input.context.ticket)
}

_glass_broken if {
	permissions.holds("support:break_glass")
	input.context.break_glass == true
	_ticket_named
	opened := input.resource.properties.incident.opened_at
	times.not_before(opened)
	times.now < times.instant(opened) + (((data.support.break_glass_minutes * 60) * 1000) * 1000000)
}
