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
	not _token_error_told
	is_array(input.token.claims.roles)
	is_string(input.action.name)
	data.scalekit.permissions[input.action.name]
	some role in input.token.claims.roles
	_holds(role)
}

# A token can't be valid and have an error, not even one that is null.
_token_error_told if _ = input.token.error

# Only a name is looked up: storage would take the number 7 for the name "7". Each role is
# read by itself, never the collection. Membership would also look into the values of an object.
_holds(role) if {
	is_string(role)
	permissions := data.scalekit.roles[role].permissions
	is_array(permissions)
	input.action.name in permissions
}
