#!/usr/bin/env bash
# Everything that can be said about the code without running it. Runs all checks, then fails if one did.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

FAILED=()

# check NAME COMMAND …
check() {
  local name=$1 start
  shift
  say "$name"
  start=$(now)
  if "$@"; then
    note "${GREEN}ok${RESET} in $(elapsed "$start") s"
  else
    note "${RED}failed${RESET}"
    FAILED+=("$name")
  fi
}

# The documentation is for those who work on the code: the map in lib.rs links to private modules.
rustdoc() { RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --no-deps --document-private-items "$@"; }

# Nothing is looked up online: dependencies are there once the lock file is fetched, and advisories are
# checked when somebody has put a database where cargo-deny looks for it.
deny() {
  local checks=(licenses bans sources)
  cargo fetch --quiet --locked || return
  ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*" >/dev/null || checks+=(advisories)
  cargo deny --offline check "${checks[@]}"
}

scripts() {
  local file
  local -a files=()
  while IFS= read -r file; do
    ! head -n 2 "$file" | grep -qE '^#!.*\b(ba)?sh$|shellcheck shell=' || files+=("$file")
  done < <(find scripts benches tests .ci -type f 2>/dev/null)
  note "${files[*]}"
  shellcheck -x "${files[@]}"
}

# Compiles for every other PostgreSQL: the code must not drift away from them. Headers are not needed, nor are they here on most machines.
other_versions() {
  local major status=0
  while IFS= read -r major; do
    [[ $major != "$PG_MAJOR" ]] || continue
    note "PostgreSQL $major"
    # A directory of its own: these bindings would evict the others.
    DOCS_RS=1 RUSTC_WRAPPER=$ROOT/scripts/bindings_rustc.sh CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/bindings \
      cargo check --quiet --no-default-features --features "pg$major" || status=1
  done < <(sed -n 's/^pg\([0-9]*\) *=.*/\1/p' Cargo.toml)
  return "$status"
}

# The install script, and each upgrade script by itself, for what a hostile search_path could change. What is found and is none is in
# scripts/pgspot.txt, with the reason.
pgspot() {
  local tool=$ROOT/target/pgspot/bin/pgspot name script status=0
  local -a arguments=()
  while IFS= read -r name; do
    [[ -z $name || $name == \#* ]] || arguments+=(--proc-without-search-path "$name")
  done <scripts/pgspot.txt
  script=$(mktemp)
  # The order of lib.rs is that of the extension, for what it matters here: the schema comes first.
  cat sql/schema.sql sql/functions.sql sql/functions/*.sql sql/procedures.sql sql/procedures/*.sql sql/views.sql sql/event_triggers.sql >"$script"
  "$tool" "${arguments[@]}" "$script" || status=1
  for name in sql/partition_router--*.sql; do
    [[ ! -e $name ]] || "$tool" "${arguments[@]}" "$name" || status=1
  done
  rm -f "$script"
  return "$status"
}

main() {
  require_postgres
  use_configured_pgrx
  cd "$ROOT"
  local features=(--no-default-features --features "pg$PG_MAJOR")
  local with_tests=(--no-default-features --features "pg$PG_MAJOR,pg_test")
  check rustfmt cargo fmt --check
  check clippy cargo clippy --all-targets "${features[@]}" -- -D warnings
  check 'clippy, with the tests inside the server' cargo clippy --all-targets "${with_tests[@]}" -- -D warnings
  check rustdoc rustdoc "${features[@]}"
  check 'other PostgreSQL versions' other_versions
  check 'licences, bans, sources' deny
  check shellcheck scripts
  check pgspot pgspot
  ((${#FAILED[@]} == 0)) || die "failed: $(printf '%s; ' "${FAILED[@]}")"
}

main "$@"
