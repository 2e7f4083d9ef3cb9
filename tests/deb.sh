#!/usr/bin/env bash
# Installs the package that `make deb` has made onto a Debian that has nothing yet, migrates a table there, and removes it.
#
#   tests/deb.sh [MAJOR]   of the PostgreSQL of PG_CONFIG unless told otherwise
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Within the chroot, with what is printed at its end.
inside() {
  local major=$1 deb=$2
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  # The package's own dependencies bring the server.
  apt-get -qq -y install --no-install-recommends "./$deb" >/tmp/apt.log 2>&1 || { cat /tmp/apt.log && exit 1; }
  # shellcheck source=tests/packaged.sh
  source tests/packaged.sh
  (migrate_there "/usr/lib/postgresql/$major/bin")
  apt-get -qq -y remove "postgresql-$major-partition-router" >/dev/null
  ! find /usr -name '*partition_router*' | grep . || { echo 'files stayed behind' >&2 && exit 1; }
  echo "installed, migrated and removed $deb on $(. /etc/os-release && echo "$PRETTY_NAME")"
}

if [[ ${1:-} == inside ]]; then
  inside "$2" "$3"
else
  # shellcheck source=scripts/lib.sh
  source scripts/lib.sh
  require_postgres
  major=${1:-$PG_MAJOR}
  debs=(target/deb/"postgresql-$major"-partition-router_*.deb)
  exec scripts/chroot.sh clean "$(debian_with "$major")" tests/deb.sh inside "$major" "${debs[0]}"
fi
