# METADATA
# title: Holding permissions
# description: |
#   A permission is held when it is live in the catalog, the subject lists it, and a token, if
#   one came along, is the subject's own (lib.subject). It is what the built-in policy asks
#   for, organizations aside. Each name is looked up by itself, never the collection, and a
#   name that the subject doesn't list isn't looked up.
#
#   Every function here answers true or is undefined.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package lib.permissions

import data.lib.subject

# METADATA
# title: The permission asked for is held
# scope: document
# custom:
#   example: permissions.held
held if holds(input.action.name)

# METADATA
# title: A permission is held
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.holds("invoices:approve")
holds(name) if {
	subject.agrees
	granted(name)
	live(name)
}

# METADATA
# title: One of several permissions is held
# description: Wants an array or a set of names.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.holds_any(["invoices:delete", "invoices:approve"])
holds_any(names) if {
	type_name(names) in {"array", "set"} # what is in an object isn't looked at
	some name in names
	holds(name)
}

# METADATA
# title: All of several permissions are held
# description: Wants an array or a set of names. All of none are never held.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.holds_all(["invoices:read", "invoices:approve"])
holds_all(names) if {
	type_name(names) in {"array", "set"} # what is in an object isn't looked at
	count(names) > 0
	every name in names { holds(name) }
}

# METADATA
# title: A permission is live
# description: True when the catalog knows the name and it isn't deleted.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.live("invoices:delete")
live(name) if {
	# Only a name is looked up: storage would take the number 7 for the name "7".
	is_string(name)
	data.scalekit.permissions[name]
}

# METADATA
# title: A permission is deleted
# description: True when the newest that the catalog knows of the name is its deletion.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.deleted("invoices:export")
deleted(name) if {
	is_string(name)
	not live(name)
	data.scalekit.deleted[name]
}

# METADATA
# title: A permission is listed
# description: |
#   True when the subject lists the name. It says neither that the permission is live nor whose
#   token lists it; holds does.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: permissions.granted("invoices:export")
granted(name) if {
	is_string(name)
	name in subject.permissions
}
