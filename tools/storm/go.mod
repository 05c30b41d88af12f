module github.com/postern-authz/postern/tools/storm

go 1.26.0

require github.com/postern-authz/postern v0.0.0

require (
	github.com/go-jose/go-jose/v4 v4.1.9 // indirect
	github.com/gorilla/mux v1.8.1 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/net v0.62.0 // indirect
)

replace github.com/postern-authz/postern => ../..
