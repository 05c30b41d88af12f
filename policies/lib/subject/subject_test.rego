package lib.subject_test

import data.lib.subject

# A question whose app says one thing, and with a token of such claims.
said := {"id": "usr_1", "properties": {"permissions": ["data:read"], "organization_id": "org_9"}}

by_token(claims) := {"subject": said, "token": {"valid": true, "claims": claims}}

own := {"sub": "usr_1", "oid": "org_1", "permissions": ["data:manage"]}

test_without_a_token_the_app_is_believed if {
	subject.id == "usr_1" with input as {"subject": said}
	subject.permissions == ["data:read"] with input as {"subject": said}
	subject.organization == "org_9" with input as {"subject": said}
	subject.agrees with input as {"subject": said}
	not subject.token_given with input as {"subject": said}
	not subject.token_valid with input as {"subject": said}
	not subject.token_error with input as {"subject": said}
}

test_with_a_token_its_claims_alone_count if {
	subject.id == "usr_1" with input as by_token(own)
	subject.permissions == ["data:manage"] with input as by_token(own)
	subject.organization == "org_1" with input as by_token(own)
	subject.agrees with input as by_token(own)
	subject.token_given with input as by_token(own)
	subject.token_valid with input as by_token(own)
	not subject.token_error with input as by_token(own)
}

test_what_a_token_leaves_out_the_app_doesnt_fill_in if {
	not subject.permissions with input as by_token({"sub": "usr_1"})
	not subject.organization with input as by_token({"sub": "usr_1"})
}

test_the_token_of_another_is_not_the_subjects if {
	not subject.agrees with input as by_token({"sub": "usr_2"})
	not subject.id with input as by_token({"sub": "usr_2"})
}

test_names_are_texts_and_not_empty[note] if {
	some note, value in {"number": 7, "null": null, "true": true, "false": false, "array": ["usr_1"], "object": {"id": "usr_1"}, "empty": ""}
	by_the_app := {"subject": {"id": value, "properties": {"organization_id": value}}}
	not subject.id with input as by_the_app
	not subject.organization with input as by_the_app
	by_the_token := {"subject": {"id": value}, "token": {"valid": true, "claims": {"sub": value, "oid": value}}}
	not subject.id with input as by_the_token
	not subject.agrees with input as by_the_token
	not subject.organization with input as by_the_token
}

test_permissions_are_an_array[note] if {
	some note, value in {"number": 7, "null": null, "true": true, "false": false, "name": "data:read", "object": {"data:read": "data:read"}, "set": {"data:read"}}
	not _defined with input as {"subject": {"properties": {"permissions": value}}}
	not _defined with input as by_token({"sub": "usr_1", "permissions": value})
}

_defined if _ = subject.permissions

test_a_subject_that_is_no_subject_has_nothing[note] if {
	some note, value in {"number": 7, "null": null, "text": "usr_1", "array": ["usr_1"], "empty": {}, "properties as text": {"properties": "data:read"}, "properties as array": {"properties": ["data:read"]}}
	not subject.id with input as {"subject": value}
	not _defined with input as {"subject": value}
	not subject.organization with input as {"subject": value}
}

test_no_input_says_nothing if {
	not subject.id with input as null
	not _defined with input as "allow"
	not subject.organization
	not subject.token_given with input as ["token"]
}

test_a_token_that_is_not_good_counts_as_one_and_says_nothing[note] if {
	some note, token in {
		"null": null,
		"false": false,
		"true": true,
		"text": "eyJ",
		"empty": {},
		"valid as text": {"valid": "true", "claims": own},
		"no claims": {"valid": true},
		"claims as text": {"valid": true, "claims": "sub"},
		"valid and expired": {"valid": true, "error": "token_expired", "claims": own},
		"valid and an error that is null": {"valid": true, "error": null, "claims": own},
		"an error of its own": {"valid": false, "error": "granted"},
		"an error that is no text": {"valid": false, "error": ["token_expired"]},
		"an error of a token neither good nor bad": {"error": "token_expired"},
	}
	asked := {"subject": said, "token": token}
	subject.token_given with input as asked
	not subject.token_valid with input as asked
	subject.token_error == "token_invalid" with input as asked
	not subject.agrees with input as asked
	not subject.id with input as asked
	not _defined with input as asked
	not subject.organization with input as asked
}

test_a_bad_token_says_why[code] if {
	some code in {
		"token_invalid", "token_expired", "token_not_yet_valid", "token_wrong_issuer",
		"token_wrong_audience", "token_keys_unavailable",
	}
	subject.token_error == code with input as {"subject": said, "token": {"valid": false, "error": code, "claims": own}}
}
