# shellcheck shell=bash
# Part "unique": what a guard costs, when the legacy is gone: one-row statements of a partitioned table without a guard, with the one of
# keep_unique, and with one kept by hand; interleaved slices as in part "one". Not part of the default run. Kept as
# "unique, WORK, VARIANT, microseconds"; of a bulk INSERT (BENCH_CHANGES rows, BENCH_ROUNDS rounds) milliseconds.

readonly UNIQUE_VARIANTS='none guard hand'

part_unique() {
  local variant work round keep
  direction alone
  for variant in $UNIQUE_VARIANTS; do
    drop_schema "unique_$variant"
    sql "unique_$variant" -c "CREATE SCHEMA unique_$variant" -f "$SQL/schema.sql" -v rows="$BENCH_ONE_ROWS" -f "$SQL/one_rows.sql"
    [[ $variant == guard ]] && keep=true || keep=false
    sql "unique_$variant" -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0, keep_unique => $keep)" \
      -c "CALL partition_router.switchover('revenues')" -c "CALL partition_router.cleanup('revenues')"
    [[ $variant != hand ]] || sql unique_hand -f "$SQL/guard_by_hand.sql"
    sql "unique_$variant" -c 'VACUUM ANALYZE revenues'
  done
  sql unique_guard -c 'VACUUM ANALYZE revenues_unique'
  sql public -c CHECKPOINT
  pin
  for ((round = 0; round < BENCH_ONE_ROUNDS; round++)); do
    for work in insert_one update_one delete_one; do
      # shellcheck disable=SC2086 # words
      for variant in $(rotated "$round" $UNIQUE_VARIANTS); do
        keep unique "$work" "$variant" "$(unique_slice "$variant" "$work" "$round")"
      done
    done
  done
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    # shellcheck disable=SC2086 # words
    for variant in $(rotated "$round" $UNIQUE_VARIANTS); do
      keep unique insert_bulk "$variant" "$(timed "unique_$variant" CHECKPOINT \
        "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT * FROM bench.rows($BENCH_CHANGES)")"
    done
  done
  unpin
  unique_equal guard revenues_unique
  unique_equal hand revenues_ids
  for variant in $UNIQUE_VARIANTS; do sql public -c "DROP SCHEMA unique_$variant CASCADE"; done
}

unique_slice() {
  local step=$((60000000 / BENCH_ONE_ROWS)) deleted=$((BENCH_ONE * BENCH_ONE_ROUNDS + 24))
  filled "$2" | sed "s/@and@/AND occurred_at = :first::timestamp + :sec * interval '1 second'/" >"$BENCH/unique.sql"
  slice "unique_$1" "$BENCH/unique.sql" "$BENCH_ONE" -D step="$step" -D rows="$BENCH_ONE_ROWS" -D least="$((deleted + 1))" \
    -D id="$((24 + BENCH_ONE * $3))"
}

# unique_equal VARIANT TABLE: a fast guard that loses rows is worth nothing.
unique_equal() {
  [[ $(sql "unique_$1" -Atc "SELECT count(*) FROM revenues r FULL JOIN $2 g USING (id, occurred_at) WHERE r.id IS NULL OR g.id IS NULL") == 0 ]] ||
    die "the guard of variant $1 has other rows than its table"
}

# Medians, and how much of what a guard adds is left of the one by hand.
unique_table() {
  echo "| µs of one row, or ms of many | no guard | \`keep_unique\` | by hand | added | of that by hand |"
  echo '| --- | ---: | ---: | ---: | ---: | ---: |'
  sort -t $'\t' -k 2,2 -k 3,3 -k 4,4n "$BENCH/unique.tsv" | awk -F '\t' -v many="INSERT of $(thousands "$BENCH_CHANGES")" '
    { values[$2, $3, ++n[$2, $3]] = $4; works[$2] }
    function median(work, variant, k) { k = n[work, variant]; return (values[work, variant, int((k + 1) / 2)] + values[work, variant, int(k / 2) + 1]) / 2 }
    END {
      split("insert_one update_one delete_one insert_bulk", order, " "); split("INSERT;UPDATE;DELETE;" many, names, ";")
      for (i = 1; i <= 4; i++) {
        w = order[i]; none = median(w, "none"); guard = median(w, "guard"); hand = median(w, "hand")
        printf "| %s | %.1f | %.1f | %.1f | %.1f | %.2f |\n", names[i], none, guard, hand, guard - none, (guard - none) / (hand - none)
      }
    }'
}
