# METADATA
# title: Roles
# description: |
#   A library for policies that grant by the roles of the access token. To use it, copy this
#   file into the directory of your policies.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package roles

# METADATA
# title: Granted by role
# description: |
#   True when a role of the access token holds the permission asked for, and that permission
#   is live: a role that names a deleted permission doesn't revive it. Undefined otherwise, and
#   always without a token that is good. The organization is the caller's to compare.
# scope: document
granted if {
	input.token.valid == true
	is_array(input.token.claims.roles)
	is_string(input.action.name)
	some role in input.token.claims.roles
	_holds(role)
	data.scalekit.permissions[input.action.name]
}

# Only a name is looked up: storage would take the number 7 for the name "7". Each role is
# read by itself, never the collection.
_holds(role) if {
	is_string(role)
	input.action.name in data.scalekit.roles[role].permissions
}
