# METADATA
# title: What the built-in policy says of this catalog
# description: |
#   Examples to begin with: take them for your own. They ask with data.scalekit as it is in the
#   catalog file: `opa test` finds the same document in fixtures/scalekit/data.json.
# scope: package
# custom:
#   catalog: ../catalog.ndjson
package starter_test

import data.authz

question(name, held) := {
	"subject": {"type": "user", "id": "usr_1", "properties": {"permissions": held}},
	"action": {"name": name},
	"resource": {"type": "invoice", "id": "inv_7"},
	"context": {},
}

test_what_is_held_and_live_is_allowed if {
	answer := authz.decision with input as question("invoices:pay", ["invoices:pay"])
	answer == {"decision": true, "reasons": {"granted"}}
}

test_what_was_deleted_is_denied_though_held if {
	answer := authz.decision with input as question("invoices:delete", ["invoices:delete"])
	answer == {"decision": false, "reasons": {"permission_deleted"}}
}

test_what_never_was_is_denied_though_held if {
	answer := authz.decision with input as question("invoices:print", ["invoices:print"])
	answer == {"decision": false, "reasons": {"permission_unknown"}}
}

# A catalog may also be made up, for one question.
test_what_the_app_does_not_list_is_denied if {
	answer := authz.decision with input as question("invoices:print", [])
		with data.scalekit.permissions as {"invoices:print": {"id": "perm_9"}}
	answer == {"decision": false, "reasons": {"not_granted"}}
}
