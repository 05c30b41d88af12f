package lib.permissions_test

import data.authz
import data.lib.organization
import data.lib.permissions

scalekit := {
	"permissions": {"data:manage": {"id": "perm_1"}, "data:read": {"id": "perm_2"}, "data:share": {"id": "perm_3"}, "7": {"id": "perm_7"}},
	"deleted": {"data:export": {"id": "perm_4"}, "data:share": {"id": "perm_0"}},
	"sync": {"complete": true},
}

lists(names) := {"subject": {"id": "usr_1", "properties": {"permissions": names}}, "action": {"name": "data:manage"}}

both := lists(["data:manage", "data:read", "data:export", "data:unknown"])

test_held_is_live_and_listed if {
	permissions.held with input as both with data.scalekit as scalekit
	permissions.holds("data:read") with input as both with data.scalekit as scalekit
}

test_listed_is_not_held_unless_live[name] if {
	some name in ["data:export", "data:unknown"]
	permissions.granted(name) with input as both with data.scalekit as scalekit
	not permissions.holds(name) with input as both with data.scalekit as scalekit
}

test_live_is_not_held_unless_listed if {
	permissions.live("data:share") with input as both with data.scalekit as scalekit
	not permissions.granted("data:share") with input as both with data.scalekit as scalekit
	not permissions.holds("data:share") with input as both with data.scalekit as scalekit
}

test_not_held_without_a_catalog if {
	not permissions.held with input as both with data.scalekit as {}
	not permissions.live("data:manage") with input as both with data.scalekit as {}
	not permissions.deleted("data:export") with input as both with data.scalekit as {}
}

test_live_wins_over_a_deletion if {
	permissions.deleted("data:export") with data.scalekit as scalekit
	not permissions.deleted("data:share") with data.scalekit as scalekit
	not permissions.deleted("data:unknown") with data.scalekit as scalekit
}

test_held_by_the_token_of_the_subject_alone[note] if {
	some note, example in {
		"own": {"token": {"valid": true, "claims": {"sub": "usr_1", "permissions": ["data:manage"]}}, "held": true},
		"of another": {"token": {"valid": true, "claims": {"sub": "usr_2", "permissions": ["data:manage"]}}, "held": false},
		"of nobody": {"token": {"valid": true, "claims": {"permissions": ["data:manage"]}}, "held": false},
		"without it": {"token": {"valid": true, "claims": {"sub": "usr_1", "permissions": ["data:read"]}}, "held": false},
		"bad": {"token": {"valid": false, "error": "token_expired", "claims": {"sub": "usr_1", "permissions": ["data:manage"]}}, "held": false},
		"null": {"token": null, "held": false},
	}
	held := is_held with input as object.union(both, {"token": example.token})
		with data.scalekit as scalekit
	held == example.held
}

is_held if permissions.held

else := false

test_any_of_several[note] if {
	some note, example in {
		"the first": {"names": ["data:manage", "data:share"], "held": true},
		"the last": {"names": ["data:share", "data:manage"], "held": true},
		"a set": {"names": {"data:share", "data:manage"}, "held": true},
		"none live": {"names": ["data:export", "data:unknown"], "held": false},
		"none listed": {"names": ["data:share"], "held": false},
		"no names": {"names": [], "held": false},
		"an empty set": {"names": set(), "held": false},
		"among other things": {"names": [null, 7, {}, ["data:manage"], "data:manage"], "held": true},
		"nested": {"names": [["data:manage"]], "held": false},
		"a name": {"names": "data:manage", "held": false},
		"an object": {"names": {"data:manage": "data:manage"}, "held": false},
		"null": {"names": null, "held": false},
	}
	held := is_any_held(example.names) with input as both with data.scalekit as scalekit
	held == example.held
}

is_any_held(names) if permissions.holds_any(names)

else := false

test_all_of_several[note] if {
	some note, example in {
		"both": {"names": ["data:manage", "data:read"], "held": true},
		"a set": {"names": {"data:manage", "data:read"}, "held": true},
		"one": {"names": ["data:manage"], "held": true},
		"one not listed": {"names": ["data:manage", "data:share"], "held": false},
		"one deleted": {"names": ["data:manage", "data:export"], "held": false},
		"one unknown": {"names": ["data:unknown", "data:manage"], "held": false},
		"one no name": {"names": ["data:manage", 7], "held": false},
		"one null": {"names": ["data:manage", null], "held": false},
		"no names": {"names": [], "held": false},
		"an empty set": {"names": set(), "held": false},
		"nested": {"names": [["data:manage"]], "held": false},
		"a name": {"names": "data:manage", "held": false},
		"an object": {"names": {"data:manage": "data:manage"}, "held": false},
		"null": {"names": null, "held": false},
	}
	held := are_all_held(example.names) with input as both with data.scalekit as scalekit
	held == example.held
}

are_all_held(names) if permissions.holds_all(names)

else := false

# Each is live, deleted and listed under its own text: it is the type that decides.
test_what_is_no_name_is_not_held[note] if {
	some note, name in {"number": 7, "null": null, "true": true, "false": false, "array": ["7"], "object": {"name": "7"}}
	asked := object.union(lists([name]), {"action": {"name": name}})
	records := {"7": {}, "null": {}, "true": {}, "false": {}}
	not permissions.held with input as asked with data.scalekit.permissions as records
	not permissions.holds(name) with input as asked with data.scalekit.permissions as records
	not permissions.live(name) with input as asked with data.scalekit.permissions as records
	not permissions.granted(name) with input as asked with data.scalekit.permissions as records
	not permissions.deleted(name) with input as asked with data.scalekit.deleted as records
}

test_permissions_that_are_no_array_hold_nothing[note] if {
	some note, listed in {
		"the name": "data:manage",
		"object by key": {"data:manage": true},
		"object by value": {"0": "data:manage"},
		"null": null,
		"number": 1,
		"nested": [["data:manage"]],
		"objects": [{"name": "data:manage"}],
	}
	not permissions.held with input as lists(listed) with data.scalekit as scalekit
	not permissions.granted("data:manage") with input as lists(listed) with data.scalekit as scalekit
}

test_input_that_is_no_question_holds_nothing[note] if {
	some note, asked in {"empty": {}, "null": null, "string": "allow", "array": [both], "number": 1}
	not permissions.held with input as asked with data.scalekit as scalekit
	not permissions.holds("data:manage") with input as asked with data.scalekit as scalekit
}

# One rule for one thing: the built-in policy allows what is held where organizations agree.
test_the_builtin_policy_judges_alike[note] if {
	some name in ["data:manage", "data:export", 7]
	some listed in [["data:manage"], ["data:export", 7], null]
	some of in ["org_1", "org_2"]
	some token in [
		{}, {"token": null}, {"token": {"valid": true, "claims": {"sub": "usr_1", "oid": "org_1", "permissions": listed}}},
		{"token": {"valid": true, "claims": {"sub": "usr_2", "oid": "org_1", "permissions": listed}}},
	]
	note := sprintf("%v %v %v %v", [name, listed, of, token])
	asked := object.union(token, {
		"subject": {"id": "usr_1", "properties": {"permissions": listed, "organization_id": "org_1"}},
		"action": {"name": name},
		"resource": {"properties": {"organization_id": of}},
	})
	held := is_held_and_agreed with input as asked with data.scalekit as scalekit
	answer := authz.decision with input as asked with data.scalekit as scalekit
	held == answer.decision
}

is_held_and_agreed if {
	permissions.held
	organization.agrees
}

else := false
