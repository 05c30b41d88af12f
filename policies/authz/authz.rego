# METADATA
# title: Built-in authorization
# description: |
#   Allows when the permission asked for is live in the catalog, the subject holds it, and
#   the organizations of subject and resource agree. Whatever is missing, of another type
#   than documented, or not understood denies with a reason.
#
#   What the subject holds, and its organization, are what the access token says when one
#   came along, which must be the subject's own; nothing that the app says counts then.
#   Without a token the app's word counts, unless Postern requires one (--require-token),
#   which it sees to before it asks any policy.
#
#   Reasons of an allow: granted, and deferred when the permission was judged without the
#   catalog. Reasons of a deny, all that apply: permission_unknown, permission_deleted,
#   catalog_incomplete, not_granted, organization_mismatch, subject_mismatch. A token that
#   isn't good denies for its own reason alone: token_invalid, token_expired,
#   token_not_yet_valid, token_wrong_issuer, token_wrong_audience, token_keys_unavailable.
#
#   It asks what the library does (lib.permissions, lib.subject, lib.organization), whose tests
#   hold the two against each other, but in one file: as calls it would cost a third more CPU.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
#   - data.postern: schema.postern
package authz

# METADATA
# title: Decision
# description: The answer to one question, a boolean and the set of reasons for it.
# scope: document
# entrypoint: true
decision := {"decision": false, "reasons": {_token_error}} if {
	_token_given
	not _token_valid
} else := {"decision": true, "reasons": {"granted"}} if {
	_live
	_granted
	_organization_agrees
	_subject_agrees
} else := {"decision": true, "reasons": {"granted", "deferred"}} if {
	_deferred
	_granted
	_organization_agrees
	_subject_agrees
} else := {"decision": false, "reasons": _objections}

_objections contains "not_granted" if not _granted

_objections contains "organization_mismatch" if not _organization_agrees

_objections contains "subject_mismatch" if not _subject_agrees

_objections contains "permission_deleted" if {
	not _live
	_deleted
}

_objections contains "permission_unknown" if {
	_never_seen
	_catalog_complete
}

_objections contains "catalog_incomplete" if {
	_never_seen
	not _catalog_complete
	not _deferring
}

# A catalog that may lack permissions can't deny one that it has never seen, where the
# operator chose to go by the grant until it is complete.
_deferred if {
	_never_seen
	not _catalog_complete
	_deferring
}

# Only a name is looked up: storage would take the number 7 for the name "7". The
# collection is never read as a whole, so that storage is asked for this one record.
_live if {
	is_string(input.action.name)
	data.scalekit.permissions[input.action.name]
}

_deleted if {
	is_string(input.action.name)
	data.scalekit.deleted[input.action.name]
}

_never_seen if {
	not _live
	not _deleted
}

_catalog_complete if data.scalekit.sync.complete == true

_deferring if data.postern.settings.on_incomplete == "defer"

# Membership would also look into the values of an object.
_granted if {
	is_string(input.action.name)
	is_array(_held)
	input.action.name in _held
}

_held := input.subject.properties.permissions if not _token_given

_held := input.token.claims.permissions if _token_valid

_organization_agrees if not _organization_named

_organization_agrees if {
	is_string(input.resource.properties.organization_id)
	input.resource.properties.organization_id != ""
	input.resource.properties.organization_id == _organization
}

_organization := input.subject.properties.organization_id if not _token_given

_organization := input.token.claims.oid if _token_valid

# Present, even as null or false, is named: it then has to agree.
_organization_named if _ = input.resource.properties.organization_id

# What can't be searched for an organization might have named one.
_organization_named if type_name(input.resource) != "object"

_organization_named if type_name(input.resource.properties) != "object"

# A token speaks for its own subject alone.
_subject_agrees if not _token_given

_subject_agrees if {
	_token_valid
	is_string(input.token.claims.sub)
	input.token.claims.sub != ""
	input.subject.id == input.token.claims.sub
}

# Present, whatever it is, is given: it then has to be good.
_token_given if _ = input.token

_token_valid if {
	input.token.valid == true
	is_object(input.token.claims)
	not _token_error_told
}

# A token can't be valid and have an error, not even one that is null.
_token_error_told if _ = input.token.error

# What Postern says of a token that isn't good, and nothing else.
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
