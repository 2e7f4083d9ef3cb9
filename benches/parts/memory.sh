# shellcheck shell=bash
# Part "memory": private memory (RssAnon) of the server's processes while one statement, or one backfill, works on many
# rows, above what it was before; with so many rows, and with five times as many. Kept in kilobytes.

# watch_peak SCHEMA PSQL-ARGUMENTS…: runs them; leaves PEAK_MEMORY (kilobytes above what was there before) and PEAK_LOCKS.
watch_peak() {
  local schema=$1 before client memory locks turn=0
  shift
  before=$(anonymous)
  PEAK_MEMORY=0 PEAK_LOCKS=0
  sql "$schema" "$@" >/dev/null &
  client=$!
  while kill -0 "$client" 2>/dev/null; do
    memory=$(anonymous)
    ((memory - before <= PEAK_MEMORY)) || PEAK_MEMORY=$((memory - before))
    if ((turn++ % 5 == 0)); then
      locks=$(sql public -Atc 'SELECT count(*) FROM pg_locks')
      ((locks <= PEAK_LOCKS)) || PEAK_LOCKS=$locks
    fi
    sleep 0.1
  done
  wait "$client" || die "what was watched failed: $*"
}

part_memory() {
  local size rows
  direction forward
  # Sorts may take maintenance_work_mem, and use more of it the more rows an index has: here that is next to nothing.
  sql public -c 'ALTER DATABASE postgres SET maintenance_work_mem = 1024'
  for size in small large; do
    rows=$BENCH_MEMORY_ROWS
    [[ $size == small ]] || rows=$((5 * BENCH_MEMORY_ROWS))
    progress "$(thousands "$rows") rows"
    legacy memory 0
    sql memory -v rows="$rows" -v copies="$((rows / BENCH_ROWS + 1))" -v start="$FIRST" -v seconds=62000000 \
      -f "$SQL/growth_rows.sql" -c 'VACUUM ANALYZE revenues'
    ready_to_copy memory
    watch_peak memory -c "CALL partition_router.backfill('revenues')"
    keep memory memory "backfill_$size" "$PEAK_MEMORY"
    sql memory -c CHECKPOINT
    watch_peak memory -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT $COLUMNS_BUT_ID FROM bench.source,
      generate_series(1, $((rows / BENCH_ROWS + 1))) LIMIT $rows"
    keep memory memory "insert_$size" "$PEAK_MEMORY"
    sql memory -c CHECKPOINT
    watch_peak memory -c "UPDATE revenues SET status = 'void' WHERE id <= $rows"
    keep memory memory "update_$size" "$PEAK_MEMORY"
    drop_schema memory
  done
  sql public -c 'ALTER DATABASE postgres RESET maintenance_work_mem'
}
