#!/usr/bin/env bash
# As RUSTC_WRAPPER, with DOCS_RS=1: the bindings of PostgreSQL that pgrx brings along for its own documentation, instead of those made
# from headers. So the code is checked for versions of which no headers are here (scripts/lint.sh).
set -euo pipefail

rustc=$1
shift
if [[ " $* " == *' --crate-name pgrx_pg_sys '* ]]; then
  set -- "$@" --cfg docsrs
fi
exec "$rustc" "$@"
