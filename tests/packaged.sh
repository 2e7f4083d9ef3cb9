# shellcheck shell=bash
# What every kind of package is tried with: a server of its own, and a migration. Sourced where the package is installed, as root.

# migrate_there BIN [OPTION …]: starts a server with these options, migrates a table, and stops the server.
migrate_there() {
  local bin=$1 answer
  shift
  cd /tmp || exit
  as() { runuser -u postgres -- "$@"; }
  as "$bin/initdb" -D /tmp/data -A trust >/dev/null
  as "$bin/pg_ctl" -D /tmp/data -o "-c unix_socket_directories=/tmp -c listen_addresses='' $*" -l /tmp/log -w start >/dev/null ||
    { cat /tmp/log >&2 && exit 1; }
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
}
