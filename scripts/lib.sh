# shellcheck shell=bash
# What every script here shares: messages, and where PostgreSQL is. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' CYAN=$'\e[36m' RESET=$'\e[0m'
else
  BOLD='' DIM='' RED='' GREEN='' CYAN='' RESET=''
fi
export ROOT BOLD DIM RED GREEN CYAN RESET

say() { printf '%s==>%s %s%s%s\n' "$CYAN" "$RESET" "$BOLD" "$*" "$RESET"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$RED" "$RESET" "$*" >&2; }
die() {
  printf '%serror:%s %s\n' "$RED" "$RESET" "$*" >&2
  exit 1
}

is_root() { [[ $(id -u) -eq 0 ]]; }

# Seconds since the epoch, with milliseconds.
now() { date +%s.%3N; }

# elapsed START [END]: the seconds between two results of now.
elapsed() { awk -v a="$1" -v b="${2:-$(now)}" 'BEGIN { printf "%.1f", b - a }'; }

# 1234567 -> 1,234,567
thousands() { sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta' <<<"$1"; }

# The pg_config to use: PG_CONFIG when given, else the one in the path, else the newest that the
# distribution's packages put elsewhere. Prints nothing when there is none.
find_pg_config() {
  local found
  if [[ -n ${PG_CONFIG:-} ]]; then
    command -v "$PG_CONFIG" || true
  elif found=$(command -v pg_config) && [[ -d $("$found" --bindir 2>/dev/null) ]]; then
    echo "$found"
  else
    compgen -G '/usr/lib/postgresql/*/bin/pg_config' | sort -V | tail -n 1 || true
  fi
}

# pg_major PG_CONFIG: "PostgreSQL 15.4 (Debian …)" -> 15
pg_major() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# debian_with MAJOR: the release of Debian that has this version of PostgreSQL.
debian_with() {
  case $1 in
    15) echo bookworm ;;
    17) echo trixie ;;
    18) echo forky ;;
    *) die "no release of Debian is known here to have PostgreSQL $1" ;;
  esac
}

# Sets PG_CONFIG, PG_BIN and PG_MAJOR, or says what to do.
require_postgres() {
  local found
  found=$(find_pg_config)
  [[ -n $found ]] || die "no ${PG_CONFIG:-pg_config} here: run scripts/setup.sh, or name one with PG_CONFIG=…"
  PG_CONFIG=$found
  PG_BIN=$("$PG_CONFIG" --bindir)
  PG_MAJOR=$(pg_major "$PG_CONFIG")
  [[ -x $PG_BIN/postgres ]] || die "$PG_BIN has no postgres server: run scripts/setup.sh"
  export PG_CONFIG PG_BIN PG_MAJOR
}

# The path that `cargo pgrx init` recorded for this major version is the one that a plain `cargo build`
# uses. When PG_CONFIG is another installation of the same version, it has to be told.
use_configured_pgrx() {
  local config=${PGRX_HOME:-$HOME/.pgrx}/config.toml path
  [[ -r $config ]] || die "cargo-pgrx is not set up: run scripts/setup.sh"
  path=$(sed -n "s/^pg$PG_MAJOR *= *\"\(.*\)\"/\1/p" "$config")
  [[ -n $path && $("$path" --bindir) == "$PG_BIN" ]] || export PGRX_PG_CONFIG_PATH=$PG_CONFIG
}

# as_postgres COMMAND …: PostgreSQL refuses to run as root, so as root it runs as postgres.
as_postgres() {
  if ! is_root; then
    "$@"
  elif command -v runuser >/dev/null; then
    runuser -u postgres -- "$@"
  else
    # shellcheck disable=SC2016 # sh expands it
    su postgres -s /bin/sh -c 'exec "$0" "$@"' -- "$@"
  fi
}
