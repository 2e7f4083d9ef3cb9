# shellcheck shell=bash
# Part "growth": the backfill, and what sync costs, as rows and partitions grow: the tables of docs/scaling.md. Not part
# of the default run. Kept as "growth, rows or partitions, SIZE:WHAT, value".

part_growth() {
  local size rows have=0 count
  direction forward
  legacy growth 0
  for size in $BENCH_GROWTH; do
    rows=$(awk -v m="$size" -v have="$have" 'BEGIN { print int(1000000 * m) - have }')
    grow "$rows" "$FIRST" 62000000
    have=$((have + rows))
    growth_measure rows "$(thousands "$have")" '1 month'
  done
  for count in $BENCH_PARTITIONS; do
    legacy growth 0
    # Up to 24 partitions are months, more are days: the last $count of them.
    if ((count <= 24)); then
      grow "$BENCH_COPY_ROWS" "$FIRST" 62000000
      growth_measure partitions "$count" '1 month'
    else
      sql growth -c 'TRUNCATE revenues'
      grow "$BENCH_COPY_ROWS" "$(sql public -Atc "SELECT localtimestamp::date - $count + 1")" "$(((count - 1) * 86400))"
      growth_measure partitions "$count" '1 day'
    fi
  done
  drop_schema growth
}

# grow ROWS START SECONDS: so many rows more.
grow() {
  sql growth -v rows="$1" -v copies="$(($1 / BENCH_ROWS + 1))" -v start="$2" -v seconds="$3" -f "$SQL/growth_rows.sql" \
    -c 'VACUUM ANALYZE revenues' -c CHECKPOINT
}

growth_measure() {
  local axis=$1 size=$2 interval=$3 live flipped writer
  progress "$axis: $size"
  growth_writes "$axis" "$size" none
  keep growth "$axis" "$size:count" "$(sql growth -Atc 'SELECT count(*) FROM revenues')"
  keep growth "$axis" "$size:heap" "$(sql growth -Atc "SELECT pg_relation_size('revenues')")"
  keep growth "$axis" "$size:indexes" "$(sql growth -Atc "SELECT pg_indexes_size('revenues')")"
  keep growth "$axis" "$size:twin" "$(timed growth \
    "SELECT count(*) FROM partition_router.create_twin('revenues', 'occurred_at', partition_interval => '$interval', premake => 0)")"
  sql growth -c "SELECT partition_router.start_sync('revenues')" -c CHECKPOINT >/dev/null
  local wal began
  wal=$(sql public -Atc 'SELECT pg_current_wal_lsn()')
  began=$(now)
  growth_writer &
  writer=$!
  watch_peak growth -c "CALL partition_router.backfill('revenues')"
  live=$(till_live)
  end_writers
  wait "$writer" || true # its clients were cut off
  flipped=$(sql public -Atc "SELECT extract(epoch FROM max(at)) FROM partition_router.run_log WHERE stage = 'LIVE'")
  keep growth "$axis" "$size:flip" "$(longest "$BENCH/growth_writer" "$flipped")"
  keep growth "$axis" "$size:backfill" "$live"
  keep growth "$axis" "$size:analyze" "$(awk -v a="$began" -v b="$(now)" -v live="$live" 'BEGIN { print 1000 * (b - a) - live }')"
  keep growth "$axis" "$size:memory" "$PEAK_MEMORY"
  keep growth "$axis" "$size:locks" "$PEAK_LOCKS"
  keep growth "$axis" "$size:wal" "$(sql public -Atc "SELECT pg_current_wal_lsn() - '$wal'")"
  sql growth -c CHECKPOINT
  growth_writes "$axis" "$size" live
  sql growth -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

# One client that inserts two hundred rows a second, to feel the flip.
growth_writer() {
  rm -f "$BENCH"/growth_writer.*
  filled insert_one | sed 's/@and@//' >"$BENCH/growth_insert.sql"
  PGAPPNAME=load PGOPTIONS='-c search_path=growth,public' "$PG_BIN/pgbench" -n -M prepared -c 1 -R 200 -T 3600 -l \
    --log-prefix="$BENCH/growth_writer" -D first="$FIRST" -f "$BENCH/growth_insert.sql" >/dev/null 2>&1
}

# growth_writes AXIS SIZE none|live: the slowest third of the one-row statements is left out, since a session opens each of
# 1,000 partitions for the first time. One-row writes in microseconds, 100,000 rows at once in milliseconds.
growth_writes() {
  local round work oldest least
  oldest=$(sql growth -Atc 'SELECT min(occurred_at) FROM revenues')
  least=$(sql growth -Atc 'SELECT min(id) FROM revenues')
  pin
  for ((round = 0; round < 5; round++)); do
    for work in insert update; do
      filled "${work}_one" | sed 's/@and@//; s/62000000/:seconds/' >"$BENCH/one.sql"
      keep growth "$1" "$2:${work}_$3" "$(KEPT=0.67 FIRST=$oldest slice growth "$BENCH/one.sql" 3000 -D least="$least" \
        -D rows="$(sql growth -Atc 'SELECT max(id) FROM revenues')" -D step=1 \
        -D seconds="$(sql growth -Atc "SELECT floor(extract(epoch FROM max(occurred_at) - min(occurred_at))) FROM revenues")")"
    done
  done
  unpin
  local wal
  for ((round = 0; round < 3; round++)); do
    wal=$(sql public -Atc 'SELECT pg_current_wal_lsn()')
    keep growth "$1" "$2:bulk_$3" "$(timed growth "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT org_id, property_id, amount_cents,
      '$oldest'::timestamp + random() * (SELECT max(occurred_at) - min(occurred_at) FROM revenues), description, category,
      payment_method, status, created_by_user_id, created_at, updated_at FROM bench.source, generate_series(1, 5) LIMIT 100000")"
    keep growth "$1" "$2:wal_row_$3" "$(sql public -Atc "SELECT (pg_current_wal_lsn() - '$wal') / 100000")"
  done
}
