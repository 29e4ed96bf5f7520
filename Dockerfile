# The programs, each as an image of its own: docker build --target state-service | notifier | agent-sim | api .
#
# Built in steps that change at different speeds, so that an edited source file rebuilds our crates only:
# system packages, RocksDB, all other dependencies, our crates.

FROM rust:1.95-bookworm AS toolchain
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ libclang-dev libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The workspace without its code: every manifest, and an empty program or library where cargo expects one. Later steps
# are cached by what comes out of this one, which is the same until a manifest changes.
FROM toolchain AS skeleton
COPY . /whole
RUN cd /whole \
 && cp --parents Cargo.lock $(find . -name Cargo.toml) /src \
 && find . \( -path '*/src/lib.rs' -o -path '*/src/main.rs' -o -path '*/src/bin/*.rs' -o -path '*/benches/*.rs' \) \
  | while read -r file; do mkdir -p "/src/${file%/*}" && echo 'fn main() {}' > "/src/$file"; done

# A base image that brings a RocksDB of its own (ROCKSDB_LIB_DIR) is believed.
FROM toolchain AS rocksdb
COPY --from=skeleton /src .
COPY scripts/env.sh scripts/build-rocksdb.sh scripts/
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked --mount=type=cache,target=/root/.cache,sharing=locked \
    . scripts/env.sh && install -D -m 644 -t /rocksdb "$ROCKSDB_LIB_DIR/librocksdb.a"

FROM toolchain AS build
ENV ROCKSDB_LIB_DIR=/rocksdb ROCKSDB_STATIC=1
COPY --from=rocksdb /rocksdb /rocksdb
COPY --from=skeleton /src .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --locked --release -p state-service -p notifier -p agent-sim
COPY . .
# The files keep the dates they have on the host, which may be older than the empty ones just compiled: cargo would take
# those for up to date.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find . -name '*.rs' -not -path './target/*' -exec touch {} + \
 && cargo build --locked --release -p state-service -p notifier -p agent-sim

# Passes connections on to whatever `state-service` resolves to.
FROM debian:bookworm-slim AS api
RUN apt-get update \
 && apt-get install -y --no-install-recommends socat \
 && rm -rf /var/lib/apt/lists/*
USER nobody
EXPOSE 8080
CMD ["socat", "TCP-LISTEN:8080,fork,reuseaddr", "TCP:state-service:8080"]

# What a program needs around it: TLS, certificates, a user without rights, a folder for state.
FROM debian:bookworm-slim AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin shared-state \
 && install -d -o shared-state -g shared-state /var/lib/shared-state
COPY scripts/http-ok.sh /usr/local/bin/http-ok
USER shared-state
WORKDIR /var/lib/shared-state

# No shell around the programs: they are process 1 and get SIGTERM themselves.
FROM runtime AS agent-sim
COPY --from=build /src/target/release/agent-sim /usr/local/bin/
CMD ["agent-sim", "simulate"]

FROM runtime AS notifier
COPY --from=build /src/target/release/notifier /usr/local/bin/
ENV NOTIFIER_LISTEN=0.0.0.0:8090
EXPOSE 8090
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["http-ok", "8090", "/readyz"]
CMD ["notifier"]

FROM runtime AS state-service
COPY --from=build /src/target/release/state-service /usr/local/bin/
ENV LISTEN=0.0.0.0:8080 STATE_DIR=/var/lib/shared-state
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["http-ok", "8080", "/readyz"]
CMD ["state-service"]
