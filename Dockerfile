# Two stages: a static binary, and nothing but it.
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26-bookworm AS build
ARG TARGETOS=linux
ARG TARGETARCH=amd64
ARG VERSION=dev
ARG COMMIT=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY bundle bundle
COPY policies policies
COPY sidecar sidecar
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
      -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/postern ./sidecar \
 && mkdir -m 0700 /out/data

FROM scratch
COPY --from=build /out/postern /postern
# Owned by the user below, so that a volume mounted here starts out writable for it.
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /var/lib/postern
USER 65532:65532
ENV POSTERN_DATA_DIR=/var/lib/postern
VOLUME /var/lib/postern
EXPOSE 8480 8282
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/postern", "healthcheck"]
ENTRYPOINT ["/postern"]
CMD ["run"]
