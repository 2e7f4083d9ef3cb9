#!/usr/bin/env bash
# Builds the Dockerfile and migrates a table in the image. No registry of images is asked, nor a daemon: buildah runs the steps in chroots,
# on stand-ins for the two base images, which are the same Debian with the same PostgreSQL and Rust at the same paths. What only the
# official images have, their entry point, is not tried.
#
#   tests/docker.sh   as root; takes what a first build takes, and ten gigabytes of disk
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

readonly MAJOR=15 SUITE=bookworm

# base NAME: the base image of that name as the Dockerfile has it, with its tag, so that both name the same.
base() { sed -n "s/^FROM \($1:[^ ]*\).*/\1/p" Dockerfile | sed "s/\${PG_MAJOR}/$MAJOR/; s/\${RUST_VERSION}/$RUST_VERSION/" | head -n 1; }

build() { buildah --root "$SCRATCH/storage" --runroot "$SCRATCH/run" "$@"; }

# Debian, with the certificates that are trusted here: the registry of crates may be behind a mirror.
debian() {
  local container
  container=$(build from scratch)
  build add --quiet "$container" "$CHROOTS/$SUITE" / >/dev/null
  build copy --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
  echo "$container"
}

stand_in_for_postgres() {
  local container
  container=$(debian)
  build run --isolation chroot "$container" -- sh -c "apt-get -qq update && apt-get -qq -y install --no-install-recommends postgresql-$MAJOR" >"$SCRATCH/apt.log" 2>&1 ||
    { cat "$SCRATCH/apt.log" >&2 && exit 1; }
  build commit --quiet --rm "$container" "docker.io/library/$(base postgres)" >/dev/null
}

stand_in_for_rust() {
  local container toolchain=$SCRATCH/rust part
  mkdir -p "$toolchain/rustup/toolchain" "$toolchain/cargo/bin"
  for part in bin lib; do
    cp -r "$(rustc --print sysroot)/$part" "$toolchain/rustup/toolchain/"
  done
  # The image has the least that rustup installs.
  for part in cargo rustc rustdoc; do
    ln -s "/usr/local/rustup/toolchain/bin/$part" "$toolchain/cargo/bin/$part"
  done
  # rustup component add NAME
  cat >"$toolchain/cargo/bin/rustup" <<'RUSTUP'
#!/bin/sh
ln -s "/usr/local/rustup/toolchain/bin/$3" "/usr/local/cargo/bin/$3"
RUSTUP
  chmod +x "$toolchain/cargo/bin/rustup"
  container=$(debian)
  build copy --quiet "$container" "$toolchain" /usr/local >/dev/null
  build commit --quiet --rm "$container" "docker.io/library/$(base rust)" >/dev/null
  rm -rf "$toolchain"
}

main() {
  local status=0
  CHROOTS=${CHROOTS:-$ROOT/target/chroot}
  command -v buildah >/dev/null || die 'no buildah here: scripts/setup.sh packages installs it'
  mkdir -p target
  SCRATCH=$(mktemp -d "$ROOT/target/docker.XXXXXX")
  export CHROOTS SCRATCH
  scripts/chroot.sh make "$SUITE"
  # What is mounted there goes with it, however it ends.
  unshare --mount --propagation private tests/docker.sh inside || status=$?
  rm -rf "$SCRATCH"
  return "$status"
}

inside() {
  local container
  RUST_VERSION=$(sed -n 's/^ARG RUST_VERSION=//p' Dockerfile)
  say "stand-ins for $(base rust) and $(base postgres)"
  stand_in_for_rust
  stand_in_for_postgres
  say 'the Dockerfile'
  mkdir "$SCRATCH/context"
  git archive HEAD | tar -x -C "$SCRATCH/context"
  build bud --isolation chroot --pull-never --build-arg "PG_MAJOR=$MAJOR" --tag partition_router "$SCRATCH/context"
  container=$(build from --pull-never partition_router)
  local -a command
  mapfile -t command < <(build inspect --type container --format '{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' "$container" | sed '/^$/d')
  [[ ${command[0]} == postgres ]] || die "the image starts ${command[*]}"
  build copy --quiet "$container" tests/packaged.sh /tmp/packaged.sh >/dev/null
  # shellcheck disable=SC2016 # bash there expands it
  build run --isolation chroot "$container" -- bash -c 'set -euo pipefail; source /tmp/packaged.sh; migrate_there "$@"' \
    bash "/usr/lib/postgresql/$MAJOR/bin" "${command[@]:1}"
  say "built the image and migrated a table in it"
}

if [[ ${1:-} == inside ]]; then inside; else main; fi
