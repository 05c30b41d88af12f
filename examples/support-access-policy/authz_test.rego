package authz_test

import data.authz

catalog := {
	"permissions": {"customers:read": {}, "customers:delete": {}, "support:read": {}, "support:lead": {}, "support:break_glass": {}},
	"deleted": {"tickets:read": {}},
}

window := {"from": "2026-03-04T08:00:00Z", "until": "2026-03-04T16:00:00Z"}

# A question of support about a customer, in the window of a Wednesday.
question := {
	"subject": {"type": "user", "id": "usr_1", "properties": {"organization_id": "org_support", "permissions": ["support:read", "tickets:read"]}},
	"action": {"name": "customers:read"},
	"resource": {"type": "customer", "id": "cus_7", "properties": {
		"organization_id": "org_1",
		"support_window": window,
		"incident": {"opened_at": "2026-03-04T20:00:00Z"},
	}},
	"context": {"time": "2026-03-04T10:30:00.000000000Z", "ticket": "TICKET-17"},
}

with_context(changes) := object.union(question, {"context": changes})

with_window(changes) := object.union(question, {"resource": {"properties": {"support_window": changes}}})

by(organization, permissions) := object.union(question, {"subject": {"properties": {"organization_id": organization, "permissions": permissions}}})

deny(reasons) := {"decision": false, "reasons": reasons}

allow_in_window := {"decision": true, "reasons": {"support_window"}}

test_the_customers_own_people if {
	authz.decision == {"decision": true, "reasons": {"granted"}} with input as by("org_1", ["customers:read"])
		with data.scalekit as catalog
}

test_people_of_another_customer if {
	authz.decision == deny({"not_support"}) with input as by("org_2", ["customers:read", "support:read", "support:lead"])
		with data.scalekit as catalog
}

test_support_in_the_window if {
	authz.decision == allow_in_window with input as question with data.scalekit as catalog
}

test_either_permission_of_support_suffices[note] if {
	some note, example in {
		"read": {"permissions": ["support:read"], "answer": allow_in_window},
		"lead": {"permissions": ["support:lead"], "answer": allow_in_window},
		"neither": {"permissions": ["customers:read"], "answer": deny({"not_support"})},
		"no list": {"permissions": "support:read", "answer": deny({"not_support"})},
	}
	authz.decision == example.answer with input as by("org_support", example.permissions)
		with data.scalekit as catalog
}

test_a_permission_of_support_that_was_deleted if {
	authz.decision == deny({"not_support"}) with input as question
		with data.scalekit as {"permissions": {"customers:read": {}}, "deleted": {"support:read": {}}}
}

test_support_does_what_it_is_for_alone[note] if {
	some note, name in {"another": "customers:delete", "a deleted one": "tickets:read", "no name": null}
	authz.decision == deny({"not_support"}) with input as object.union(question, {"action": {"name": name}})
		with data.scalekit as catalog
}

test_the_window_closes[note] if {
	some note, changes in {
		"earlier": {"until": "2026-03-04T10:30:00Z"},
		"not yet open": {"from": "2026-03-04T10:30:00.000000001Z"},
		"no end": {"until": null},
		"no time": {"until": "tomorrow"},
	}
	authz.decision == deny({"window_closed"}) with input as with_window(changes)
		with data.scalekit as catalog
}

test_the_office_closes[note] if {
	some note, example in {
		"opening": {"time": "2026-03-04T07:00:00Z", "from": "2026-03-04T00:00:00Z", "answer": allow_in_window},
		"before": {"time": "2026-03-04T06:59:59.999999999Z", "from": "2026-03-04T00:00:00Z", "answer": deny({"out_of_hours"})},
		"after": {"time": "2026-03-04T17:00:00Z", "from": "2026-03-04T00:00:00Z", "answer": deny({"out_of_hours"})},
		"a Saturday": {"time": "2026-02-28T10:30:00Z", "from": "2026-02-28T00:00:00Z", "answer": deny({"out_of_hours"})},
		"farther east": {"time": "2026-03-04T12:30:00+02:00", "from": "2026-03-04T00:00:00Z", "answer": allow_in_window},
	}
	asked := object.union(with_context({"time": example.time}), {"resource": {"properties": {"support_window": {
		"from": example.from,
		"until": "2026-03-05T00:00:00Z",
	}}}})
	authz.decision == example.answer with input as asked
		with data.scalekit as catalog
}

test_no_time_opens_nothing[note] if {
	some note, time in {"null": null, "a text": "now", "a number": 1772620200, "no zone": "2026-03-04T10:30:00"}
	authz.decision == deny({"window_closed", "out_of_hours"}) with input as with_context({"time": time})
		with data.scalekit as catalog
}

test_a_ticket_is_named[note] if {
	some note, ticket in {"null": null, "a number": 17, "empty": "", "something": "because", "more": "TICKET-17; and another"}
	authz.decision == deny({"ticket_missing"}) with input as with_context({"ticket": ticket})
		with data.scalekit as catalog
}

breaks_glass(changes) := object.union(
	by("org_support", ["support:read", "support:break_glass"]),
	{"context": object.union({"time": "2026-03-04T23:59:59.999999999Z", "break_glass": true}, changes)},
)

test_breaking_the_glass if {
	authz.decision == {"decision": true, "reasons": {"break_glass"}, "report": "security"} with input as breaks_glass({})
		with data.scalekit as catalog
}

test_glass_stays_whole[note] if {
	some note, changes in {
		"the incident is old": {"time": "2026-03-05T00:00:00Z"},
		"the incident is to come": {"time": "2026-03-04T19:59:59Z"},
		"not asked for": {"break_glass": false},
		"asked for in words": {"break_glass": "true"},
		"no time": {"time": null},
		"no ticket": {"ticket": null},
	}
	answer := authz.decision with input as breaks_glass(changes) with data.scalekit as catalog
	answer.decision == false
	"window_closed" in answer.reasons
}

test_glass_is_broken_by_a_permission_alone if {
	asked := object.union(breaks_glass({}), {"subject": {"properties": {"permissions": ["support:lead"]}}})
	authz.decision == deny({"window_closed", "out_of_hours"}) with input as asked with data.scalekit as catalog
}

test_what_is_no_question_is_denied[note] if {
	some note, asked in {"empty": {}, "null": null, "text": "allow", "array": [question]}
	authz.decision == deny({"not_support"}) with input as asked with data.scalekit as catalog
}
