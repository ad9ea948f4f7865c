# syntax=docker/dockerfile:1
# Two stages: the toolchain stays behind; the image carries the two binaries, certificates and an unprivileged account.
ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY api api
COPY worker worker
COPY shared shared
COPY migrations migrations
COPY scripts/harness scripts/harness
# The caches keep a second build short; what is kept in them cannot be copied out later, hence the install.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p api -p worker \
    && install -D -t /out target/release/api target/release/worker

FROM debian:${DEBIAN}-slim
# Outgoing TLS is checked against the system's certificates.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin alfred
COPY --from=build /out/api /out/worker /usr/local/bin/
USER 10001:10001
WORKDIR /tmp
# Everything else, secrets above all, comes from the environment at run time; see .env.example.
ENV APP_ENV=prod APP_HOST=0.0.0.0 APP_PORT=8080
EXPOSE 8080
# For the api, this image's default. A worker has no port: deploy/compose.yaml switches its check off.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["api", "healthcheck"]
STOPSIGNAL SIGTERM
CMD ["api"]
