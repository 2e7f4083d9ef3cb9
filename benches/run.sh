#!/usr/bin/env bash
# Side by side, in one run: what the dual write, the backfill and the proof cost, against what one would do
# instead. Prints medians, with the least and the most, and ratios. It never passes or fails on time: machines
# differ, and the ratios are what to compare. Wants a release build installed (make bench does that first).
#
#   BENCH_QUICK      when set, small sizes: under two minutes
#   BENCH_ROUNDS     interleaved rounds (default 3)
#   BENCH_ROWS       rows of one bulk INSERT (default 500,000)
#   BENCH_CHANGES    rows of one bulk UPDATE or DELETE (default 100,000)
#   BENCH_COPY_ROWS  rows of the backfill and of the proof (default 3,000,000)
#   BENCH_ONE        one-row statements a measurement (default 20,000)
#   BENCH_PARTS      which parts to run (default "write change copy")
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$HERE/../scripts/lib.sh"

if [[ -n ${BENCH_QUICK:-} ]]; then
  : "${BENCH_ROUNDS:=3}" "${BENCH_ROWS:=20000}" "${BENCH_CHANGES:=5000}" "${BENCH_COPY_ROWS:=200000}" "${BENCH_ONE:=2000}"
else
  : "${BENCH_ROUNDS:=3}" "${BENCH_ROWS:=500000}" "${BENCH_CHANGES:=100000}" "${BENCH_COPY_ROWS:=3000000}" "${BENCH_ONE:=20000}"
fi
: "${BENCH_PARTS:=write change copy}"
BENCH=$ROOT/target/bench
RESULTS=$BENCH/results.tsv
SQL=$HERE/sql

# --- one server, one schema a variant -----------------------------------------------------------

start_cluster() {
  say "a throwaway PostgreSQL $PG_MAJOR: synchronous_commit off, shared_buffers 2GB, autovacuum off"
  "$ROOT/scripts/cluster.sh" destroy "$BENCH/cluster"
  local settings
  settings=$("$ROOT/scripts/cluster.sh" start "$BENCH/cluster" -c synchronous_commit=off -c shared_buffers=2GB \
    -c autovacuum=off -c max_wal_size=16GB -c maintenance_work_mem=256MB)
  set -a
  # shellcheck disable=SC1090 # what cluster.sh prints
  source /dev/stdin <<<"$settings"
  set +a
  trap '"$ROOT/scripts/cluster.sh" destroy "$BENCH/cluster"' EXIT
  sql public -c 'CREATE EXTENSION partition_router'
  sql public -v rows="$BENCH_ROWS" -f "$SQL/source.sql"
  FIRST=$(sql public -Atc 'SELECT bench.first_month()')
}

# sql SCHEMA ARGUMENTS…: psql with that schema in its search_path.
sql() {
  local schema=$1
  shift
  PGOPTIONS="-c search_path=$schema,public -c client_min_messages=warning" \
    "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"
}

# filled FILE: the file, with the tables that are written and followed.
filled() { sed "s/@from@/$FROM/g; s/@to@/$TO/g; s/@key@/$KEY/g" "$SQL/$1.sql"; }

# direction forward|reverse: which table the applications write.
direction() {
  if [[ $1 == forward ]]; then
    FROM=revenues TO=revenues_partitioned KEY='id, occurred_at'
  else
    FROM=revenues_partitioned TO=revenues KEY=id
  fi
}

# fresh VARIANT [FILL]: new tables of the same shape, with FILL rows on both sides, and what keeps them in step.
fresh() {
  local variant=$1 fill=${2:-0}
  sql bench_run -c "SELECT partition_router.abandon(legacy) FROM partition_router.status" \
    -c 'DROP SCHEMA IF EXISTS bench_run CASCADE' -c 'CREATE SCHEMA bench_run' >/dev/null
  sql bench_run -f "$SQL/schema.sql"
  if ((fill > 0)); then
    sql bench_run -c "INSERT INTO revenues (org_id, property_id, amount_cents, occurred_at, description, category,
      payment_method, status, created_by_user_id, created_at, updated_at) SELECT * FROM bench.rows($fill)"
  fi
  case $variant in
    live) sql bench_run -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0)" ;;
    capture) sql bench_run -c "SELECT FROM partition_router.create_twin('revenues', 'occurred_at', premake => 0)" \
      -c "SELECT partition_router.start_sync('revenues')" >/dev/null ;;
    *)
      sql bench_run -f "$SQL/twin.sql" -f "$SQL/twin_indexes.sql" -c 'INSERT INTO revenues_partitioned SELECT * FROM revenues'
      case $variant in
        row) filled row_trigger | sql bench_run ;;
        statement) filled statement_trigger | sql bench_run ;;
      esac
      ;;
  esac
  sql bench_run -c 'VACUUM ANALYZE revenues' -c 'ANALYZE revenues_partitioned' -c 'CHECKPOINT'
}

# --- measuring ----------------------------------------------------------------------------------

keep() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$RESULTS"; }

# timed STATEMENT…: milliseconds of the last statement, as psql's \timing has them.
timed() {
  local arguments=() statement
  for statement in "$@"; do arguments+=(-c "$statement"); done
  sql bench_run -c '\timing on' "${arguments[@]}" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n 1
}

# one FILE VARIABLES…: milliseconds of one statement, one client, prepared.
one() {
  local file=$1
  shift
  filled "$file" >"$BENCH/one.sql"
  PGOPTIONS='-c search_path=bench_run,public' "$PG_BIN/pgbench" -n -M prepared -c 1 -t "$BENCH_ONE" \
    -D first="$FIRST" "$@" -f "$BENCH/one.sql" 2>&1 | sed -n 's/^latency average = \([0-9.]*\) ms/\1/p'
}

