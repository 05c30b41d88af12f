module github.com/postern-authz/postern/tools/crash

go 1.26.0
