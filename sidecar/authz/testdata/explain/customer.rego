package authz

default decision := {"decision": false, "reasons": ["no_grant"]}

decision := {"decision": true, "reasons": ["grant"], "level": level} if {
	some grant in input.subject.properties.grants
	grant.name == input.action.name
	reaches(grant.org, input.resource.properties.organization_id)
	every tag in input.resource.properties.tags {
		tag != "secret"
	}
	colors := {upper(team) | some team in input.subject.properties.teams; startswith(team, "b")}
	count(colors) > 0
	level != "none"
	not archived
}

reaches(have, want) if have == want

reaches("any", _)

default level := "none"

level := "high" if {
	input.resource.properties.size < 10
} else := "low" if {
	input.resource.properties.size < 100
}

archived if input.resource.properties.state == "archived"
