#!/usr/bin/env bash
# One throwaway PostgreSQL cluster, on a unix socket only: the helper that tests, demo and benches share.
#
#   cluster.sh start DIR [-c name=value …]   initdb when there is none yet, start, print how to connect
#   cluster.sh restart DIR [-c name=value …] fast stop, start
#   cluster.sh standby DIR OF [-c …]         a hot standby of the running cluster in OF, by pg_basebackup
#   cluster.sh stop DIR                      fast shutdown
#   cluster.sh kill DIR                      immediate shutdown: the next start recovers from the WAL
#   cluster.sh crash DIR                     SIGKILL to the postmaster, and wait until its children are gone
#   cluster.sh destroy DIR                   immediate shutdown, and remove all that start made
#   cluster.sh env DIR                       print how to connect
#
# As root the server runs as user postgres. When that user cannot reach DIR (under /root, say), the
# cluster lives in a directory under /tmp; DIR/where always holds the real place: data, log and socket
# lie in it. Settings given with -c stay for later starts. PG_CONFIG picks another PostgreSQL.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A unix socket's path may have 107 bytes, and ours ends in /.s.PGSQL.5432.lock.
readonly SOCKET_DIR_MAX=85

usage() {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# --- where things are ---------------------------------------------------------------------------

real_place() {
  [[ -r $DIR/where ]] || die "no cluster in $DIR"
  PLACE=$(<"$DIR/where")
  DATA=$PLACE/data
}

# A directory that the server's user owns.
own_dir() {
  mkdir -p "$1"
  chmod "$2" "$1"
  ! is_root || chown postgres: "$1"
}

# Fills DIR/where, data, log and socket, at a place that the server's user can reach.
make_place() {
  mkdir -p "$DIR"
  PLACE=$DIR
  own_dir "$DIR/data" 0700
  if ! as_postgres test -w "$DIR/data"; then
    rmdir "$DIR/data"
    PLACE=$(mktemp -d /tmp/partition_router.XXXXXX)
    chmod 0755 "$PLACE"
    own_dir "$PLACE/data" 0700
    ln -sfn "$PLACE/log" "$DIR/log"
  fi
  DATA=$PLACE/data
  : >"$PLACE/log"
  ! is_root || chown postgres: "$PLACE/log"
  make_socket_dir
  echo "$PLACE" >"$DIR/where"
}

make_socket_dir() {
  if ((${#PLACE} + 7 <= SOCKET_DIR_MAX)); then
    own_dir "$PLACE/socket" 0755
  else
    local short
    short=$(mktemp -d /tmp/pr_socket.XXXXXX)
    own_dir "$short" 0755
    ln -sfn "$short" "$PLACE/socket"
  fi
}

socket_dir() { readlink -f "$PLACE/socket"; }

# --- settings -----------------------------------------------------------------------------------

base_settings() {
  cat <<-CONF
	listen_addresses = ''
	unix_socket_directories = '$(socket_dir)'
	port = 5432
	timezone = 'UTC'
	log_timezone = 'UTC'
	log_line_prefix = '%m [%p] %a '
	shared_buffers = '256MB'
	maintenance_work_mem = '128MB'
	max_connections = 100
	max_prepared_transactions = 20
	max_locks_per_transaction = 256
	max_wal_size = '4GB'
	checkpoint_timeout = '15min'
	fsync = off
	full_page_writes = off
	jit = off
	include_dir = 'conf.d'
	CONF
}

# setting name=value: a line of postgresql.conf, quoted as it wants.
setting() {
  [[ $1 == ?*=* ]] || die "-c wants name=value, not $1"
  local value=${1#*=}
  value=${value//\\/\\\\}
  printf "%s = '%s'\n" "${1%%=*}" "${value//\'/\'\'}"
}

add_settings() {
  while (($#)); do
    [[ $1 == -c && $# -ge 2 ]] || usage
    setting "$2" >>"$DATA/conf.d/given.conf"
    shift 2
  done
}

# --- verbs --------------------------------------------------------------------------------------

init_cluster() {
  local out
  if ! out=$(as_postgres "$PG_BIN/initdb" -D "$DATA" -A trust -U postgres -E UTF8 --locale=C.UTF-8 \
    --no-sync 2>&1); then
    die "initdb failed: $out"
  fi
  mkdir "$DATA/conf.d"
  base_settings >>"$DATA/postgresql.conf"
}

running() { as_postgres "$PG_BIN/pg_ctl" -D "$DATA" status >/dev/null 2>&1; }

start() {
  if [[ -r $DIR/where ]]; then
    real_place
    ! running || die "the cluster in $DIR is running already"
  else
    make_place
    init_cluster
  fi
  add_settings "$@"
  if ! as_postgres "$PG_BIN/pg_ctl" -D "$DATA" -l "$PLACE/log" -w -t 120 start >/dev/null 2>&1 </dev/null; then
    tail -n 20 "$PLACE/log" >&2
    die "the server did not start: see $PLACE/log"
  fi
  print_env
}

standby() {
  local primary=$1
  shift
  [[ ! -e $DIR/where ]] || die "there is a cluster in $DIR"
  [[ -r $primary/where ]] || die "no cluster in $primary"
  make_place
  local out
  if ! out=$(as_postgres "$PG_BIN/pg_basebackup" -h "$(readlink -f "$(<"$primary/where")/socket")" -p 5432 -U postgres -D "$DATA" \
    --write-recovery-conf --checkpoint=fast --no-sync 2>&1); then
    die "pg_basebackup failed: $out"
  fi
  setting "unix_socket_directories=$(socket_dir)" >>"$DATA/conf.d/given.conf"
  start "$@"
}

# stop_server fast|immediate: nothing to do when it does not run.
stop_server() {
  real_place
  ! running || as_postgres "$PG_BIN/pg_ctl" -D "$DATA" -m "$1" -w -t 120 stop >/dev/null
}

crash() {
  real_place
  local postmaster pid children tries
  postmaster=$(head -n 1 "$DATA/postmaster.pid")
  children=$(ps -o pid= --ppid "$postmaster" || true)
  kill -KILL "$postmaster"
  for pid in $children $postmaster; do
    for ((tries = 0; tries < 500; tries++)); do
      [[ -d /proc/$pid ]] || break
      sleep 0.02
    done
  done
  # A container whose first process reaps nobody keeps the postmaster as a zombie, and the next start
  # would take it for alive.
  ! grep -qs '^State:.*Z' "/proc/$postmaster/status" || rm -f "$DATA/postmaster.pid"
}

destroy() {
  [[ -e $DIR/where ]] || return 0
  stop_server immediate
  local socket
  socket=$(socket_dir)
  [[ $socket == "$PLACE/socket" ]] || rm -rf "$socket"
  rm -rf "$DATA" "$PLACE/socket" "$PLACE/log" "$DIR/log" "$DIR/where"
  [[ $PLACE == "$DIR" ]] || rmdir "$PLACE"
  rmdir "$DIR" 2>/dev/null || true
}

print_env() {
  printf 'PGHOST=%q\nPGPORT=5432\nPGUSER=postgres\nPGDATABASE=postgres\n' "$(socket_dir)"
}

main() {
  (($# >= 2)) || usage
  local verb=$1
  DIR=$(realpath -m -- "$2")
  shift 2
  if [[ $verb == standby ]]; then
    (($#)) || usage
    set -- "$(realpath -m -- "$1")" "${@:2}"
  fi
  require_postgres
  cd / # the server's user may not be allowed to stand here
  case $verb in
    start) start "$@" ;;
    restart) stop_server fast && start "$@" ;;
    standby) standby "$@" ;;
    stop) stop_server fast ;;
    kill) stop_server immediate ;;
    crash) crash ;;
    destroy) destroy ;;
    env) real_place && print_env ;;
    *) usage ;;
  esac
}

main "$@"
