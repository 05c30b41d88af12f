# METADATA
# title: Who asks
# description: |
#   What counts of the one who asks, and by whose word: what the access token says when one
#   came along, and nothing that the app says; the app's word without one. What is missing, of
#   another type than documented, or from a token that isn't good is undefined.
# scope: package
# schemas:
#   - input: schema.input
package lib.subject

# METADATA
# title: The subject's id
# description: A name that isn't empty. With a token, the one that the token speaks for.
# scope: document
# custom:
#   example: subject.id == "usr_1"
id := input.subject.id if {
	agrees
	is_string(input.subject.id)
	input.subject.id != ""
}

# METADATA
# title: Permissions listed
# description: |
#   The array of permissions that the subject lists: the claim permissions of the token, else
#   subject.properties.permissions. Listed is not live: see lib.permissions.
# scope: document
# custom:
#   example: '"invoices:approve" in subject.permissions'
permissions := input.subject.properties.permissions if {
	not token_given
	is_array(input.subject.properties.permissions)
}

permissions := input.token.claims.permissions if {
	token_valid
	is_array(input.token.claims.permissions)
}

# METADATA
# title: The subject's organization
# description: |
#   A name that isn't empty: the claim oid of the token, else
#   subject.properties.organization_id.
# scope: document
# custom:
#   example: subject.organization == "org_1"
organization := name if {
	name := _organization
	is_string(name)
	name != ""
}

_organization := input.subject.properties.organization_id if not token_given

_organization := input.token.claims.oid if token_valid

# METADATA
# title: The token is the subject's own
# description: |
#   True when there is no token, or a good one whose claim sub is the subject's id: a token
#   speaks for its own subject alone.
# scope: document
# custom:
#   example: subject.agrees
agrees if not token_given

agrees if {
	token_valid
	is_string(input.token.claims.sub)
	input.token.claims.sub != ""
	input.subject.id == input.token.claims.sub
}

# METADATA
# title: A token came along
# description: True for whatever stands there, null included. It then has to be good.
# scope: document
# custom:
#   example: subject.token_given
token_given if _ = input.token

# METADATA
# title: The token is good
# description: True when Postern verified the token. Whose it is, agrees tells.
# scope: document
# custom:
#   example: subject.token_valid
token_valid if {
	input.token.valid == true
	is_object(input.token.claims)
	not _token_error_told
}

# A token can't be valid and have an error, not even one that is null.
_token_error_told if _ = input.token.error

# METADATA
# title: Why the token isn't good
# description: |
#   What Postern says of a token that isn't good: token_invalid, token_expired,
#   token_not_yet_valid, token_wrong_issuer, token_wrong_audience or token_keys_unavailable.
#   Undefined without a token and with a good one.
# scope: document
# custom:
#   example: not subject.token_error
token_error := reason if {
	token_given
	not token_valid
	reason := _token_error
}

_token_error := input.token.error if {
	input.token.valid == false
	input.token.error in {
		"token_invalid",
		"token_expired",
		"token_not_yet_valid",
		"token_wrong_issuer",
		"token_wrong_audience",
		"token_keys_unavailable",
	}
} else := "token_invalid"
