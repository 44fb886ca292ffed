# Stage "build" puts the contents of the image into /out. To package an existing binary, replace that stage:
#   buildah build --build-context build=DIR .      with DIR/out/serviceoffer-controller and DIR/out/ca-certificates.crt
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates make && rm -rf /var/lib/apt/lists/*
COPY . .
ENV RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/usr/local/cargo=/cargo --remap-path-prefix=/src=/src"
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target="$(rustc --version --verbose | sed -n 's/host: //p')" \
    && cargo build --release --locked --target "$target" -p serviceoffer-controller --bin serviceoffer-controller \
    && mkdir -p /out \
    && cp "target/$target/release/serviceoffer-controller" /etc/ssl/certs/ca-certificates.crt /out/

FROM scratch
LABEL org.opencontainers.image.title="serviceoffer-controller" \
      org.opencontainers.image.description="Turns ServiceOffers into ERC-8004 registrations, exactly once, at any number of replicas" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/serviceoffer-controller /serviceoffer-controller
USER 65532:65532
ENTRYPOINT ["/serviceoffer-controller"]
