#!/usr/bin/env bash
# The demo: a live database moves to partitioned tables while clerks keep writing, and nothing is lost.
# Wants the extension installed (make demo does that first).
#
#   ROWS       revenues to load (default 1,000,000)
#   LOAD_RATE  transactions a second of the load (default 200)
#   KEEP       when set, the server stays up at the end, to look around
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/demo_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/demo_lib.sh"

ROWS=${ROWS:-1000000}
LOAD_RATE=${LOAD_RATE:-200}
DEMO=$ROOT/target/demo
LOGS=$DEMO/logs
CLUSTER=$DEMO/cluster
TABLES=(revenues expenses daily_cash_balances)
declare -A MIGRATE_SECONDS ROW_COUNT MISMATCHES

# --- before -------------------------------------------------------------------------------------

start_cluster() {
  say "a throwaway PostgreSQL $PG_MAJOR under ${CLUSTER#"$ROOT"/}"
  local settings
  "$ROOT/scripts/cluster.sh" destroy "$CLUSTER"
  rm -rf "$LOGS"
  mkdir -p "$LOGS"
  settings=$("$ROOT/scripts/cluster.sh" start "$CLUSTER" -c shared_buffers=512MB -c maintenance_work_mem=256MB)
  set -a
  eval "$settings"
  set +a
  PATH=$PG_BIN:$PATH
  show 'CREATE EXTENSION partition_router' \
    "SELECT extname, extversion FROM pg_extension WHERE extname = 'partition_router'"
}

load_data() {
  say "loading $(thousands "$ROWS") revenues, $(thousands $((ROWS / 2))) expenses, $(thousands $((ROWS / 5))) daily cash balances"
  local start line
  start=$(now)
  while IFS= read -r line; do
    printf '    %6s s  %s\n' "$(elapsed "$start")" "$line"
  done < <(
    psql -Xq -v ON_ERROR_STOP=1 -v rows="$ROWS" -f "$ROOT/demo/schema.sql" -f "$ROOT/demo/data.sql" \
      -f "$ROOT/demo/constraints.sql" 2>&1 || echo 'ERROR: psql failed'
  ) | tee "$LOGS/data.log"
  ! grep -q 'ERROR' "$LOGS/data.log" || die "the data did not load: see $LOGS/data.log"
  printf '    %6s s  done\n' "$(elapsed "$start")"
}

begin_load() {
  say "clerks start to write: inserts, updates, moves, deletes, upserts, $LOAD_RATE transactions a second"
  start_load
  LOAD_START=$(now)
  sleep 6
  load_runs || die "the load did not start: $(cat "$LOGS/load.err")"
  note "$(load_now)"
}

# --- migrate ------------------------------------------------------------------------------------

progress_line() {
  sql "SELECT format('%-9s %-6s %10s / %-10s %5s %%  %9s rows/s  eta %s%s', phase, stage,
         to_char(rows_done, 'FM999,999,999'), to_char(rows_total, 'FM999,999,999'), round(percent::numeric, 0),
         coalesce(to_char(rows_per_second, 'FM999,999,999'), '-'), coalesce(date_trunc('second', eta)::text, '-'),
         '  blocked by ' || nullif(blocked_by::text, '{}'))
       FROM partition_router.progress WHERE legacy = '$1'::regclass" 2>&1 || true
}

# migrate TABLE KEY [, more arguments]
migrate() {
  local table=$1 call="CALL partition_router.migrate('$1', '$2'${3:+, $3})" log=$LOGS/migrate_$1.log
  local start pid tick=0
  say "$call"
  start=$(now)
  {
    psql -Xq -v ON_ERROR_STOP=1 -c "$call" >"$log" 2>&1
    now >"$log.end"
  } &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.25
    if ((++tick % 4 == 2)); then
      printf '    %6s s  %s  |  %s\n' "$(elapsed "$start")" "$(progress_line "$table")" "$(load_now)"
    fi
  done
  wait "$pid" || { indent <"$log" && die "migrate of $table failed"; }
  indent <"$log"
  MIGRATE_SECONDS[$table]=$(elapsed "$start" "$(<"$log.end")")
  note "live after ${MIGRATE_SECONDS[$table]} s"
  load_runs || fail "the load did not survive the migration of $table"
}

migrate_all() {
  say 'what would surprise? (preflight)'
  show "SELECT severity, code, message FROM partition_router.preflight('revenues', 'occurred_at')"
  MIGRATE_START=$(now)
  migrate revenues occurred_at
  migrate expenses occurred_at "partition_interval => '3 months'"
  migrate daily_cash_balances org_id "strategy => 'hash', partitions => 16"
  MIGRATE_END=$(now)
}

# --- prove --------------------------------------------------------------------------------------

