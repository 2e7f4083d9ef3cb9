#!/usr/bin/env bash
# Builds the extension in release mode and installs it into the PostgreSQL of PG_CONFIG.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

require_postgres
use_configured_pgrx
cd "$ROOT"

say "building and installing for PostgreSQL $PG_MAJOR"
arguments=(--release --pg-config "$PG_CONFIG" --no-default-features --features "pg$PG_MAJOR")
if ! [[ -w $("$PG_CONFIG" --pkglibdir) && -w $("$PG_CONFIG" --sharedir)/extension ]]; then
  command -v sudo >/dev/null || die "$("$PG_CONFIG" --pkglibdir) is not yours to write to, and there is no sudo"
  arguments+=(--sudo)
fi
start=$(now)
cargo pgrx install "${arguments[@]}"
note "installed in $(elapsed "$start") s"
