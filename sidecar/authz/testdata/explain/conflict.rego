package authz

decision := true if input.action.name

decision := false if input.subject.id
