# METADATA
# title: Organizations
# description: |
#   Whether the organization of the resource, resource.properties.organization_id, is the
#   subject's (lib.subject). Names are compared byte for byte, and what is no name, or an empty
#   one, matches nothing.
# scope: package
# schemas:
#   - input: schema.input
package lib.organization

import data.lib.subject

# METADATA
# title: The organizations agree
# description: |
#   As the built-in policy asks: true when the resource names no organization, or the
#   subject's. A resource that can't be searched for one agrees with nobody.
# scope: document
# custom:
#   example: organization.agrees
agrees if not _named

agrees if matches

# METADATA
# title: The organizations match
# description: |
#   True when the resource names an organization and it is the subject's: for apps where every
#   resource belongs to one.
# scope: document
# custom:
#   example: organization.matches
matches if {
	is_string(input.resource.properties.organization_id)
	input.resource.properties.organization_id == subject.organization
}

# Present, even as null or false, is named: it then has to agree.
_named if _ = input.resource.properties.organization_id

# What can't be searched for an organization might have named one.
_named if type_name(input.resource) != "object"

_named if type_name(input.resource.properties) != "object"
