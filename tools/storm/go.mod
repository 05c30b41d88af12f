module github.com/postern-authz/postern/tools/storm

go 1.26.0
