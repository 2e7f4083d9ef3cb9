#!/usr/bin/env bash
# A Debian of its own in a directory: one that has another PostgreSQL, or that has nothing yet. As root.
#
#   chroot.sh make SUITE            debootstrap, unless it is there
#   chroot.sh run SUITE COMMAND …   in it, with this repository and the Rust toolchain at their own paths
#   chroot.sh clean SUITE COMMAND … in it as it was made: what the command changes is forgotten. This repository is at
#                                   its own path, to be read, and so are the directories of READABLE (colons between them).
#                                   Changes are kept in memory, or in the directory SCRATCH, which the caller removes
#
# They are in target/chroot, or in CHROOTS. Mounts belong to the command alone and go with it, however it ends.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHROOTS=${CHROOTS:-$ROOT/target/chroot}
readonly PACKAGES=ca-certificates,procps,tzdata,util-linux

# Where this machine has its own packages from, or MIRROR.
mirror() {
  local found=${MIRROR:-}
  # shellcheck disable=SC2016 # apt's own variables
  [[ -n $found ]] || found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    awk '!/security/ && !seen++')
  echo "${found:?apt knows no Debian mirror: set MIRROR}"
}

make_chroot() {
  [[ ! -e $PLACE/.whole ]] || return 0
  command -v debootstrap >/dev/null || die 'no debootstrap here: scripts/setup.sh matrix installs it'
  say "debootstrap $SUITE"
  mkdir -p "$CHROOTS"
  rm -rf "$PLACE"
  local script=$SUITE log=$CHROOTS/$SUITE.log
  # A release that this debootstrap has not heard of is made like unstable.
  [[ -e /usr/share/debootstrap/scripts/$script ]] || script=sid
  debootstrap --variant=minbase "--include=$PACKAGES" "$SUITE" "$PLACE" "$(mirror)" "$script" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2 && die "debootstrap failed: see $log"; }
  # Services do not start when they are installed.
  printf '#!/bin/sh\nexit 101\n' >"$PLACE/usr/sbin/policy-rc.d"
  chmod +x "$PLACE/usr/sbin/policy-rc.d"
  mkdir -p "$PLACE/etc/postgresql-common/createcluster.d"
  echo 'create_main_cluster = false' >"$PLACE/etc/postgresql-common/createcluster.d/none.conf"
  # A mirror may be older than its lists say they last.
  echo 'Acquire::Check-Valid-Until "false";' >"$PLACE/etc/apt/apt.conf.d/99partition_router"
  touch "$PLACE/.whole"
}

# Runs in a mount namespace of its own: enter KIND PLACE PATHS COMMAND …, PATHS separated by colons.
enter() {
  local kind=$1 place=$2 paths=$3 path
  shift 3
  if [[ $kind == clean ]]; then
    local over
    over=$(mktemp -d ${SCRATCH:+"$SCRATCH/XXXXXX"})
    [[ -n ${SCRATCH:-} ]] || mount -t tmpfs tmpfs "$over"
    mkdir "$over/upper" "$over/work" "$over/root"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=$over/upper,workdir=$over/work" "$over/root"
    place=$over/root
  fi
  for path in proc sys dev; do
    mount --rbind "/$path" "$place/$path"
  done
  local -a all
  IFS=: read -ra all <<<"$paths"
  for path in "${all[@]}"; do
    mkdir -p "$place$path"
    mount --bind "$path" "$place$path"
    [[ $kind != clean ]] || mount -o remount,bind,ro "$place$path"
  done
  cat /etc/resolv.conf >"$place/etc/resolv.conf"
  local cargo=${CARGO_HOME:-$HOME/.cargo}
  local -a environment=(HOME="$HOME" LANG=C.UTF-8 PATH="$cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
  if [[ $kind == run ]]; then
    environment+=(CARGO_HOME="$cargo" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}")
    for path in RUST_BACKTRACE PG_CONFIG PGRX_HOME CARGO_TARGET_DIR PARTITION_ROUTER_STRESS PARTITION_ROUTER_SEED PARTITION_ROUTER_SEEDS MATRIX_TESTS; do
      [[ -z ${!path:-} ]] || environment+=("$path=${!path}")
    done
  fi
  # shellcheck disable=SC2016 # sh expands it
  exec chroot "$place" env -i "${environment[@]}" sh -c 'cd "$0" && exec "$@"' "$ROOT" "$@"
}

main() {
  (($# >= 2)) || die 'usage: chroot.sh make|run|clean SUITE [COMMAND …]'
  local verb=$1
  SUITE=$2
  PLACE=$CHROOTS/$SUITE
  shift 2
  is_root || die 'chroot.sh has to be root'
  unshare --mount --propagation private mount --rbind /proc /mnt 2>/dev/null || die 'chroot.sh has to be allowed to mount'
  case $verb in
    make) make_chroot ;;
    run | clean)
      make_chroot
      local paths=$ROOT
      [[ $verb == run || -z ${READABLE:-} ]] || paths+=:$READABLE
      [[ $verb == clean ]] || paths+=:${CARGO_HOME:-$HOME/.cargo}:${RUSTUP_HOME:-$HOME/.rustup}
      exec unshare --mount --propagation private "${BASH_SOURCE[0]}" enter "$SUITE" "$verb" "$PLACE" "$paths" "$@"
      ;;
    enter) enter "$@" ;;
    *) die 'usage: chroot.sh make|run|clean SUITE [COMMAND …]' ;;
  esac
}

main "$@"
