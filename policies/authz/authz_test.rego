package authz_test

import data.authz

live := {"data:manage": {
	"id": "perm_1234567890",
	"name": "data:manage",
	"description": "Manage data",
	"created_at": "2024-01-15T10:30:00.123456789Z",
	"updated_at": "2024-01-15T10:35:00.123456789Z",
	"event_id": "evt_2345678901",
	"source": "event",
}}

deleted := {"data:manage": {
	"id": "perm_1234567890",
	"deleted_at": "2024-01-15T10:40:00.123456789Z",
	"event_id": "evt_3456789012",
}}

complete := {"complete": true}

incomplete := {"complete": false}

# A catalog, whole, as each test sees it.
catalog(permissions, deletions, sync) := {"permissions": permissions, "deleted": deletions, "sync": sync}

live_catalog := catalog(live, {}, complete)

defer := {"settings": {"on_incomplete": "defer"}}

question(permissions) := {
	"subject": {"type": "user", "id": "usr_1", "properties": {"permissions": permissions}},
	"action": {"name": "data:manage"},
	"resource": {"type": "dataset", "id": "ds_7"},
	"context": {},
}

granted_question := question(["data:read", "data:manage"])

# The granted question with one of its parts replaced.
replaced(key, value) := object.union(object.remove(granted_question, [key]), {key: value})

# What is asked with subject and resource of the given properties, permissions aside.
between(subject, resource) := {
	"subject": {"properties": object.union({"permissions": ["data:manage"]}, subject)},
	"action": {"name": "data:manage"},
	"resource": {"type": "dataset", "id": "ds_7", "properties": resource},
}

allow(reasons) := {"decision": true, "reasons": reasons}

deny(reasons) := {"decision": false, "reasons": reasons}

# Live

test_live_and_granted_is_allowed if {
	authz.decision == allow({"granted"}) with input as granted_question
		with data.scalekit as live_catalog
}

test_live_is_judged_alike_while_the_catalog_is_incomplete if {
	authz.decision == allow({"granted"}) with input as granted_question
		with data.scalekit as catalog(live, {}, incomplete)
}

test_live_needs_nothing_but_its_record if {
	authz.decision == allow({"granted"}) with input as granted_question
		with data.scalekit as {"permissions": live}
}

test_live_under_defer_is_not_called_deferred if {
	authz.decision == allow({"granted"}) with input as granted_question
		with data.scalekit as catalog(live, {}, incomplete)
		with data.postern as defer
}

test_live_wins_over_a_deletion if {
	authz.decision == allow({"granted"}) with input as granted_question
		with data.scalekit as catalog(live, deleted, complete)
}

test_live_but_not_granted_is_denied if {
	authz.decision == deny({"not_granted"}) with input as question(["data:read"])
		with data.scalekit as live_catalog
}

test_no_permission_at_all_is_denied if {
	authz.decision == deny({"not_granted"}) with input as question([])
		with data.scalekit as live_catalog
}

test_grant_is_compared_whole_and_exactly[granted] if {
	some granted in ["data:manag", "data:manage ", "Data:Manage", "data:*", "*", "", "data:manage:all"]
	authz.decision == deny({"not_granted"}) with input as question([granted])
		with data.scalekit as live_catalog
}

test_other_live_permissions_do_not_count if {
	authz.decision == deny({"permission_unknown"}) with input as granted_question
		with data.scalekit as catalog({"data:read": live["data:manage"]}, {}, complete)
}

# Not live

test_deleted_is_denied if {
	authz.decision == deny({"permission_deleted"}) with input as granted_question
		with data.scalekit as catalog({}, deleted, complete)
}

test_deleted_is_denied_while_the_catalog_is_incomplete if {
	authz.decision == deny({"permission_deleted"}) with input as granted_question
		with data.scalekit as catalog({}, deleted, incomplete)
}

