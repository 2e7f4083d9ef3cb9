# shellcheck shell=bash
# Part "feed": what a change feed costs whoever writes: a plain table without one, with one, with one that does not notify, and with an
# outbox by hand. Tables lie side by side, slices follow one another. Kept as "feed, work, variant, µs or ms".

FEEDS='none quiet feed hand'

part_feed() {
  local variant work round
  direction alone
  for variant in $FEEDS; do
    legacy "feed_$variant" 0
    sql "feed_$variant" -v rows="$BENCH_ONE_ROWS" -f "$SQL/one_rows.sql"
    case $variant in
      none) ;;
      hand) sql feed_hand -f "$SQL/feed_by_hand.sql" ;;
      quiet) sql feed_quiet -c "SELECT partition_router.enable_change_feed('revenues', ARRAY['id'], notify => false)" >/dev/null ;;
      feed) sql feed_feed -c "SELECT partition_router.enable_change_feed('revenues', ARRAY['id'])" >/dev/null ;;
    esac
    sql "feed_$variant" -c 'VACUUM ANALYZE revenues'
  done
  sql public -c CHECKPOINT
  pin
  for ((round = 0; round < BENCH_ONE_ROUNDS; round++)); do
    for work in insert_one update_one; do
      # shellcheck disable=SC2086 # words
      for variant in $(rotated "$round" $FEEDS); do
        keep feed "$work" "$variant" "$(feed_slice "$variant" "$work")"
      done
    done
  done
  unpin
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    # shellcheck disable=SC2086 # words
    for variant in $(rotated "$round" $FEEDS); do
      sql public -c CHECKPOINT
      keep feed update_bulk "$variant" "$(timed "feed_$variant" \
        "UPDATE revenues SET amount_cents = amount_cents + 1 WHERE id BETWEEN 24 AND $BENCH_CHANGES + 23")"
      sql public -c 'TRUNCATE partition_router.change_event'
      sql "feed_$variant" -c 'VACUUM revenues'
    done
  done
  for variant in $FEEDS; do drop_schema "feed_$variant"; done
}

feed_slice() {
  filled "$2" | sed 's/@and@//' >"$BENCH/one.sql"
  slice "feed_$1" "$BENCH/one.sql" "$BENCH_ONE" -D step=$((60000000 / BENCH_ONE_ROWS)) -D rows="$BENCH_ONE_ROWS" -D least=24
}

feed_table() {
  echo "| µs of one row, or ms of many | no feed | \`notify => false\` | feed | by hand | feed / none | by hand / none |"
  echo '| --- | ---: | ---: | ---: | ---: | ---: | ---: |'
  sort -t $'\t' -k 2,2 -k 3,3 -k 4,4n "$BENCH/feed.tsv" | awk -F '\t' -v many="UPDATE of $(thousands "$BENCH_CHANGES")" '
    { values[$2, $3, ++n[$2, $3]] = $4 }
    function median(work, variant, k) { k = n[work, variant]; return (values[work, variant, int((k + 1) / 2)] + values[work, variant, int(k / 2) + 1]) / 2 }
    END {
      split("insert_one update_one update_bulk", order, " "); split("INSERT;UPDATE;" many, names, ";")
      for (i = 1; i <= 3; i++) {
        w = order[i]; none = median(w, "none"); feed = median(w, "feed"); hand = median(w, "hand")
        printf "| %s | %.1f | %.1f | %.1f | %.1f | %.2f | %.2f |\n", names[i], none, median(w, "quiet"), feed, hand, feed / none, hand / none
      }
    }'
}
