package authz

default decision := false

decision if {
	every name in ["data:manage", "data:old"] {
		name in input.subject.properties.permissions
		data.scalekit.permissions[name]
	}
}
