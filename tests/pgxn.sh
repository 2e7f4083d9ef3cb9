#!/usr/bin/env bash
# What PGXN's client does with the sources: reads META.json, runs `make all`, `make install` and `make installcheck`, and takes the files
# away again. Into a copy of the PostgreSQL of PG_CONFIG, which stays as it is; as root, or whoever may run a server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

# A PostgreSQL finds its files beside its programs, wherever they are.
copy_postgres() {
  local place=$1 directory
  for directory in --bindir --pkglibdir --sharedir; do
    directory=$("$PG_CONFIG" "$directory")
    mkdir -p "$place$directory"
    cp -rL "$directory/." "$place$directory"
  done
  # The client asks whether it may write here.
  mkdir -p "$place$("$PG_CONFIG" --libdir)"
  directory=$("$PG_CONFIG" --includedir-server)
  mkdir -p "$place${directory%/*}"
  ln -s "$directory" "$place$directory"
  chmod -R a+rX "$place"
}

main() {
  local pgxn archive version
  require_postgres
  version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
  pgxn=target/pgxnclient/bin/pgxn
  [[ -x $pgxn ]] || die 'no client of PGXN here: scripts/setup.sh packages installs it'
  SCRATCH=$(mktemp -d /tmp/partition_router_pgxn.XXXXXX)
  trap 'rm -rf "$SCRATCH"' EXIT
  chmod a+rx "$SCRATCH"
  copy_postgres "$SCRATCH"
  archive=$SCRATCH/partition_router-$version.zip
  git archive --format zip --prefix "partition_router-$version/" --output "$archive" HEAD

  # What is tried is the way, not how fast the result is.
  export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
  # The client unpacks anew for each command: what is built is kept between them.
  export CARGO_TARGET_DIR=$ROOT/target/pgxn TMPDIR=$SCRATCH
  local -a where=(--pg_config "$SCRATCH$("$PG_CONFIG" --bindir)/pg_config" --yes)
  "$pgxn" install "${where[@]}" --nosudo "$archive"
  compgen -G "$SCRATCH$("$PG_CONFIG" --pkglibdir)/partition_router.so" >/dev/null || die 'nothing was installed'
  "$pgxn" check "${where[@]}" "$archive"
  "$pgxn" uninstall "${where[@]}" --nosudo "$archive"
  ! find "$SCRATCH$("$PG_CONFIG" --pkglibdir)" "$SCRATCH$("$PG_CONFIG" --sharedir)" -name '*partition_router*' | grep . ||
    die 'files stayed behind'
  say "installed, checked and removed ${archive##*/} with PGXN's client"
}

main
