# METADATA
# title: Invoicing
# description: |
#   Who may do what with invoices in an app of many organizations. The permission asked for is
#   held, listed by the subject or by a role of the token, and the invoice is of the subject's
#   organization. Approving and paying take two people, and amounts have limits by role.
#
#   Own reasons: own_invoice, conflicting_permissions, amount_over_limit.
# scope: package
# schemas:
#   - input: schema.input
#   - data.scalekit: schema.scalekit
package authz

import data.lib.duties
import data.lib.organization
import data.lib.permissions
import data.lib.roles
import data.lib.subject

# METADATA
# title: Decision
# description: A boolean, and the reasons for it. What isn't told or understood denies.
# scope: document
# entrypoint: true
decision := {"decision": true, "reasons": {"granted"}} if {
	_granted
	organization.matches
	_others_did_the_rest
	_permissions_agree
	_within_limit
} else := {"decision": false, "reasons": _objections}

_objections contains "not_granted" if not _granted

_objections contains "organization_mismatch" if not organization.matches

_objections contains "own_invoice" if not _others_did_the_rest

_objections contains "conflicting_permissions" if not _permissions_agree

_objections contains "amount_over_limit" if not _within_limit

_granted if permissions.held

_granted if roles.holds(input.action.name)

_takes_two if input.action.name in {"invoices:approve", "invoices:pay"}

# Whoever wrote an invoice doesn't approve it, and whoever did either doesn't pay it.
_others_did_the_rest if not _takes_two

_others_did_the_rest if {
	input.action.name == "invoices:approve"
	duties.separate([input.resource.properties.created_by])
}

_others_did_the_rest if {
	_pays
	duties.separate([input.resource.properties.created_by, input.resource.properties.approved_by])
}

# Who invents suppliers doesn't pay them.
_permissions_agree if not _pays

_permissions_agree if duties.at_most_one(["suppliers:manage", "invoices:pay"])

_pays if input.action.name == "invoices:pay"

# Amounts are in the currency's smallest unit. One of the subject's roles has to suffice.
_within_limit if not _takes_two

_within_limit if {
	subject.token_valid
	subject.agrees
	is_array(input.token.claims.roles)
	is_number(input.resource.properties.amount)
	input.resource.properties.amount > 0
	some role in input.token.claims.roles
	input.resource.properties.amount <= data.invoicing.limits[input.resource.properties.currency][role]
}
