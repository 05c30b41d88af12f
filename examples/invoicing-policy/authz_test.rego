package authz_test

import data.authz

catalog := {
	"permissions": {"invoices:create": {}, "invoices:approve": {}, "invoices:pay": {}, "suppliers:manage": {}},
	"deleted": {"invoices:export": {}},
	"roles": {"manager": {"permissions": ["invoices:approve", "invoices:export"]}},
}

limits := {"EUR": {"clerk": 1000, "manager": 20000}}

invoice := {"organization_id": "org_1", "created_by": "usr_2", "approved_by": "usr_3", "amount": 20000, "currency": "EUR"}

claims := {"sub": "usr_1", "oid": "org_1", "roles": ["manager"], "permissions": ["invoices:create", "invoices:pay"]}

asks(name, changes) := asks_with(name, changes, {})

asks_with(name, changes, claimed) := {
	"subject": {"type": "user", "id": "usr_1"},
	"action": {"name": name},
	"resource": {"type": "invoice", "id": "inv_7", "properties": object.union(invoice, changes)},
	"token": {"valid": true, "claims": object.union(claims, claimed)},
}

allow := {"decision": true, "reasons": {"granted"}}

deny(reasons) := {"decision": false, "reasons": reasons}

test_granted_by_the_token if {
	authz.decision == allow with input as asks("invoices:create", {"created_by": "usr_1"})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_granted_by_a_role if {
	authz.decision == allow with input as asks("invoices:approve", {})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_a_role_does_not_revive_a_deleted_permission if {
	authz.decision == deny({"not_granted"}) with input as asks("invoices:export", {})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_not_granted if {
	authz.decision == deny({"not_granted"}) with input as asks("suppliers:manage", {})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_an_invoice_of_another_organization[note] if {
	some note, of in {"another": "org_2", "none": null, "empty": ""}
	authz.decision == deny({"organization_mismatch"}) with input as asks("invoices:create", {"organization_id": of})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_nobody_approves_an_invoice_of_their_own[note] if {
	some note, creator in {"own": "usr_1", "unknown": null, "empty": "", "several": ["usr_2"]}
	authz.decision == deny({"own_invoice"}) with input as asks("invoices:approve", {"created_by": creator})
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_paying_takes_a_third_person[note] if {
	some note, example in {
		"a third": {"changes": {}, "answer": allow},
		"the creator": {"changes": {"created_by": "usr_1"}, "answer": deny({"own_invoice"})},
		"the approver": {"changes": {"approved_by": "usr_1"}, "answer": deny({"own_invoice"})},
		"not approved": {"changes": {"approved_by": null}, "answer": deny({"own_invoice"})},
	}
	authz.decision == example.answer with input as asks("invoices:pay", example.changes)
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_who_invents_suppliers_does_not_pay_them if {
	asked := asks_with("invoices:pay", {}, {"permissions": ["invoices:pay", "suppliers:manage"]})
	authz.decision == deny({"conflicting_permissions"}) with input as asked
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_amounts[note] if {
	some note, example in {
		"the limit": {"changes": {"amount": 20000}, "answer": allow},
		"over it": {"changes": {"amount": 20001}, "answer": deny({"amount_over_limit"})},
		"nothing": {"changes": {"amount": 0}, "answer": deny({"amount_over_limit"})},
		"less than nothing": {"changes": {"amount": -5}, "answer": deny({"amount_over_limit"})},
		"a text": {"changes": {"amount": "5"}, "answer": deny({"amount_over_limit"})},
		"null": {"changes": {"amount": null}, "answer": deny({"amount_over_limit"})},
		"a currency without limits": {"changes": {"currency": "CHF"}, "answer": deny({"amount_over_limit"})},
		"no currency": {"changes": {"currency": null}, "answer": deny({"amount_over_limit"})},
	}
	authz.decision == example.answer with input as asks("invoices:approve", example.changes)
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_the_best_role_counts[note] if {
	some note, example in {
		"both": {"roles": ["clerk", "manager"], "answer": allow},
		"the lesser": {"roles": ["clerk"], "answer": deny({"amount_over_limit"})},
		"one without a limit": {"roles": ["viewer"], "answer": deny({"amount_over_limit"})},
		"none": {"roles": [], "answer": deny({"amount_over_limit"})},
		"no list": {"roles": {"0": "manager"}, "answer": deny({"amount_over_limit"})},
	}
	asked := asks_with("invoices:approve", {}, {"roles": example.roles, "permissions": ["invoices:approve"]})
	authz.decision == example.answer with input as asked
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

# The data beside the policy, as it is shipped.
test_the_limits_of_this_example if {
	authz.decision == allow with input as asks("invoices:approve", {"amount": 2500000})
		with data.scalekit as catalog
	authz.decision == deny({"amount_over_limit"}) with input as asks("invoices:approve", {"amount": 2500001})
		with data.scalekit as catalog
}

test_without_a_token_nothing_with_a_limit_is_done if {
	asked := object.union(object.remove(asks("invoices:approve", {}), ["token"]), {"subject": {"properties": {
		"permissions": ["invoices:approve"],
		"organization_id": "org_1",
		"roles": ["manager"],
	}}})
	authz.decision == deny({"amount_over_limit"}) with input as asked
		with data.scalekit as catalog
		with data.invoicing.limits as limits
}

test_the_token_of_another_does_nothing if {
	asked := asks_with("invoices:approve", {}, {"sub": "usr_4"})
	answer := authz.decision with input as asked
		with data.scalekit as catalog
		with data.invoicing.limits as limits
	answer.decision == false
	"not_granted" in answer.reasons
}

test_what_is_no_question_is_denied[note] if {
	some note, asked in {"empty": {}, "null": null, "text": "allow", "array": [asks("invoices:create", {})]}
	authz.decision == deny({"not_granted", "organization_mismatch"}) with input as asked
		with data.scalekit as catalog
}
