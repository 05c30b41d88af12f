package authz

decision if {
	input.subject.properties.admin == true
}
