#!/usr/bin/env bash
# Installs what the build needs, each step only when it is missing; quick when all is there.
#
#   setup.sh [build]   PostgreSQL server and headers, compilers, cargo-pgrx and its configuration
#   setup.sh test      the same, and what tests run beside: PgBouncer, sqlsmith, faketime, pg_cron, pg_partman
#   setup.sh lint      the same as build, and the linters
#   setup.sh bench     the same as build, and pg_partman to compare with, where it can be had
#   setup.sh matrix    the same as build, and debootstrap, for scripts/matrix.sh
#   setup.sh packages  the same as matrix, and PGXN's client and buildah, for tests/pgxn.sh and tests/docker.sh
#
# PG_CONFIG picks the PostgreSQL; its packages are installed when it names a version that is not there
# yet (PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config). Works on Debian 12 and later and on Ubuntu, as
# root or with sudo; elsewhere it says what is missing and stops.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly CARGO_PGRX_VERSION=0.18.1
readonly CARGO_DENY_VERSION=0.20.2
readonly PGSPOT_VERSION=0.9.4
readonly PGXNCLIENT_VERSION=1.3.2

PACKAGES=() # Debian packages to install
REASONS=()  # what is missing, for people

# missing PACKAGE WHAT: to be installed from the distribution.
missing() {
  PACKAGES+=("$1")
  REASONS+=("$2 (Debian and Ubuntu: package $1)")
}

have() { command -v "$1" >/dev/null 2>&1; }

# --- what is missing ----------------------------------------------------------------------------

have_libclang() {
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
    { [[ -n ${LIBCLANG_PATH:-} ]] && compgen -G "$LIBCLANG_PATH*/libclang*.so*" >/dev/null; } ||
    { have ldconfig && grep -q libclang <<<"$(ldconfig -p)"; }
}

# The major version to build for, also before PostgreSQL is there.
wanted_major() {
  local found
  found=$(find_pg_config)
  if [[ -n $found ]]; then
    pg_major "$found"
  elif [[ ${PG_CONFIG:-} =~ /postgresql/([0-9]+)/ ]]; then
    echo "${BASH_REMATCH[1]}"
  elif [[ -n ${PG_CONFIG:-} ]]; then
    die "PG_CONFIG=$PG_CONFIG does not exist, and its path does not tell a version to install"
  elif have apt-cache; then
    apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]\{1,\}\)$/\1/p' | head -n 1
  fi
}

check_postgres() {
  local found bin='' major
  found=$(find_pg_config)
  [[ -z $found ]] || bin=$("$found" --bindir)
  if [[ -z $found || ! -x $bin/postgres || ! -x $bin/initdb || ! -x $bin/pgbench ]] ||
    [[ ! -r $("$found" --includedir-server)/postgres.h ]]; then
    major=$(wanted_major)
    # An empty list of packages knows no default version: fetch it and ask again.
    if [[ -z $major ]] && can_apt; then
      apt_update
      major=$(wanted_major)
    fi
    [[ -x $bin/postgres && -x $bin/pgbench ]] || missing "postgresql-${major:-N}" "a PostgreSQL server with pgbench"
    missing "postgresql-server-dev-${major:-N}" "the headers of the PostgreSQL server"
  fi
}

check_tools() {
  have gcc || missing gcc 'a C compiler'
  [[ -r /usr/include/stdio.h ]] || missing libc6-dev 'the headers of the C library'
  have make || missing make make
  have pkg-config || missing pkg-config pkg-config
  have clang || missing clang 'clang'
  have_libclang || missing libclang-dev 'libclang, for bindgen'
  have ps || missing procps ps
  # Tests inside the server switch to user postgres through it; others need it to install.
  have sudo || missing sudo sudo
  cargo_pgrx_present || [[ -r /usr/include/openssl/ssl.h ]] || missing libssl-dev 'the headers of OpenSSL, for cargo-pgrx'
}

