# METADATA
# title: Roles
# description: |
#   Grants by what the roles of the access token hold now. Only a good token names roles, never
#   the app. A role that names a deleted permission doesn't revive it. Each role is read by
#   itself, never the collection, and none for a permission that isn't live.
#
#   Every rule here is true or undefined. The organization is the caller's to compare.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package lib.roles

import data.lib.permissions
import data.lib.subject

# METADATA
# title: Granted by role
# description: |
#   True when a role of the access token holds the permission asked for, and that permission
#   is live. Whose token it is, is the caller's to compare; holds does.
# scope: document
# custom:
#   example: roles.granted
granted if _grants(input.action.name)

# METADATA
# title: A permission is held by role
# description: |
#   True when a role of the access token holds the permission, the permission is live, and the
#   token is the subject's own.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: roles.holds("invoices:approve")
holds(name) if {
	subject.agrees
	_grants(name)
}

_grants(name) if {
	subject.token_valid
	is_array(input.token.claims.roles)
	permissions.live(name)
	some role in input.token.claims.roles
	_lists(role, name)
}

# Only a name is looked up: storage would take the number 7 for the name "7". Membership would
# also look into the values of an object.
_lists(role, name) if {
	is_string(role)
	listed := data.scalekit.roles[role].permissions
	is_array(listed)
	name in listed
}
