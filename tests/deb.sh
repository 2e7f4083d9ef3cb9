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
  local bin=/usr/lib/postgresql/$major/bin
  cd /tmp
  as() { runuser -u postgres -- "$@"; }
  as "$bin/initdb" -D /tmp/data -A trust >/dev/null
  as "$bin/pg_ctl" -D /tmp/data -o "-c unix_socket_directories=/tmp -c listen_addresses=''" -l /tmp/log -w start >/dev/null
  local answer
  answer=$(as "$bin/psql" -h /tmp -X -q -A -t -v ON_ERROR_STOP=1 postgres <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION partition_router;
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL);
INSERT INTO t SELECT g, date '2026-01-01' + g FROM generate_series(1, 200) g;
CALL partition_router.migrate('t', 'at');
UPDATE t SET at = at + 31 WHERE id <= 50;
SELECT bool_and(matches) AND sum(twin_rows) = 200 FROM partition_router.verify('t', 'rows');
SQL
  )
  as "$bin/pg_ctl" -D /tmp/data -m fast stop >/dev/null
  [[ $answer == t ]] || { echo "the migration answered $answer" >&2 && exit 1; }
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
