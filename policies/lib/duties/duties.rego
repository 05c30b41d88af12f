# METADATA
# title: Separation of duties
# description: |
#   That one person alone doesn't do what takes two. Every function answers true when the
#   duties are separate, and is undefined when they aren't or can't be told: who wrote an
#   invoice and isn't named doesn't make everybody its approver.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package lib.duties

import data.lib.permissions
import data.lib.subject

# METADATA
# title: The subject is none of these people
# description: |
#   True when the subject's id (lib.subject) isn't among the ids: who created or requested
#   something can't approve it. Wants an array or a set of names, at least one, none empty.
# scope: document
# custom:
#   example: duties.separate([input.resource.properties.created_by])
separate(ids) if {
	type_name(ids) in {"array", "set"} # what is in an object isn't looked at
	count(ids) > 0
	every id in ids {
		is_string(id)
		id != ""
		id != subject.id
	}
}

# METADATA
# title: At most one of these permissions is held
# description: |
#   True when the subject lists at most one of the names, those aside that the catalog knows as
#   deleted: one that it has never seen may be live, and counts. What roles hold isn't looked
#   at. Wants an array or a set of names, at least two different ones.
# scope: document
# custom:
#   permission_arguments: [0]
#   example: duties.at_most_one(["invoices:approve", "invoices:pay"])
at_most_one(names) if {
	type_name(names) in {"array", "set"}
	every name in names { is_string(name) }
	different := {name | some name in names}
	count(different) > 1

	# Without a list of the subject's own there is no telling.
	subject.agrees
	subject.permissions
	count({name | some name in different; _counts(name)}) < 2
}

_counts(name) if {
	permissions.granted(name)
	not permissions.deleted(name)
}
