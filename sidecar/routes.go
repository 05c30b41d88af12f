package main

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/postern-authz/postern/sidecar/authz"
	"github.com/postern-authz/postern/sidecar/listener"
)

// Every URL of every listener.

func (s *sidecar) authorizeRoutes() http.Handler {
	r := newRouter().UseEncodedPath() // a permission's name may contain a slash
	permissions := newPermissionReader(s.catalog, s.logger.With("listener", "authorize"))
	route(r, "/v1/authorize", http.MethodPost, s.onceBootstrapped(authz.NewHandler(s.engine, s.recorder(), s.logger.With("listener", "authorize"))))
	route(r, "/v1/sync", http.MethodGet, http.HandlerFunc(s.serveSync))
	route(r, "/v1/permissions", http.MethodGet, http.HandlerFunc(permissions.serveList))
	route(r, "/v1/permissions/{name}", http.MethodGet, http.HandlerFunc(permissions.serveOne))
	route(r, "/v1/bundles/permissions.tar.gz", http.MethodGet, s.onceBootstrapped(http.HandlerFunc(s.serveCatalogBundle)))
	return r
}

func (s *sidecar) webhookRoutes(receiver http.Handler) http.Handler {
	r := newRouter()
	route(r, s.config.webhookPath, http.MethodPost, receiver)
	return r
}

func (s *sidecar) adminRoutes() http.Handler {
	r := newRouter()
	route(r, "/livez", http.MethodGet, http.HandlerFunc(s.serveLive))
	route(r, "/startupz", http.MethodGet, http.HandlerFunc(s.serveStarted))
	route(r, "/readyz", http.MethodGet, http.HandlerFunc(s.serveReady))
	route(r, "/metrics", http.MethodGet, s.telemetry.Handler())
	return r
}

func (s *sidecar) controlRoutes() http.Handler {
	r := newRouter()
	route(r, controlDump, http.MethodGet, http.HandlerFunc(s.serveDump))
	route(r, controlRestore, http.MethodPost, http.HandlerFunc(s.serveRestore))
	route(r, controlVerify, http.MethodGet, http.HandlerFunc(s.serveVerify))
	route(r, controlCompact, http.MethodPost, http.HandlerFunc(s.serveCompact))
	route(r, controlReconcile, http.MethodPost, http.HandlerFunc(s.serveReconcile))
	route(r, controlAccept, http.MethodPost, http.HandlerFunc(s.serveAccept))
	return r
}

func newRouter() *mux.Router {
	r := mux.NewRouter().SkipClean(true)
	r.NotFoundHandler = http.HandlerFunc(listener.NotFound)
	return r
}

// route serves path for one method and answers the others itself, so that a wrong method
// gets an answer of the same form as every other mistake.
func route(r *mux.Router, path, method string, handler http.Handler) {
	methods := []string{method}
	if method == http.MethodGet {
		methods = append(methods, http.MethodHead) // which health checks use
	}
	r.Handle(path, handler).Methods(methods...)
	r.Handle(path, listener.MethodNotAllowed(methods...))
}