test_deleted_is_denied_under_defer[note] if {
	some note, sync in {"complete": complete, "incomplete": incomplete, "nothing known": {}}
	authz.decision == deny({"permission_deleted"}) with input as granted_question
		with data.scalekit as catalog({}, deleted, sync)
		with data.postern as defer
}

test_never_seen_is_unknown if {
	authz.decision == deny({"permission_unknown"}) with input as granted_question
		with data.scalekit as catalog({}, {}, complete)
}

test_never_seen_in_an_incomplete_catalog_is_denied if {
	authz.decision == deny({"catalog_incomplete"}) with input as granted_question
		with data.scalekit as catalog({}, {}, incomplete)
}

test_only_true_is_complete[note] if {
	some note, sync in {
		"null": {"complete": null},
		"string": {"complete": "true"},
		"number": {"complete": 1},
		"object": {"complete": {"complete": true}},
		"left out": {},
		"no object": true,
	}
	authz.decision == deny({"catalog_incomplete"}) with input as granted_question
		with data.scalekit as catalog({}, {}, sync)
}

test_without_a_catalog_is_denied if {
	authz.decision == deny({"catalog_incomplete"}) with input as granted_question
		with data.scalekit as {}
}

# Deferring

test_never_seen_is_deferred_to_the_grant if {
	authz.decision == allow({"granted", "deferred"}) with input as granted_question
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_deferred_without_a_catalog if {
	authz.decision == allow({"granted", "deferred"}) with input as granted_question
		with data.scalekit as {}
		with data.postern as defer
}

test_deferred_needs_the_grant if {
	authz.decision == deny({"not_granted"}) with input as question(["data:read"])
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_deferred_needs_the_organization if {
	authz.decision == deny({"organization_mismatch"}) with input as between({}, {"organization_id": "org_1"})
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_deferring_changes_nothing_of_a_complete_catalog if {
	authz.decision == deny({"permission_unknown"}) with input as granted_question
		with data.scalekit as catalog({}, {}, complete)
		with data.postern as defer
}

test_only_defer_defers[note] if {
	some note, settings in {
		"deny": {"on_incomplete": "deny"},
		"capitals": {"on_incomplete": "DEFER"},
		"true": {"on_incomplete": true},
		"null": {"on_incomplete": null},
		"array": {"on_incomplete": ["defer"]},
		"left out": {},
		"no object": "defer",
	}
	authz.decision == deny({"catalog_incomplete"}) with input as granted_question
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern.settings as settings
}

# Organizations

test_same_organization_is_allowed if {
	authz.decision == allow({"granted"}) with input as between({"organization_id": "org_1"}, {"organization_id": "org_1"})
		with data.scalekit as live_catalog
}

test_a_subject_of_an_organization_may_use_what_names_none if {
	authz.decision == allow({"granted"}) with input as between({"organization_id": "org_1"}, {"owner": "usr_2"})
		with data.scalekit as live_catalog
}

test_resource_may_be_left_out if {
	authz.decision == allow({"granted"}) with input as object.remove(granted_question, ["resource"])
		with data.scalekit as live_catalog
}

test_another_organization_is_denied[note] if {
	some note, subject in {
		"another": {"organization_id": "org_2"},
		"capitals": {"organization_id": "ORG_1"},
		"longer": {"organization_id": "org_10"},
		"left out": {},
		"null": {"organization_id": null},
		"array": {"organization_id": ["org_1"]},
		"object": {"organization_id": {"org_1": "org_1"}},
	}
	authz.decision == deny({"organization_mismatch"}) with input as between(subject, {"organization_id": "org_1"})
		with data.scalekit as live_catalog
}

# Equal on both sides, so that only the type is what denies.
test_an_organization_that_is_no_name_agrees_with_nothing[note] if {
	some note, value in {
		"null": null,
		"true": true,
		"false": false,
		"number": 7,
		"zero": 0,
		"empty": "",
		"array": ["org_1"],
		"empty array": [],
		"object": {"id": "org_1"},
		"empty object": {},
	}
	authz.decision == deny({"organization_mismatch"}) with input as between({"organization_id": value}, {"organization_id": value})
		with data.scalekit as live_catalog
}

test_a_resource_that_is_no_object_is_denied[note] if {
	some note, value in {"null": null, "false": false, "true": true, "number": 7, "string": "ds_7", "empty": "", "array": []}
	authz.decision == deny({"organization_mismatch"}) with input as replaced("resource", value)
		with data.scalekit as live_catalog
}

test_resource_properties_that_are_no_object_are_denied[note] if {
	some note, value in {"null": null, "false": false, "true": true, "number": 7, "string": "org_1", "array": ["org_1"]}
	authz.decision == deny({"organization_mismatch"}) with input as between({"organization_id": "org_1"}, value)
		with data.scalekit as live_catalog
}

# Hostile and missing input

test_permissions_that_are_no_array_grant_nothing[note] if {
	some note, permissions in {
		"the name": "data:manage",
		"object by key": {"data:manage": true},
		"object by value": {"0": "data:manage"},
		"null": null,
		"true": true,
		"number": 1,
		"nested": [["data:manage"]],
		"objects": [{"name": "data:manage"}],
		"mixed": [null, 1, true, {}, "data:read"],
	}
	authz.decision == deny({"not_granted"}) with input as question(permissions)
		with data.scalekit as live_catalog
}

test_a_set_is_no_json if {
	authz.decision == deny({"not_granted"}) with input as question({"data:manage"})
		with data.scalekit as live_catalog
}

test_an_array_of_other_types_beside_the_name_grants if {
	authz.decision == allow({"granted"}) with input as question([null, 1, ["x"], "data:manage"])
		with data.scalekit as live_catalog
}

test_a_subject_that_is_no_subject_is_denied[note] if {
	some note, subject in {
		"null": null,
		"string": "usr_1",
		"array": ["data:manage"],
		"empty": {},
		"no properties": {"id": "usr_1"},
		"null properties": {"properties": null},
		"array as properties": {"properties": ["data:manage"]},
		"permissions one level up": {"permissions": ["data:manage"]},
	}
	authz.decision == deny({"not_granted"}) with input as replaced("subject", subject)
		with data.scalekit as live_catalog
}

# Each is live, deleted and granted under its own text: it is the type that denies.
test_an_action_that_is_no_name_is_denied[note] if {
	some note, name in {"number": 7, "null": null, "true": true, "false": false, "array": ["7"], "object": {"name": "7"}}
	asked := {"subject": {"properties": {"permissions": [name]}}, "action": {"name": name}}
	records := {"7": live["data:manage"], "null": live["data:manage"], "true": live["data:manage"]}
	authz.decision == deny({"permission_unknown", "not_granted"}) with input as asked
		with data.scalekit as catalog(records, {}, complete)
	authz.decision == deny({"permission_unknown", "not_granted"}) with input as asked
		with data.scalekit as catalog({}, records, complete)
	authz.decision == deny({"not_granted"}) with input as asked
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_an_action_without_a_name_is_denied[note] if {
	some note, action in {"empty": {}, "null": null, "string": "data:manage", "array": ["data:manage"]}
	authz.decision == deny({"permission_unknown", "not_granted"}) with input as replaced("action", action)
		with data.scalekit as live_catalog
}

test_input_that_is_no_question_is_denied[note] if {
	some note, asked in {"empty": {}, "null": null, "string": "allow", "array": [granted_question], "true": true, "number": 1}
	authz.decision == deny({"permission_unknown", "not_granted"}) with input as asked
		with data.scalekit as live_catalog
}

test_no_input_is_denied if {
	authz.decision == deny({"permission_unknown", "not_granted"}) with data.scalekit as live_catalog
}

test_no_input_and_no_catalog_is_denied if {
	authz.decision == deny({"catalog_incomplete", "not_granted"}) with data.scalekit as {}
}

test_a_record_that_is_no_record_is_not_live[note] if {
	some note, permissions in {"false": {"data:manage": false}, "array": ["data:manage"], "string": "data:manage"}
	authz.decision == deny({"permission_unknown"}) with input as granted_question
		with data.scalekit as catalog(permissions, {}, complete)
}

test_what_the_input_says_of_the_catalog_is_not_heard if {
	asked := object.union(granted_question, {"data": {"scalekit": live_catalog}, "scalekit": live_catalog, "decision": true})
	authz.decision == deny({"permission_unknown"}) with input as asked
		with data.scalekit as catalog({}, {}, complete)
}

# Access tokens

# A question whose app says nothing that counts, with a token of such claims.
token_question(claims) := {
	"subject": {"type": "user", "id": "usr_1", "properties": {"permissions": ["data:read"], "organization_id": "org_9"}},
	"action": {"name": "data:manage"},
	"resource": {"type": "dataset", "id": "ds_7", "properties": {"organization_id": "org_1"}},
	"token": {"valid": true, "claims": claims},
}

good_claims := {"sub": "usr_1", "oid": "org_1", "permissions": ["data:manage"]}

test_a_token_grants_what_it_says if {
	authz.decision == allow({"granted"}) with input as token_question(good_claims)
		with data.scalekit as live_catalog
}

test_a_token_keeps_a_deleted_permission_in_vain if {
	authz.decision == deny({"permission_deleted"}) with input as token_question(good_claims)
		with data.scalekit as catalog({}, deleted, complete)
}

test_a_token_is_deferred_to_like_the_app if {
	authz.decision == allow({"granted", "deferred"}) with input as token_question(good_claims)
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_nobody_is_deferred_to_for_the_token_of_another if {
	asked := token_question(object.union(good_claims, {"sub": "usr_2"}))
	authz.decision == deny({"subject_mismatch"}) with input as asked
		with data.scalekit as catalog({}, {}, incomplete)
		with data.postern as defer
}

test_the_word_of_the_app_does_not_count_beside_a_token[note] if {
	some note, example in {
		"no permissions": {"claims": {"sub": "usr_1", "oid": "org_1"}, "reason": "not_granted"},
		"others": {"claims": {"sub": "usr_1", "oid": "org_1", "permissions": ["data:read"]}, "reason": "not_granted"},
		"scopes": {"claims": {"sub": "usr_1", "oid": "org_1", "scopes": ["data:manage"]}, "reason": "not_granted"},
		"permissions as text": {"claims": {"sub": "usr_1", "oid": "org_1", "permissions": "data:manage"}, "reason": "not_granted"},
		"no organization": {"claims": {"sub": "usr_1", "permissions": ["data:manage"]}, "reason": "organization_mismatch"},
		"another organization": {"claims": {"sub": "usr_1", "oid": "org_2", "permissions": ["data:manage"]}, "reason": "organization_mismatch"},
		"another subject": {"claims": {"sub": "usr_2", "oid": "org_1", "permissions": ["data:manage"]}, "reason": "subject_mismatch"},
		"no subject": {"claims": {"oid": "org_1", "permissions": ["data:manage"]}, "reason": "subject_mismatch"},
	}
	asked := object.union(token_question(example.claims), {"subject": {
		"id": "usr_1",
		"properties": {"permissions": ["data:manage"], "organization_id": "org_1"},
	}})
	authz.decision == deny({example.reason}) with input as asked
		with data.scalekit as live_catalog
}

test_a_subject_without_a_name_is_nobody[note] if {
	some note, id in {"null": null, "number": 7, "object": {"id": "usr_1"}, "empty": ""}
	asked := object.union(token_question(object.union(good_claims, {"sub": id})), {"subject": {"id": id}})
	authz.decision == deny({"subject_mismatch"}) with input as asked
		with data.scalekit as live_catalog
}

test_a_bad_token_is_the_only_reason[code] if {
	some code in {
		"token_invalid", "token_expired", "token_not_yet_valid", "token_wrong_issuer",
		"token_wrong_audience", "token_keys_unavailable",
	}
	authz.decision == deny({code}) with input as object.union(granted_question, {"token": {"valid": false, "error": code}})
		with data.scalekit as live_catalog
}

test_what_is_no_token_is_invalid[note] if {
	some note, token in {
		"null": null,
		"false": false,
		"true": true,
		"text": "eyJ",
		"empty": {},
		"valid as text": {"valid": "true", "claims": good_claims},
		"no claims": {"valid": true},
		"claims as text": {"valid": true, "claims": "sub"},
		"an error of its own": {"valid": false, "error": "granted"},
		"no error": {"valid": false, "claims": good_claims},
		"an error that is no text": {"valid": false, "error": ["token_expired"]},
		"a reason of another kind": {"valid": false, "error": "token_required"},
		"valid and expired": {"valid": true, "error": "token_expired", "claims": good_claims},
		"valid and an error that is null": {"valid": true, "error": null, "claims": good_claims},
		"an error of a token neither good nor bad": {"error": "token_expired"},
	}
	authz.decision == deny({"token_invalid"}) with input as object.union(object.remove(token_question(good_claims), ["token"]), {"token": token})
		with data.scalekit as live_catalog
}

# Combinations

test_all_reasons_that_apply_are_listed[note] if {
	some note, example in {
		"unknown": {"scalekit": catalog({}, {}, complete), "reason": "permission_unknown"},
		"incomplete": {"scalekit": catalog({}, {}, incomplete), "reason": "catalog_incomplete"},
		"deleted": {"scalekit": catalog({}, deleted, complete), "reason": "permission_deleted"},
		"deleted, incomplete": {"scalekit": catalog({}, deleted, incomplete), "reason": "permission_deleted"},
	}
	asked := {
		"subject": {"properties": {"permissions": [], "organization_id": "org_2"}},
		"action": {"name": "data:manage"},
		"resource": {"properties": {"organization_id": "org_1"}},
	}
	authz.decision == deny({example.reason, "not_granted", "organization_mismatch"}) with input as asked
		with data.scalekit as example.scalekit
}

test_live_lists_grant_and_organization if {
	asked := {
		"subject": {"properties": {"permissions": []}},
		"action": {"name": "data:manage"},
		"resource": {"properties": {"organization_id": "org_1"}},
	}
	authz.decision == deny({"not_granted", "organization_mismatch"}) with input as asked
		with data.scalekit as live_catalog
}

# Over every combination: a boolean with reasons, an allow only where all three agree.
test_every_combination_decides[note] if {
	some known, scalekit in {
		"live": catalog(live, {}, complete),
		"deleted": catalog({}, deleted, incomplete),
		"unknown": catalog({}, {}, complete),
		"incomplete": catalog({}, {}, incomplete),
	}
	some mode in ["deny", "defer"]
	some granted in [true, false]
	some subject in ["org_1", "org_2", null]
	some resource in ["org_1", "", null]
	note := sprintf("%s %s %v %v %v", [known, mode, granted, subject, resource])

	asked := {
		"subject": {"properties": {"permissions": [p | p := "data:manage"; granted], "organization_id": subject}},
		"action": {"name": "data:manage"},
		"resource": {"properties": {"organization_id": resource}},
	}
	answer := authz.decision with input as asked
		with data.scalekit as scalekit
		with data.postern.settings.on_incomplete as mode

	is_boolean(answer.decision)
	count(answer.reasons) > 0
	answer.decision == all_true(["granted" in answer.reasons])
	answer.decision == all_true([
		[known, mode] in {["live", "deny"], ["live", "defer"], ["incomplete", "defer"]},
		granted,
		[subject, resource] == ["org_1", "org_1"],
	])
}

all_true(conditions) if {
	every condition in conditions { condition }
} else := false
