package lib.roles_test

import data.lib.roles

live := {"data:manage": {"id": "perm_1", "name": "data:manage"}}

known := {"admin": {"id": "role_1", "name": "admin", "permissions": ["data:manage", "data:read"]}}

question(claims) := {"action": {"name": "data:manage"}, "token": {"valid": true, "claims": claims}}

test_a_role_grants_what_it_holds if {
	roles.granted with input as question({"roles": ["viewer", "admin"]})
		with data.scalekit as {"permissions": live, "roles": known}
}

test_a_role_does_not_revive_a_deleted_permission if {
	not roles.granted with input as question({"roles": ["admin"]})
		with data.scalekit as {"permissions": {}, "deleted": live, "roles": known}
}

test_an_unknown_role_grants_nothing if {
	not roles.granted with input as question({"roles": ["viewer"]})
		with data.scalekit as {"permissions": live, "roles": known}
}

test_a_role_without_the_permission_grants_nothing if {
	not roles.granted with input as question({"roles": ["admin"]})
		with data.scalekit as {"permissions": live, "roles": {"admin": {"permissions": ["data:read"]}}}
}

test_only_a_token_that_is_good_counts[note] if {
	some note, token in {
		"invalid": {"valid": false, "error": "token_expired", "claims": {"roles": ["admin"]}},
		"true as text": {"valid": "true", "claims": {"roles": ["admin"]}},
		"valid and expired": {"valid": true, "error": "token_expired", "claims": {"roles": ["admin"]}},
		"no claims": {"valid": true},
		"null": null,
	}
	not roles.granted with input as {"action": {"name": "data:manage"}, "token": token}
		with data.scalekit as {"permissions": live, "roles": known}
}

test_the_word_of_the_app_does_not_count if {
	not roles.granted with input as {"action": {"name": "data:manage"}, "subject": {"properties": {"roles": ["admin"]}}}
		with data.scalekit as {"permissions": live, "roles": known}
}

test_roles_that_are_no_names_grant_nothing[note] if {
	some note, list in {"the name": "admin", "object": {"admin": "admin"}, "numbers": [7], "nested": [["admin"]], "null": null}
	not roles.granted with input as question({"roles": list})
		with data.scalekit as {"permissions": live, "roles": object.union(known, {"7": known.admin})}
}

test_a_role_whose_permissions_are_no_list_grants_nothing[note] if {
	some note, list in {"the name": "data:manage", "object": {"data:manage": "data:manage"}, "null": null}
	not roles.granted with input as question({"roles": ["admin"]})
		with data.scalekit as {"permissions": live, "roles": {"admin": {"permissions": list}}}
}

test_an_action_that_is_no_name_is_not_granted if {
	not roles.granted with input as {"action": {"name": 7}, "token": {"valid": true, "claims": {"roles": ["admin"]}}}
		with data.scalekit as {"permissions": {"7": {}}, "roles": {"admin": {"permissions": [7]}}}
}

# A permission by name

by(claims) := object.union(question(claims), {"subject": {"id": "usr_1"}})

test_a_role_of_the_subjects_own_token_holds if {
	roles.holds("data:manage") with input as by({"sub": "usr_1", "roles": ["admin"]})
		with data.scalekit as {"permissions": live, "roles": known}
}

test_a_role_holds_whatever_is_asked_for if {
	asked := object.union(by({"sub": "usr_1", "roles": ["admin"]}), {"action": {"name": "data:destroy"}})
	roles.holds("data:manage") with input as asked
		with data.scalekit as {"permissions": live, "roles": known}
}

test_a_role_does_not_hold[note] if {
	some note, example in {
		"of the token of another": {"name": "data:manage", "claims": {"sub": "usr_2", "roles": ["admin"]}},
		"of the token of nobody": {"name": "data:manage", "claims": {"roles": ["admin"]}},
		"another role": {"name": "data:manage", "claims": {"sub": "usr_1", "roles": ["viewer"]}},
		"what isn't live": {"name": "data:read", "claims": {"sub": "usr_1", "roles": ["admin"]}},
		"what is no name": {"name": 7, "claims": {"sub": "usr_1", "roles": ["odd"]}},
	}
	not roles.holds(example.name) with input as by(example.claims)
		with data.scalekit as {"permissions": object.union(live, {"7": {}}), "roles": object.union(known, {"odd": {"permissions": [7]}})}
}

test_no_role_holds_without_a_token if {
	not roles.holds("data:manage") with input as {"subject": {"id": "usr_1", "properties": {"roles": ["admin"]}}}
		with data.scalekit as {"permissions": live, "roles": known}
}
