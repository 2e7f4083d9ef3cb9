#!/usr/bin/env bash
# Every test, in three tiers:
#
#   test.sh unit          plain Rust tests, and those that run inside a server (#[pg_test])
#   test.sh sessions      installs the extension, then tests/*.rs: several sessions on a real server
#   test.sh [all]         both, and the totals
#   test.sh installcheck  the first of them, against the extension that is installed
#   test.sh reference     the page that is written from the catalog, against the extension that is installed
#
# As root the servers run as user postgres. The tests inside the server install a debug build of the
# extension, so they come first and the release build replaces it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

OUTPUT=$(mktemp)
trap 'rm -f "$OUTPUT"; remove_pgdata' EXIT

remove_pgdata() { [[ -z ${PGDATA_DIR:-} ]] || rm -rf "$PGDATA_DIR"; }

# run COMMAND …: shows the output, and keeps it for the totals.
run() { "$@" 2>&1 | tee -a "$OUTPUT"; }

features() { printf -- '--no-default-features --features pg%s%s' "$PG_MAJOR" "${1:-}"; }

# What `cargo pgrx test` would set: it has no way to leave tests/*.rs out.
unit() {
  say 'unit tests, and tests inside the server'
  export PGRX_FEATURES="pg$PG_MAJOR pg_test" PGRX_NO_DEFAULT_FEATURES=true PGRX_ALL_FEATURES=false
  export PGRX_BUILD_PROFILE=dev PGRX_NO_SCHEMA=false
  if is_root; then
    PGDATA_DIR=$(mktemp -d /tmp/partition_router_test.XXXXXX)
    chown postgres: "$PGDATA_DIR"
    export CARGO_PGRX_TEST_RUNAS=postgres CARGO_PGRX_TEST_PGDATA=$PGDATA_DIR/data
  fi
  # shellcheck disable=SC2046 # words
  run cargo test --lib $(features ',pg_test') -- --test-threads=2
}

sessions() {
  "$ROOT/scripts/install.sh" || return
  say 'session tests on a real server'
  # shellcheck disable=SC2046 # words
  run cargo test --test '*' $(features) --no-fail-fast -- --test-threads=2 --show-output
}

installcheck() {
  # shellcheck disable=SC2046 # words
  run cargo test --test smoke $(features)
}

reference() {
  # shellcheck disable=SC2046 # words
  run cargo test --test docs $(features) -- the_catalog_page
}

# The last line, counted from what the test runner printed.
totals() {
  awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } }
    END { printf "%d passed, %d failed\n", p, f }' "$OUTPUT"
}

main() {
  require_postgres
  use_configured_pgrx
  cd "$ROOT"
  local tier failed=0
  case ${1:-all} in
    unit | sessions | installcheck | reference) set -- "$1" ;;
    all) set -- unit sessions ;;
    *) die 'usage: test.sh [unit|sessions|installcheck|reference|all]' ;;
  esac
  # A failure in one tier does not hide what the next would say.
  for tier in "$@"; do
    "$tier" || failed=1
  done
  totals
  return "$failed"
}

main "$@"
