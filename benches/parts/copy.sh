# shellcheck shell=bash
# Part "copy": the backfill against other ways to fill the twin. The legacy is made once, and each
# copy starts with an empty twin and a checkpoint. Kept in milliseconds, pg_partman in rows a second.

part_copy() {
  local round variant variants='indexed bare ours'
  if has_setting partition_router.backfill_workers; then variants+=' one two'; else note 'no backfill_workers here: left out'; fi
  if [[ $(sql public -Atc "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'") == 1 ]]; then
    sql public -c 'CREATE SCHEMA partman' -c 'CREATE EXTENSION pg_partman SCHEMA partman'
    variants+=' partman'
  else
    note "no pg_partman here (Debian package postgresql-$PG_MAJOR-partman): left out"
  fi
  legacy copy "$BENCH_COPY_ROWS"
  sql copy -c 'VACUUM ANALYZE revenues'
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    progress "round $((round + 1)) of $BENCH_ROUNDS"
    # shellcheck disable=SC2086 # words
    for variant in $(rotated "$round" $variants); do
      "copy_$variant"
    done
  done
  drop_schema copy
}

HAND_COPY='INSERT INTO revenues_partitioned SELECT * FROM revenues'

copy_indexed() {
  sql copy -f "$SQL/twin.sql" -f "$SQL/twin_indexes.sql" -c CHECKPOINT
  keep copy backfill indexed "$(timed copy "$HAND_COPY")"
  sql copy -c 'DROP TABLE revenues_partitioned'
}

copy_bare() {
  sql copy -f "$SQL/twin.sql" -c CHECKPOINT
  local start
  start=$(now)
  sql copy -c "$HAND_COPY" -f "$SQL/twin_indexes.sql"
  keep copy backfill bare "$(awk -v a="$start" -v b="$(now)" 'BEGIN { print 1000 * (b - a) }')"
  sql copy -c 'DROP TABLE revenues_partitioned'
}

# ready_to_copy SCHEMA: an empty twin, and the sync that captures.
ready_to_copy() {
  sql "$1" -c "SELECT FROM partition_router.create_twin('revenues', 'occurred_at', premake => 0)" \
    -c "SELECT partition_router.start_sync('revenues')" -c CHECKPOINT >/dev/null
}

# till_live: milliseconds from the beginning of the last backfill to the flip, as the run log has them.
till_live() {
  sql public -Atc "SELECT 1000 * extract(epoch FROM max(at) FILTER (WHERE stage = 'LIVE')
    - max(at) FILTER (WHERE stage = 'BEGIN')) FROM partition_router.run_log WHERE operation = 'backfill'"
}

copy_ours() {
  local whole rows expected
  ready_to_copy copy
  whole=$(timed copy "CALL partition_router.backfill('revenues')")
  keep copy backfill ours "$(till_live)"
  keep copy backfill whole "$whole"
  rows=$(sql copy -Atc 'SELECT count(*) FROM revenues_partitioned')
  expected=$(sql copy -Atc 'SELECT count(*) FROM revenues')
  [[ $rows == "$expected" ]] || die "the backfill copied $rows rows of $expected"
  keep copy partman ours "$(awk -v rows="$rows" -v ms="$(till_live)" 'BEGIN { print 1000 * rows / ms }')"
  sql copy -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

copy_one() { copy_by_workers 1 one; }
copy_two() { copy_by_workers 2 two; }

copy_by_workers() {
  ready_to_copy copy
  sql copy -c "SET partition_router.backfill_workers = $1" -c "CALL partition_router.backfill('revenues')"
  keep copy workers "$2" "$(till_live)"
  sql copy -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

# pg_partman moves: a table of its own, smaller, since rows a second are compared. As its manual has it for native
# partitioning: the parent with its indexes, partitions from the first month on, a batch as large as it allows (one
# partition), the old table as the source, ANALYZE left out.
copy_partman() {
  local moved ms
  legacy moved "$BENCH_PARTMAN_ROWS"
  sql moved -c 'VACUUM ANALYZE revenues' \
    -c 'CREATE TABLE revenues_partitioned (LIKE revenues INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (occurred_at)' \
    -f "$SQL/twin_indexes.sql" \
    -c "SELECT partman.create_parent('moved.revenues_partitioned', 'occurred_at', 'native', 'monthly', p_premake => 1,
      p_start_partition => bench.first_month()::text, p_jobmon => false)" -c CHECKPOINT >/dev/null
  ms=$(timed moved "SELECT partman.partition_data_time('moved.revenues_partitioned', p_batch_count => 1000,
    p_analyze => false, p_source_table => 'moved.revenues')")
  moved=$(sql moved -Atc 'SELECT count(*) FROM revenues_partitioned')
  ((moved == BENCH_PARTMAN_ROWS + 24)) || die "pg_partman moved $moved rows"
  keep copy partman partition_data_time "$(awk -v rows="$moved" -v ms="$ms" 'BEGIN { print 1000 * rows / ms }')"
  sql public -c "DELETE FROM partman.part_config" -c 'DROP SCHEMA moved CASCADE'
}
