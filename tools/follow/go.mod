module github.com/postern-authz/postern/tools/follow

go 1.26.0
