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
  local axis=$1 size=$2 interval=$3 live
  progress "$axis: $size"
  growth_writes "$axis" "$size" none
  keep growth "$axis" "$size:count" "$(sql growth -Atc 'SELECT count(*) FROM revenues')"
  keep growth "$axis" "$size:twin" "$(timed growth \
    "SELECT count(*) FROM partition_router.create_twin('revenues', 'occurred_at', partition_interval => '$interval', premake => 0)")"
  sql growth -c "SELECT partition_router.start_sync('revenues')" -c CHECKPOINT >/dev/null
  local wal began
  wal=$(sql public -Atc 'SELECT pg_current_wal_lsn()')
  began=$(now)
  watch_peak growth -c "CALL partition_router.backfill('revenues')"
  live=$(till_live)
  keep growth "$axis" "$size:backfill" "$live"
  keep growth "$axis" "$size:analyze" "$(awk -v a="$began" -v b="$(now)" -v live="$live" 'BEGIN { print 1000 * (b - a) - live }')"
  keep growth "$axis" "$size:memory" "$PEAK_MEMORY"
  keep growth "$axis" "$size:locks" "$PEAK_LOCKS"
  keep growth "$axis" "$size:wal" "$(sql public -Atc "SELECT pg_current_wal_lsn() - '$wal'")"
  sql growth -c CHECKPOINT
  growth_writes "$axis" "$size" live
  sql growth -c "SELECT partition_router.abandon('revenues')" >/dev/null
}

# growth_writes AXIS SIZE none|live: one-row writes in microseconds, 100,000 rows at once in milliseconds.
growth_writes() {
  local round work oldest least
  oldest=$(sql growth -Atc 'SELECT min(occurred_at) FROM revenues')
  least=$(sql growth -Atc 'SELECT min(id) FROM revenues')
  pin
  for ((round = 0; round < 5; round++)); do
    for work in insert update; do
      filled "${work}_one" | sed 's/@and@//; s/62000000/:seconds/' >"$BENCH/one.sql"
      keep growth "$1" "$2:${work}_$3" "$(FIRST=$oldest slice growth "$BENCH/one.sql" 1000 -D least="$least" \
        -D rows="$(sql growth -Atc 'SELECT max(id) FROM revenues')" -D step=1 \
        -D seconds="$(sql growth -Atc "SELECT floor(extract(epoch FROM max(occurred_at) - min(occurred_at))) FROM revenues")")"
    done
  done
  unpin
  for ((round = 0; round < 3; round++)); do
    keep growth "$1" "$2:bulk_$3" "$(timed growth "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT org_id, property_id, amount_cents,
      '$oldest'::timestamp + random() * (SELECT max(occurred_at) - min(occurred_at) FROM revenues), description, category,
      payment_method, status, created_by_user_id, created_at, updated_at FROM bench.source LIMIT 100000")"
  done
}
