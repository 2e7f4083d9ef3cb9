# shellcheck shell=bash
# What the parts of the benchmark share: the server, tables of one shape, stopwatches. Sourced by run.sh.

SQL=$HERE/sql

# --- one server ---------------------------------------------------------------------------------

start_cluster() {
  say "a throwaway PostgreSQL $PG_MAJOR: synchronous_commit off, shared_buffers 2GB, autovacuum off"
  "$ROOT/scripts/cluster.sh" destroy "$BENCH/cluster"
  local settings
  settings=$("$ROOT/scripts/cluster.sh" start "$BENCH/cluster" -c synchronous_commit=off -c shared_buffers=2GB \
    -c autovacuum=off -c max_wal_size=8GB -c maintenance_work_mem=256MB -c max_locks_per_transaction=512 \
    -c max_worker_processes=16)
  set -a
  # shellcheck disable=SC1090 # what cluster.sh prints
  source /dev/stdin <<<"$settings"
  set +a
  trap '"$ROOT/scripts/cluster.sh" destroy "$BENCH/cluster"' EXIT
  PLACE=$(<"$BENCH/cluster/where")
  POSTMASTER=$(head -n 1 "$PLACE/data/postmaster.pid")
  sql public -c 'CREATE EXTENSION partition_router'
  sql public -v rows="$BENCH_ROWS" -f "$SQL/source.sql"
  FIRST=$(sql public -Atc 'SELECT bench.first_month()')
}

# sql SCHEMA ARGUMENTS…: psql with that schema in its search_path.
sql() {
  local schema=$1
  shift
  PGOPTIONS="-c search_path=$schema,public -c client_min_messages=warning" \
    "${ALONE[@]}" "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"
}
ALONE=()

# has_setting NAME: whether the installed extension knows it.
has_setting() {
  [[ $(sql public -Atc "LOAD 'partition_router'" -c "SELECT count(*) FROM pg_settings WHERE name = '$1'") == 1 ]]
}

# --- tables of one shape ------------------------------------------------------------------------

# filled FILE: the file, with the tables that are written and followed.
filled() { sed "s/@from@/$FROM/g; s/@to@/$TO/g; s/@key@/$KEY/g" "$SQL/$1.sql"; }

# direction forward|reverse|alone: which table the applications write; alone it is the only one.
direction() {
  if [[ $1 == forward ]]; then
    FROM=revenues TO=revenues_partitioned KEY='id, occurred_at'
  elif [[ $1 == alone ]]; then
    FROM=revenues TO=revenues KEY='id, occurred_at'
  else
    FROM=revenues_partitioned TO=revenues KEY=id
  fi
}

COLUMNS_BUT_ID='org_id, property_id, amount_cents, occurred_at, description, category, payment_method, status,
  created_by_user_id, created_at, updated_at'

# drop_schema SCHEMA: with the pairs in it.
drop_schema() {
  sql public -c "SELECT partition_router.abandon(c.oid) FROM partition_router.pair p JOIN pg_class c ON c.oid = p.legacy
    WHERE c.relnamespace = to_regnamespace('$1')" -c "DROP SCHEMA IF EXISTS $1 CASCADE" >/dev/null
}

# legacy SCHEMA ROWS: a new schema with the legacy alone.
legacy() {
  drop_schema "$1"
  sql "$1" -c "CREATE SCHEMA $1" -f "$SQL/schema.sql"
  (($2 == 0)) || sql "$1" -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT * FROM bench.rows($2)"
}

# in_step SCHEMA VARIANT: the twin, and what keeps it in step with the legacy in the direction set.
in_step() {
  case $2 in
    live) sql "$1" -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0)" ;;
    capture) sql "$1" -c "SELECT FROM partition_router.create_twin('revenues', 'occurred_at', premake => 0)" \
      -c "SELECT partition_router.start_sync('revenues')" >/dev/null ;;
    *)
      sql "$1" -f "$SQL/twin.sql" -c 'INSERT INTO revenues_partitioned SELECT * FROM revenues' -f "$SQL/twin_indexes.sql"
      [[ $2 != row && $2 != statement ]] || filled "$2_trigger" | sql "$1"
      [[ $2 != nothing ]] || filled nothing_trigger | sql "$1" -v library="$(compiled floor)"
      [[ $2 != floor ]] || sql "$1" -c "CREATE FUNCTION sync_floor() RETURNS trigger LANGUAGE c AS '$(compiled floor)', 'floor_write'" \
        -c "CREATE TRIGGER sync_floor AFTER INSERT OR UPDATE OR DELETE ON $FROM FOR EACH ROW EXECUTE FUNCTION sync_floor('$1.$TO')"
      ;;
  esac
  sql "$1" -c 'VACUUM ANALYZE revenues' -c 'VACUUM ANALYZE revenues_partitioned'
}

