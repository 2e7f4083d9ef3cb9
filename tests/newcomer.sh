#!/usr/bin/env bash
# What the README promises: on a Debian that has Rust, git and make, and nothing else, a clone passes `make demo` and `make test`.
# As root; takes what a first build takes, and ten gigabytes of disk.
#
#   tests/newcomer.sh [SUITE] [TARGET …]   bookworm, and demo and test, unless told otherwise
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

# Within the chroot: what the README says, and no more.
inside() {
  local toolchain=$1 trusted=$2/ca-certificates.crt repository=$3 target
  shift 3
  export DEBIAN_FRONTEND=noninteractive SSL_CERT_FILE=$trusted PATH=$toolchain/bin:$PATH
  apt-get -qq update
  apt-get -qq -y install --no-install-recommends git make >/tmp/apt.log 2>&1 || { cat /tmp/apt.log && exit 1; }
  cd "$HOME"
  git -c safe.directory='*' clone --quiet "$repository" newcomer
  cd newcomer
  for target in "$@"; do
    say "make $target, in $(. /etc/os-release && echo "$PRETTY_NAME")"
    # shellcheck disable=SC2086 # with its variables
    make $target
  done
}

main() {
  local suite=${1:-bookworm} toolchain status=0
  shift || true
  (($#)) || set -- demo test
  toolchain=$(rustc --print sysroot)
  mkdir -p target
  SCRATCH=$(mktemp -d "$ROOT/target/newcomer.XXXXXX")
  # Whom this machine trusts is trusted there: the registry of crates may be behind a mirror.
  cp /etc/ssl/certs/ca-certificates.crt "$SCRATCH/"
  export SCRATCH READABLE=$toolchain
  scripts/chroot.sh clean "$suite" "$ROOT/tests/newcomer.sh" inside "$toolchain" "$SCRATCH" "$ROOT" "$@" || status=$?
  rm -rf "$SCRATCH"
  return "$status"
}

if [[ ${1:-} == inside ]]; then
  shift
  inside "$@"
else
  main "$@"
fi
