# shellcheck shell=bash
# Part "load": what writers feel of a backfill with default settings. Four clients insert, update and delete at a set
# rate, and pgbench logs every transaction. Kept in milliseconds.

part_load() {
  local round rate
  direction forward
  legacy load "$BENCH_COPY_ROWS"
  sql load -c 'VACUUM ANALYZE revenues' -c CHECKPOINT
  # Half of what the four clients reach alone: where they take all of both cores, any work beside them doubles a wait.
  rate=$(load_clients "$BENCH/load_capacity" -T 5 | sed -n 's/^tps = \([0-9]*\).*/\1/p')
  rate=$((rate * BENCH_LOAD / 100))
  note "load: $rate transactions a second"
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    progress "round $round of $BENCH_ROUNDS"
    load_round "$rate"
  done
  drop_schema load
}

# load_clients LOG ARGUMENTS…: pgbench, with a log of its own.
load_clients() {
  local log=$1 work
  shift
  rm -f "$log".*
  for work in insert_one update_one; do filled "$work" | sed 's/@and@//' >"$BENCH/load_$work.sql"; done
  PGAPPNAME=load PGOPTIONS='-c search_path=load,public' "$PG_BIN/pgbench" -n -M prepared -c 4 -j 1 -l --log-prefix="$log" \
    -D first="$FIRST" -D least=25 -D rows="$BENCH_COPY_ROWS" -D step=1 "$@" \
    -f "$BENCH/load_insert_one.sql@4" -f "$BENCH/load_update_one.sql@5" -f "$SQL/load_delete.sql@1" 2>&1
}

load_round() {
  local clients began live
  load_clients "$BENCH/load_before" -R "$1" -T "$BENCH_LOAD_SECONDS" >/dev/null
  keep load p99 before "$(percentile "$BENCH/load_before" 0 9e12)"
  keep load turn before "$(percentile "$BENCH/load_before" 0 9e12 with)"
  sql load -c "SELECT FROM partition_router.create_twin('revenues', 'occurred_at', premake => 0)" >/dev/null
  load_clients "$BENCH/load_during" -R "$1" -T 600 >"$BENCH/load.out" &
  clients=$!
  sleep 2 # they begin
  began=$(now)
  sql load -c "SELECT partition_router.start_sync('revenues')" >/dev/null
  sql load -c "CALL partition_router.backfill('revenues')"
  sleep 2 # and go on
  end_writers
  wait "$clients" || true
  live=$(sql public -Atc "SELECT extract(epoch FROM max(at)) FROM partition_router.run_log WHERE stage = 'LIVE'")
  keep load p99 during "$(percentile "$BENCH/load_during" "$began" "$live")"
  keep load turn during "$(percentile "$BENCH/load_during" "$began" "$live" with)"
  keep load flip longest "$(longest "$BENCH/load_during" "$live")"
  keep load loaded ours "$(till_live)"
  sql load -c "SELECT bool_and(matches) FROM partition_router.verify('revenues')" -Atq | grep -qx t || die 'not equal after the load'
  sql load -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

# end_writers: ended from the server's side, pgbench still writes its log out, and then says that its clients were cut off.
end_writers() {
  sql public -c "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'load'" >/dev/null
}

# percentile LOG FROM TO [with]: the 99th percentile of the transactions that ended in that time; "with" the wait for their
# turn: pgbench begins transactions at a set rate, and behind a slow one those that are due wait.
percentile() {
  awk -v from="$2" -v to="$3" -v wait="${4:+1}" 'NF >= 7 && $3 ~ /^[0-9]+$/ { at = $5 + $6 / 1e6
    if (at >= from && at <= to) print wait ? $3 : $3 - $7 }' "$1".* |
    sort -n | awk '{ v[NR] = $1 } END { if (!NR) exit 1; i = int(NR * 0.99); print v[i < 1 ? 1 : i] / 1000 }'
}

# longest LOG MOMENT: the longest transaction that ended within two seconds of the moment, without the wait for its turn.
longest() {
  awk -v at="$2" 'NF >= 6 && $3 ~ /^[0-9]+$/ { end = $5 + $6 / 1e6
    if (end > at - 2 && end < at + 2 && $3 - $7 > most) most = $3 - $7 } END { print most / 1000 }' "$1".*
}
