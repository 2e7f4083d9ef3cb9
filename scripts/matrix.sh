#!/usr/bin/env bash
# The tests on the other versions of PostgreSQL, each in a Debian that has it (scripts/chroot.sh). As root.
#
#   matrix.sh [all|slice] [MAJOR …]   17 (trixie) and 18 (forky) unless told otherwise
#
# All runs every test, slice the session tests of MATRIX_TESTS, for CI. Ends with 3 where no test failed, and a version could not be had: without
# root, without the right to mount, without a mirror, or while the packages of a Debian that is not released cannot be installed. The extension is a debug build, as for tests it is that of
# the same compilation; each version has a directory of its own under target/matrix.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What meets the server's internals, its catalog and its grammar, where versions differ, and what stands around it.
read -ra SLICE <<<"${MATRIX_TESTS:-smoke sync parity routing switchover observe errors docs feed seeing backup security}"

# Within the chroot.
inside() {
  local mode=$1 major=$2
  shift 2
  cd "$ROOT"
  export PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
  scripts/setup.sh test || exit 3
  require_postgres
  use_configured_pgrx
  say "PostgreSQL $major: $("$PG_CONFIG" --version)"
  local -a features=(--no-default-features --features "pg$major")
  # They install a build of their own, which the next step replaces.
  local status=0
  [[ $mode == slice ]] || scripts/test.sh unit || status=1
  cargo pgrx install --pg-config "$PG_CONFIG" "${features[@]}"
  local -a tests=(--test '*')
  [[ $mode == all ]] || mapfile -t tests < <(printf -- '--test\n%s\n' "${SLICE[@]}")
  cargo test "${tests[@]}" "${features[@]}" --no-fail-fast -- --test-threads=2 || status=1
  return "$status"
}

main() {
  if [[ ${1:-} == inside ]]; then
    shift
    inside "$@"
    return
  fi
  local mode=all major suite status missing=0 failed=()
  if [[ ${1:-} == all || ${1:-} == slice ]]; then
    mode=$1
    shift
  fi
  (($#)) || set -- 17 18
  for major in "$@"; do
    suite=$(debian_with "$major")
    local directory=$ROOT/target/matrix/$major start
    mkdir -p "$directory/pgrx"
    start=$(now)
    status=0
    scripts/chroot.sh make "$suite" || status=3
    ((status)) || CARGO_TARGET_DIR=$directory PGRX_HOME=$directory/pgrx PG_CONFIG='' \
      scripts/chroot.sh run "$suite" scripts/matrix.sh inside "$mode" "$major" || status=$?
    case $status in
      0) note "PostgreSQL $major: ${GREEN}ok${RESET} in $(elapsed "$start") s" ;;
      3) note "PostgreSQL $major: ${RED}cannot be had${RESET}" && missing=3 ;;
      *) note "PostgreSQL $major: ${RED}failed${RESET} after $(elapsed "$start") s" && failed+=("$major") ;;
    esac
  done
  ((${#failed[@]} == 0)) || die "failed on PostgreSQL ${failed[*]}"
  return "$missing"
}

cd "$ROOT"
main "$@"