# equal VARIANT: a fast dual write that loses rows is worth nothing.
equal() {
  [[ $1 != none && $1 != capture ]] || return 0
  local differing
  differing=$(sql bench_run -Atc "SELECT count(*) FROM revenues l FULL JOIN revenues_partitioned t
    ON l.id = t.id AND l.occurred_at = t.occurred_at WHERE l.id IS NULL OR t.id IS NULL OR ROW(l.*)::text <> ROW(t.*)::text")
  [[ $differing == 0 ]] || die "variant $1 left $differing rows that differ"
}

# --- the parts ----------------------------------------------------------------------------------

part_write() {
  local way variant suffix
  for way in forward reverse; do
    direction "$way"
    for variant in none live capture cte statement row; do
      [[ $way == forward || $variant != capture ]] || continue # the twin takes no writes during the copy
      suffix=
      [[ $variant != cte ]] || suffix=_cte
      fresh "$variant"
      keep "$way" insert_one "$variant" "$(one "insert_one$suffix")"
      sql bench_run -c 'CHECKPOINT'
      keep "$way" insert_bulk "$variant" "$(timed "$(filled "insert_bulk$suffix")")"
      equal "$variant"
    done
  done
}

part_change() {
  local variant rows=$((BENCH_CHANGES + BENCH_ONE))
  direction forward
  for variant in none live row; do
    fresh "$variant" "$rows"
    keep change update_one "$variant" "$(one update_one -D rows="$rows")"
    keep change delete_one "$variant" "$(one delete_one -D id="$BENCH_CHANGES")"
    sql bench_run -c 'CHECKPOINT'
    keep change update_bulk "$variant" \
      "$(timed "UPDATE revenues SET status = 'void', updated_at = now() WHERE id <= $BENCH_CHANGES")"
    sql bench_run -c 'CHECKPOINT'
    keep change delete_bulk "$variant" "$(timed "DELETE FROM revenues WHERE id <= $BENCH_CHANGES")"
    equal "$variant"
  done
}

# The legacy of the copies is made once; each copy starts with an empty twin.
prepare_copy() {
  direction forward
  fresh none "$BENCH_COPY_ROWS"
  sql bench_run -c 'DROP TABLE revenues_partitioned' -c 'VACUUM ANALYZE revenues'
}

part_copy() {
  local copy='INSERT INTO revenues_partitioned SELECT * FROM revenues' rows bare indexes whole
  sql bench_run -f "$SQL/twin.sql" -f "$SQL/twin_indexes.sql" -c 'CHECKPOINT'
  keep copy copy "indexed" "$(timed "$copy")"
  sql bench_run -c 'DROP TABLE revenues_partitioned' -f "$SQL/twin.sql" -c 'CHECKPOINT'
  bare=$(timed "$copy")
  local start
  start=$(now)
  sql bench_run -f "$SQL/twin_indexes.sql"
  indexes=$(awk -v a="$start" -v b="$(now)" 'BEGIN { print 1000 * (b - a) }')
  keep copy copy bare "$(awk -v a="$bare" -v b="$indexes" 'BEGIN { print a + b }')"
  sql bench_run -c 'DROP TABLE revenues_partitioned' \
    -c "SELECT FROM partition_router.create_twin('revenues', 'occurred_at', premake => 0)" \
    -c "SELECT partition_router.start_sync('revenues')" -c 'CHECKPOINT' >/dev/null
  whole=$(timed "CALL partition_router.backfill('revenues')")
  keep copy copy ours "$(sql bench_run -Atc "SELECT 1000 * extract(epoch FROM max(at) FILTER (WHERE stage = 'LIVE')
    - max(at) FILTER (WHERE stage = 'BEGIN')) FROM partition_router.run_log WHERE operation = 'backfill'")"
  keep copy copy whole "$whole"
  rows=$(sql bench_run -Atc 'SELECT count(*) FROM revenues_partitioned')
  ((rows == BENCH_COPY_ROWS + 24)) || die "the backfill copied $rows rows"
  sql bench_run -c 'VACUUM revenues_partitioned'
  local hashed='SELECT sum(hash_record_extended(r, 0)::numeric) FROM'
  keep copy verify count "$(timed 'SELECT (SELECT count(*) FROM revenues), (SELECT count(*) FROM revenues_partitioned)')"
  keep copy verify hash "$(timed "SELECT ($hashed revenues r), ($hashed revenues_partitioned r)")"
  keep copy verify ours "$(timed "SELECT bool_and(matches) FROM partition_router.verify('revenues')")"
  keep copy verify counts "$(timed "SELECT bool_and(matches) FROM partition_router.verify('revenues', 'counts')")"
  sql bench_run -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

# --- all together -------------------------------------------------------------------------------

require_postgres
mkdir -p "$BENCH"
: >"$RESULTS"
start_cluster
began=$(now)
for part in $BENCH_PARTS; do
  [[ $part != copy ]] || prepare_copy
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    say "$part, round $round of $BENCH_ROUNDS ($(elapsed "$began") s)"
    "part_$part"
  done
done
echo
note "$("$PG_BIN/postgres" --version), $(nproc) cores, load $(cut -d ' ' -f 1-3 /proc/loadavg), $(elapsed "$began") s"
note "median, least – most, ratio to the first line of each group"
note "rounds $BENCH_ROUNDS, one-row statements $BENCH_ONE, bulk $(thousands "$BENCH_ROWS"), changes $(thousands "$BENCH_CHANGES"), copy $(thousands "$BENCH_COPY_ROWS")"
echo
awk -F '\t' -v bulk="$BENCH_ROWS" -v changes="$BENCH_CHANGES" -v copy="$BENCH_COPY_ROWS" -f "$HERE/report.awk" "$RESULTS"
