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
#   which it sees to before it asks any policy. The library, package lib, says what each of
#   these means; a policy that uses it judges alike.
#
#   Reasons of an allow: granted, and deferred when the permission was judged without the
#   catalog. Reasons of a deny, all that apply: permission_unknown, permission_deleted,
#   catalog_incomplete, not_granted, organization_mismatch, subject_mismatch. A token that
#   isn't good denies for its own reason alone: token_invalid, token_expired,
#   token_not_yet_valid, token_wrong_issuer, token_wrong_audience, token_keys_unavailable.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
#   - data.postern: schema.postern
package authz

import data.lib.organization
import data.lib.permissions
import data.lib.subject

# METADATA
# title: Decision
# description: The answer to one question, a boolean and the set of reasons for it.
# scope: document
# entrypoint: true
decision := {"decision": false, "reasons": {subject.token_error}} if {
	subject.token_given
	not subject.token_valid
} else := {"decision": true, "reasons": {"granted"}} if {
	_live
	_granted
	organization.agrees
	subject.agrees
} else := {"decision": true, "reasons": {"granted", "deferred"}} if {
	_deferred
	_granted
	organization.agrees
	subject.agrees
} else := {"decision": false, "reasons": _objections}

_objections contains "not_granted" if not _granted

_objections contains "organization_mismatch" if not organization.agrees

_objections contains "subject_mismatch" if not subject.agrees

_objections contains "permission_deleted" if _deleted

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

# Rules, because a negated call would be undefined where its argument is.
_live if permissions.live(input.action.name)

_deleted if permissions.deleted(input.action.name)

_granted if permissions.granted(input.action.name)

_never_seen if {
	not _live
	not _deleted
}

_catalog_complete if data.scalekit.sync.complete == true

_deferring if data.postern.settings.on_incomplete == "defer"
