#!/usr/bin/env bash
# Builds the extension in release mode for the PostgreSQL of PG_CONFIG, and installs it there.
#
#   install.sh            builds and installs
#   install.sh build      builds only
#   install.sh uninstall  takes the extension's files away again
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# As root, where its directories belong to somebody else.
where_it_belongs() {
  if [[ -w $LIBRARIES && -w $SCRIPTS ]]; then
    "$@"
  else
    command -v sudo >/dev/null || die "$LIBRARIES is not yours to write to, and there is no sudo"
    sudo "$@"
  fi
}

main() {
  local verb=${1:-install} start
  require_postgres
  LIBRARIES=$("$PG_CONFIG" --pkglibdir) SCRIPTS=$("$PG_CONFIG" --sharedir)/extension
  local -a features=(--no-default-features --features "pg$PG_MAJOR")
  start=$(now)
  case $verb in
    build)
      use_configured_pgrx
      say "building for PostgreSQL $PG_MAJOR"
      cargo build --lib --release "${features[@]}"
      note "built in $(elapsed "$start") s"
      ;;
    install)
      use_configured_pgrx
      say "building and installing for PostgreSQL $PG_MAJOR"
      local -a arguments=(--release --pg-config "$PG_CONFIG" "${features[@]}")
      [[ -w $LIBRARIES && -w $SCRIPTS ]] || arguments+=(--sudo)
      cargo pgrx install "${arguments[@]}"
      note "installed in $(elapsed "$start") s"
      ;;
    uninstall)
      where_it_belongs rm -f "$LIBRARIES/partition_router.so" "$SCRIPTS/partition_router.control" "$SCRIPTS"/partition_router--*.sql
      note "the files of PostgreSQL $PG_MAJOR are gone; databases that have the extension keep their tables: DROP EXTENSION first"
      ;;
    *) die 'usage: install.sh [build|install|uninstall]' ;;
  esac
}

cd "$ROOT"
main "$@"