# compiled NAME: the shared library of benches/sql/NAME.c.
compiled() {
  [[ $PLACE/$1.so -nt $SQL/$1.c ]] || gcc -O2 -shared -fPIC -I"$("$PG_CONFIG" --includedir-server)" -o "$PLACE/$1.so" "$SQL/$1.c"
  echo "$PLACE/$1.so"
}

# equal SCHEMA VARIANT: a fast dual write that loses rows is worth nothing.
equal() {
  [[ $2 != none && $2 != nothing && $2 != capture ]] || return 0
  local differing
  differing=$(sql "$1" -Atc "SELECT count(*) FROM revenues l FULL JOIN revenues_partitioned t
    ON l.id = t.id AND l.occurred_at = t.occurred_at WHERE l.id IS NULL OR t.id IS NULL OR ROW(l.*) IS DISTINCT FROM ROW(t.*)")
  [[ $differing == 0 ]] || die "variant $2 left $differing rows that differ in schema $1"
}

# --- measuring ----------------------------------------------------------------------------------

# keep GROUP WORK VARIANT VALUE: a line of the part's results. The n-th value of each variant is of the same round.
keep() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$BENCH/$PART.tsv"; }

# timed SCHEMA STATEMENT…: milliseconds of the last statement, as psql's \timing has them. BENCH_ALONE may name a command that gives
# the machine to the command behind it.
timed() {
  local schema=$1 arguments=() statement ALONE=()
  [[ -z ${BENCH_ALONE:-} ]] || ALONE=("$BENCH_ALONE")
  shift
  for statement in "$@"; do arguments+=(-c "$statement"); done
  sql "$schema" -c '\timing on' "${arguments[@]}" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n 1
}

# rotated N WORD…: the words, the N-th first: no variant always has the same neighbour and the same minute.
rotated() {
  local n=$1
  shift
  n=$((n % $#))
  echo "${@:n+1}" "${@:1:n}"
}

# pin / unpin: server and clients on one core, where a statement costs what it computes; free to move, a third of the
# time is two processes waking each other across cores, which varies more than the differences to be measured.
ON_ONE_CORE=()
pin() {
  if (($(nproc) > 1)) && command -v taskset >/dev/null; then
    taskset -cp "$(($(nproc) - 1))" "$POSTMASTER" >/dev/null
    ON_ONE_CORE=(taskset -c "$(($(nproc) - 1))")
  fi
}
unpin() {
  ((${#ON_ONE_CORE[@]} == 0)) || taskset -cp "0-$(($(nproc) - 1))" "$POSTMASTER" >/dev/null
  ON_ONE_CORE=()
}

# slice SCHEMA SCRIPT TRANSACTIONS VARIABLES…: microseconds of one transaction of a script, one client, prepared or in the
# MODE given, in a session with the OPTIONS given; the mean
# without the slowest 2 % (or what KEPT leaves out), which are the first of the session and those that something else
# interrupted.
slice() {
  local schema=$1 script=$2 transactions=$3
  shift 3
  rm -f "$BENCH"/slice.*
  PGOPTIONS="-c search_path=$schema,public ${OPTIONS:-}" "${ON_ONE_CORE[@]}" "$PG_BIN/pgbench" -n -M "${MODE:-prepared}" -c 1 -t "$transactions" \
    -l --log-prefix="$BENCH/slice" -D first="$FIRST" "$@" -f "$script" >/dev/null 2>"$BENCH/pgbench.err" ||
    die "pgbench failed: $(tail -n 3 "$BENCH/pgbench.err")"
  awk '{ print $3 }' "$BENCH"/slice.* | sort -n |
    awk -v kept="${KEPT:-0.98}" '{ v[NR] = $1 } END { k = int(NR * kept); for (i = 1; i <= k; i++) s += v[i]; printf "%.2f\n", s / k }'
}

# anonymous: kilobytes of private memory (RssAnon) of all the server's processes.
anonymous() {
  local total=0 pid kb
  for pid in $(ps -o pid= --ppid "$POSTMASTER"); do
    kb=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null) || true
    total=$((total + ${kb:-0}))
  done
  echo "$total"
}
