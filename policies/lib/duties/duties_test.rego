package lib.duties_test

import data.lib.duties

asks(id) := {"subject": {"id": id}}

test_who_is_none_of_them_is_separate if {
	duties.separate(["usr_2"]) with input as asks("usr_1")
	duties.separate(["usr_2", "usr_3"]) with input as asks("usr_1")
	duties.separate({"usr_2", "usr_3"}) with input as asks("usr_1")
	duties.separate(["USR_1", "usr_10", "usr_1 "]) with input as asks("usr_1")
}

test_who_is_one_of_them_is_not if {
	not duties.separate(["usr_1"]) with input as asks("usr_1")
	not duties.separate(["usr_2", "usr_1"]) with input as asks("usr_1")
	not duties.separate({"usr_2", "usr_1"}) with input as asks("usr_1")
}

test_people_who_are_not_named_are_not_separate[note] if {
	some note, ids in {
		"nobody": [],
		"an empty set": set(),
		"null": null,
		"a name": "usr_2",
		"an object": {"created_by": "usr_2"},
		"a null among them": ["usr_2", null],
		"a number": [7],
		"an object among them": [{"id": "usr_2"}],
		"an array among them": [["usr_2"]],
		"empty": [""],
	}
	not duties.separate(ids) with input as asks("usr_1")
}

test_a_creator_left_out_is_not_separate if {
	not separate_from_creator with input as asks("usr_1")
	separate_from_creator with input as object.union(asks("usr_1"), {"resource": {"properties": {"created_by": "usr_2"}}})
}

separate_from_creator if duties.separate([input.resource.properties.created_by])

test_who_asks_has_to_be_known[note] if {
	some note, asked in {
		"null": asks(null),
		"number": asks(7),
		"empty": asks(""),
		"left out": {"subject": {}},
		"no question": "usr_1",
		"the token of another": {"subject": {"id": "usr_1"}, "token": {"valid": true, "claims": {"sub": "usr_3"}}},
		"a bad token": {"subject": {"id": "usr_1"}, "token": {"valid": false, "error": "token_expired"}},
	}
	not duties.separate(["usr_2"]) with input as asked
}

# Permissions that don't go together

catalog := {
	"permissions": {"a:create": {}, "a:approve": {}, "a:read": {}, "7": {}},
	"deleted": {"a:pay": {}},
}

lists(names) := {"subject": {"id": "usr_1", "properties": {"permissions": names}}}

pair := ["a:create", "a:approve"]

test_one_or_none_is_fine[note] if {
	some note, listed in {"none": [], "others": ["a:read"], "the first": ["a:create"], "the second": ["a:read", "a:approve"], "one twice": ["a:create", "a:create"]}
	duties.at_most_one(pair) with input as lists(listed) with data.scalekit as catalog
	duties.at_most_one({"a:create", "a:approve"}) with input as lists(listed) with data.scalekit as catalog
}

test_both_are_not_fine if {
	not duties.at_most_one(pair) with input as lists(["a:approve", "a:create"]) with data.scalekit as catalog
	not duties.at_most_one(["a:read", "a:create", "a:approve"]) with input as lists(pair) with data.scalekit as catalog
}

test_a_deleted_one_does_not_count if {
	duties.at_most_one(["a:create", "a:pay"]) with input as lists(["a:create", "a:pay"]) with data.scalekit as catalog
}

test_one_never_seen_counts if {
	not duties.at_most_one(pair) with input as lists(pair) with data.scalekit as {"permissions": {}}
	not duties.at_most_one(pair) with input as lists(pair)
}

test_what_the_subject_lists_has_to_be_known[note] if {
	some note, asked in {
		"null": lists(null),
		"a name": lists("a:create"),
		"an object": lists({"0": "a:create"}),
		"left out": {"subject": {"id": "usr_1"}},
		"no question": null,
		"the token of another": {"subject": {"id": "usr_1"}, "token": {"valid": true, "claims": {"sub": "usr_3", "permissions": []}}},
		"a bad token": object.union(lists([]), {"token": {"valid": false, "error": "token_expired"}}),
	}
	not duties.at_most_one(pair) with input as asked with data.scalekit as catalog
}

test_the_names_have_to_be_several[note] if {
	some note, names in {
		"none": [],
		"one": ["a:create"],
		"one twice": ["a:create", "a:create"],
		"a name": "a:create",
		"null": null,
		"an object": {"a:create": "a:create", "a:approve": "a:approve"},
		"numbers": [7, 8],
		"one no name": ["a:create", "a:approve", 7],
	}
	not duties.at_most_one(names) with input as lists([]) with data.scalekit as catalog
}
