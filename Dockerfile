# PostgreSQL with the extension, beside the official image: docker build --build-arg PG_MAJOR=15 -t partition_router .
ARG PG_MAJOR=15
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS rust

FROM postgres:${PG_MAJOR}-bookworm AS build
ARG PG_MAJOR
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates clang curl gcc git libc6-dev libclang-dev libssl-dev make pkg-config procps sudo \
        "postgresql-server-dev-$PG_MAJOR"
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:$PATH PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config
WORKDIR /src
# The tools first: they change seldom.
COPY scripts scripts
COPY Cargo.toml ./
RUN scripts/setup.sh build
COPY . .
RUN scripts/deb.sh

FROM postgres:${PG_MAJOR}-bookworm
COPY --from=build /src/target/deb/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends /tmp/*.deb && \
    rm -rf /tmp/*.deb /var/lib/apt/lists/*
# Plain SQL is routed in sessions that have the library; maintenance without pg_cron wants it in the server.
CMD ["postgres", "-c", "shared_preload_libraries=partition_router"]