# verify TABLE LEVEL: prints one line, and sets VERIFIED_ROWS and VERIFIED_BAD.
verify() {
  local result start partitions
  start=$(now)
  result=$(sql "SELECT count(*), sum(legacy_rows), count(*) FILTER (WHERE matches IS NOT TRUE)
                FROM partition_router.verify('$1', '$2')") || { fail "verify of $1 by $2" && return; }
  IFS='|' read -r partitions VERIFIED_ROWS VERIFIED_BAD <<<"$result"
  expect "$(printf '%-20s %-8s %10s rows in %2s partitions, %4s s, mismatches' "$1" "$2" \
    "$(thousands "$VERIFIED_ROWS")" "$partitions" "$(elapsed "$start")")" "$VERIFIED_BAD" 0
}

verify_under_load() {
  local table level
  say 'both sides are equal, by checksum and row by row, while clerks write'
  for table in "${TABLES[@]}"; do
    for level in checksum rows; do
      verify "$table" "$level"
    done
  done
}

verify_at_the_end() {
  local table
  say 'and they are equal at the end'
  for table in "${TABLES[@]}"; do
    verify "$table" rows
    ROW_COUNT[$table]=$VERIFIED_ROWS
    MISMATCHES[$table]=$(sql "SELECT count(*) FROM partition_router.mismatches('$table')")
    expect "$table, mismatches listed" "${MISMATCHES[$table]}" 0
  done
}

# --- observe ------------------------------------------------------------------------------------

observe() {
  say 'what people and machines can see'
  show 'SELECT legacy, twin, phase, strategy, partition_key, partitions, verified_level, retention FROM partition_router.status' \
    'SELECT relation, "check", status, message FROM partition_router.health'
  show_plain 'SELECT jsonb_pretty(partition_router.metrics())'
  expect 'health, checks that fail' "$(sql "SELECT count(*) FROM partition_router.health WHERE status = 'fail'")" 0
}

rate() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%d", (s > 0 ? n / s : 0) }'; }

# --- the story ----------------------------------------------------------------------------------

summary() {
  local table span from to count p50 p99 worst
  say 'summary'
  printf '    %-20s %12s %10s %12s %11s\n' table rows 'migrate s' rows/s mismatches
  for table in "${TABLES[@]}"; do
    printf '    %-20s %12s %10s %12s %11s\n' "$table" "$(thousands "${ROW_COUNT[$table]:-0}")" \
      "${MIGRATE_SECONDS[$table]}" "$(thousands "$(rate "${ROW_COUNT[$table]:-0}" "${MIGRATE_SECONDS[$table]}")")" \
      "${MISMATCHES[$table]:--}"
  done
  printf '\n    %-20s %12s %10s %12s %11s\n' 'what the load saw' transactions 'p50 ms' 'p99 ms' 'worst ms'
  while read -r span from to; do
    read -r count p50 p99 worst < <(latencies "$from" "$to")
    printf '    %-20s %12s %10s %12s %11s\n' "$span" "$count" "$p50" "$p99" "$worst"
  done <<-SPANS
	before $LOAD_START $MIGRATE_START
	migrating $MIGRATE_START $MIGRATE_END
	after $MIGRATE_END $LOAD_END
	SPANS
  local errors
  errors=$(load_errors)
  printf '    %-20s %12s, errors %s\n' 'in all' "$(load_transactions)" "$errors"
  if ((errors > 0)); then
    grep -A 4 'pgbench \(ERROR\|FATAL\)' "$CLUSTER/log" | head -n 20 | indent || true
    fail "the load saw $errors errors: see $LOGS/load.err"
  fi
}

finish() {
  [[ -z $LOAD_PID ]] || kill "$LOAD_PID" 2>/dev/null || true
  if [[ -n ${KEEP:-} && -e $CLUSTER/where ]]; then
    note "the server is still up: psql -h $PGHOST -U postgres (scripts/cluster.sh destroy ${CLUSTER#"$ROOT"/} ends it)"
  else
    [[ ! -r $CLUSTER/log ]] || cp "$CLUSTER/log" "$LOGS/server.log"
    "$ROOT/scripts/cluster.sh" destroy "$CLUSTER"
  fi
}

main() {
  local start
  start=$(now)
  require_postgres
  [[ -r $("$PG_CONFIG" --sharedir)/extension/partition_router.control ]] || die 'the extension is not installed: make install'
  trap finish EXIT
  start_cluster
  load_data
  begin_load
  migrate_all
  verify_under_load
  route_reads
  maintain
  observe
  say 'clerks go home'
  LOAD_END=$(now)
  stop_load
  verify_at_the_end
  summary
  note "$(elapsed "$start") s in all; logs in ${LOGS#"$ROOT"/}"
  if ((${#FAILURES[@]})); then
    printf '    - %s\n' "${FAILURES[@]}" >&2
    die "${#FAILURES[@]} expectations failed"
  fi
  say 'nothing lost'
}

# shellcheck source=scripts/demo_routing.sh
source "$(dirname "${BASH_SOURCE[0]}")/demo_routing.sh"
main "$@"