check_rust() {
  { have cargo && have rustc; } || die "no Rust here: install it with rustup, then run this again"
  local wanted found
  wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
  found=$(rustc --version | awk '{ print $2 }')
  [[ -z $wanted || $(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
    die "Rust $found is too old: this crate needs $wanted"
}

# component NAME COMMAND …: a part of the Rust toolchain, unless its command runs.
component() {
  local name=$1
  shift
  "$@" --version >/dev/null 2>&1 || rustup component add "$name" || die "no $name here: install it with the Rust toolchain"
}

# --- installing ---------------------------------------------------------------------------------

can_apt() { [[ -r /etc/debian_version ]] && have apt-get && { is_root || have sudo; }; }

# Asks for a password only when somebody is there to give it.
as_root() {
  if is_root; then
    "$@"
  elif [[ -t 0 ]]; then
    sudo "$@"
  else
    sudo -n "$@" || die "sudo wants a password and nobody is here to type it: run this in a terminal, or as root"
  fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y "$@" </dev/null; }

apt_update() {
  [[ -n ${APT_UPDATED:-} ]] || apt_get update
  APT_UPDATED=yes
}

# The server packages would create and start a cluster, which nobody here wants: we only start our own.
# The file goes away again, so that a later install by hand behaves as it always does.
install_packages() {
  ((${#PACKAGES[@]})) || return 0
  if ! can_apt || [[ ${PACKAGES[*]} == *postgresql*-N* ]]; then
    warn 'missing here, and not something this script can install:'
    printf '  - %s\n' "${REASONS[@]}" >&2
    exit 1
  fi
  say "installing ${PACKAGES[*]}"
  apt_update
  local guard=/etc/postgresql-common/createcluster.d/partition_router.conf log
  log=$(mktemp)
  as_root mkdir -p "${guard%/*}"
  as_root sh -c "echo 'create_main_cluster = false' >$guard"
  # Nor a pooler that listens from now on.
  local policy=/usr/sbin/policy-rc.d
  if [[ -e $policy ]]; then policy=''; else as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy"; fi
  local failed=''
  apt_get install --no-install-recommends "${PACKAGES[@]}" >"$log" 2>&1 || failed=yes
  as_root rm -f "$guard" ${policy:+"$policy"}
  if [[ -n $failed ]]; then
    tail -n 30 "$log" >&2
    die "apt-get install failed: the whole output is in $log"
  fi
  rm -f "$log"
}

cargo_pgrx_present() { [[ $(cargo pgrx --version 2>/dev/null) == *" $CARGO_PGRX_VERSION" ]]; }

install_cargo_pgrx() {
  cargo_pgrx_present && return
  say "installing cargo-pgrx $CARGO_PGRX_VERSION (some minutes)"
  cargo install --quiet --locked cargo-pgrx --version "$CARGO_PGRX_VERSION"
}

# `cargo pgrx init` writes its whole configuration anew: what it holds for other versions goes along.
init_pgrx() {
  local config=${PGRX_HOME:-$HOME/.pgrx}/config.toml label path
  local -a arguments=("--pg$PG_MAJOR" "$PG_CONFIG")
  if [[ -r $config ]]; then
    while IFS=$'\t' read -r label path; do
      if [[ $label != "pg$PG_MAJOR" && -x $path ]]; then
        arguments+=("--$label" "$path")
      elif [[ $label == "pg$PG_MAJOR" && -x $path && $(pg_major "$path") == "$PG_MAJOR" ]]; then
        return
      fi
    done < <(sed -n 's/^\(pg[0-9]*\) *= *"\(.*\)"/\1\t\2/p' "$config")
  fi
  say "cargo pgrx init ${arguments[*]}"
  cargo pgrx init --no-run "${arguments[@]}"
}

# --- rivals -------------------------------------------------------------------------------------

# The benchmark does without it where no package is to be had, and says so.
check_rivals() {
  local found package
  found=$(find_pg_config)
  [[ -n $found && ! -r $("$found" --sharedir)/extension/pg_partman.control ]] || return 0
  package=postgresql-$(pg_major "$found")-partman
  if can_apt && [[ -n $(apt-cache policy "$package" 2>/dev/null) ]]; then
    missing "$package" 'pg_partman, to compare with'
  fi
}

# --- what tests run beside ----------------------------------------------------------------------

check_neighbours() {
  local found
  have pgbouncer || [[ -x /usr/sbin/pgbouncer ]] || missing pgbouncer PgBouncer
  have sqlsmith || missing sqlsmith sqlsmith
  have runuser || missing util-linux runuser
  have faketime || missing faketime faketime
  have chromium || missing chromium chromium
  have pdftotext || missing poppler-utils pdftotext
  have redis-server || missing redis-server Redis
  /usr/bin/python3 -c 'import psycopg2' 2>/dev/null || missing python3-psycopg2 psycopg2
  /usr/bin/python3 -c 'import redis' 2>/dev/null || missing python3-redis 'the Redis client of Python'
  /usr/bin/python3 -c 'import yaml' 2>/dev/null || missing python3-yaml 'YAML of Python'
  have prometheus || missing prometheus Prometheus
  have prometheus-postgres-exporter || missing prometheus-postgres-exporter postgres_exporter
  found=$(find_pg_config)
  [[ -n $found && -r $("$found" --sharedir)/extension/pg_cron.control ]] ||
    missing "postgresql-$(wanted_major)-cron" 'pg_cron'
  [[ -n $found && -r $("$found" --sharedir)/extension/pg_partman.control ]] ||
    missing "postgresql-$(wanted_major)-partman" 'pg_partman'
}

# --- linters ------------------------------------------------------------------------------------

check_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null || missing python3-venv 'python3 with venv'; }

check_linters() {
  have shellcheck || missing shellcheck shellcheck
  check_venv
}

install_linters() {
  component clippy cargo clippy
  component rustfmt cargo fmt
  install_from_pypi pgspot "$PGSPOT_VERSION" pgspot
  cargo deny --version >/dev/null 2>&1 && return
  say "installing cargo-deny $CARGO_DENY_VERSION (some minutes)"
  cargo install --quiet --locked cargo-deny --version "$CARGO_DENY_VERSION"
}

# install_from_pypi NAME VERSION PROGRAM [PACKAGE …]: in a place of its own, target/NAME, as Debian's python takes no packages.
install_from_pypi() {
  local name=$1 version=$2 program=$3 place=$ROOT/target/$1
  shift 3
  [[ $("$place/bin/$program" --version 2>&1) != *"$version"* ]] || return 0
  say "installing $name $version"
  rm -rf "$place"
  python3 -m venv "$place"
  "$place/bin/pip" install --quiet --disable-pip-version-check "$@" "$name==$version"
}

check_chroot() {
  have debootstrap || missing debootstrap debootstrap
  have unshare || missing util-linux unshare
}

check_packaging() {
  check_chroot
  check_venv
  have buildah || missing buildah buildah
}

main() {
  local mode=${1:-build}
  [[ $mode =~ ^(build|test|lint|bench|matrix|packages)$ ]] || die 'usage: setup.sh [build|test|lint|bench|matrix|packages]'
  check_rust
  check_postgres
  check_tools
  [[ $mode != test ]] || check_neighbours
  [[ $mode != lint ]] || check_linters
  [[ $mode != bench ]] || check_rivals
  [[ $mode != matrix ]] || check_chroot
  [[ $mode != packages ]] || check_packaging
  install_packages
  require_postgres
  # pgrx writes its bindings with it.
  component rustfmt rustfmt
  install_cargo_pgrx
  init_pgrx
  [[ $mode != lint ]] || install_linters
  # What the client needs itself is no longer part of Python.
  [[ $mode != packages ]] || install_from_pypi pgxnclient "$PGXNCLIENT_VERSION" pgxn setuptools
  note "PostgreSQL $PG_MAJOR ($PG_CONFIG), $(rustc --version | cut -d' ' -f1,2), $(cargo pgrx --version)"
}

main "$@"
