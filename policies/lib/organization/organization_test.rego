package lib.organization_test

import data.lib.organization

between(subject, resource) := {
	"subject": {"id": "usr_1", "properties": subject},
	"resource": {"type": "dataset", "id": "ds_7", "properties": resource},
}

test_the_same_matches if {
	organization.matches with input as between({"organization_id": "org_1"}, {"organization_id": "org_1"})
	organization.agrees with input as between({"organization_id": "org_1"}, {"organization_id": "org_1"})
}

test_none_named_agrees_and_does_not_match[note] if {
	some note, asked in {
		"no organization": between({"organization_id": "org_1"}, {"owner": "usr_2"}),
		"no properties": {"resource": {"type": "dataset"}},
		"no resource": {"subject": {"id": "usr_1"}},
	}
	organization.agrees with input as asked
	not organization.matches with input as asked
}

test_another_neither_agrees_nor_matches[note] if {
	some note, subject in {
		"another": {"organization_id": "org_2"},
		"capitals": {"organization_id": "ORG_1"},
		"longer": {"organization_id": "org_10"},
		"left out": {},
		"null": {"organization_id": null},
		"array": {"organization_id": ["org_1"]},
	}
	not organization.agrees with input as between(subject, {"organization_id": "org_1"})
	not organization.matches with input as between(subject, {"organization_id": "org_1"})
}

# Equal on both sides, so that only the type is what decides.
test_what_is_no_name_neither_agrees_nor_matches[note] if {
	some note, value in {"null": null, "true": true, "false": false, "number": 7, "empty": "", "array": ["org_1"], "object": {"id": "org_1"}}
	asked := between({"organization_id": value}, {"organization_id": value})
	not organization.agrees with input as asked
	not organization.matches with input as asked
}

test_what_cannot_be_searched_neither_agrees_nor_matches[note] if {
	some note, value in {"null": null, "false": false, "true": true, "number": 7, "string": "org_1", "array": ["org_1"]}
	not organization.agrees with input as {"subject": {"properties": {"organization_id": "org_1"}}, "resource": value}
	not organization.matches with input as {"subject": {"properties": {"organization_id": "org_1"}}, "resource": value}
	not organization.agrees with input as between({"organization_id": "org_1"}, value)
	not organization.matches with input as between({"organization_id": "org_1"}, value)
}

test_the_word_of_the_app_does_not_count_beside_a_token if {
	asked := between({"organization_id": "org_1"}, {"organization_id": "org_1"})
	by_token := object.union(asked, {"token": {"valid": true, "claims": {"sub": "usr_1", "oid": "org_2"}}})
	not organization.agrees with input as by_token
	not organization.matches with input as by_token
}
