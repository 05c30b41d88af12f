package authz

decision if input.action.name == "data:manage"

decision if {
	input.subject.id == "usr_2"
}

decision if "data:old" == input.action.name
