# shellcheck shell=bash
# Part "feed": what a change feed costs whoever writes: a plain table without one, with one, with one that does not notify, and with an
# outbox by hand. Tables lie side by side, slices follow one another. Kept as "feed, work, variant, µs or ms", and what many do at once,
# each with its COMMIT, as "together, clients and synchronous_commit, variant, transactions a second".

FEEDS='none quiet feed hand'
TOGETHER='none quiet feed'

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
  feed_together
  for variant in $FEEDS; do drop_schema "feed_$variant"; done
}

# Whoever notifies takes turns from before its COMMIT is written until it is done: with synchronous_commit that is a wait for the disk, which
# the others would otherwise share.
feed_together() {
  local variant round clients commit
  filled update_one | sed 's/@and@//' >"$BENCH/together.sql"
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    for commit in off on; do
      for clients in 1 8; do
        # shellcheck disable=SC2086 # words
        for variant in $(rotated "$round" $TOGETHER); do
          keep together "$clients $commit" "$variant" "$(feed_clients "$variant" "$clients" "$commit")"
          sql public -c 'TRUNCATE partition_router.change_event'
          sql "feed_$variant" -c 'VACUUM revenues'
        done
      done
    done
  done
}

# feed_clients VARIANT CLIENTS COMMIT: transactions a second.
feed_clients() {
  PGOPTIONS="-c search_path=feed_$1,public -c synchronous_commit=$3" "$PG_BIN/pgbench" -n -M prepared -c "$2" -j 2 \
    -T "$BENCH_FEED_SECONDS" -D first="$FIRST" -D step=$((60000000 / BENCH_ONE_ROWS)) -D rows="$BENCH_ONE_ROWS" -D least=24 \
    -f "$BENCH/together.sql" 2>"$BENCH/pgbench.err" | sed -n 's/^tps = \([0-9.]*\).*/\1/p' | grep . ||
    die "pgbench failed: $(tail -n 3 "$BENCH/pgbench.err")"
}

feed_slice() {
  filled "$2" | sed 's/@and@//' >"$BENCH/one.sql"
  slice "feed_$1" "$BENCH/one.sql" "$BENCH_ONE" -D step=$((60000000 / BENCH_ONE_ROWS)) -D rows="$BENCH_ONE_ROWS" -D least=24
}

feed_table() {
  echo "| µs of one row, or ms of many | no feed | \`notify => false\` | feed | by hand | feed / none | by hand / none |"
  echo '| --- | ---: | ---: | ---: | ---: | ---: | ---: |'
  grep '^feed' "$BENCH/feed.tsv" | sort -t $'\t' -k 2,2 -k 3,3 -k 4,4n | awk -F '\t' -v many="UPDATE of $(thousands "$BENCH_CHANGES")" '
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

feed_together_table() {
  echo "| UPDATEs a second | synchronous_commit | no feed | \`notify => false\` | feed | without notify / none | feed / none |"
  echo '| --- | --- | ---: | ---: | ---: | ---: | ---: |'
  grep '^together' "$BENCH/feed.tsv" | sort -t $'\t' -k 2,2 -k 3,3 -k 4,4n | awk -F '\t' '
    { values[$2, $3, ++n[$2, $3]] = $4 }
    function median(work, variant, k) { k = n[work, variant]; return (values[work, variant, int((k + 1) / 2)] + values[work, variant, int(k / 2) + 1]) / 2 }
    END {
      split("1 off;8 off;1 on;8 on", order, ";")
      for (i = 1; i <= 4; i++) {
        split(order[i], words, " "); none = median(order[i], "none"); quiet = median(order[i], "quiet"); feed = median(order[i], "feed")
        printf "| %s | %s | %.0f | %.0f | %.0f | %.2f | %.2f |\n", words[1] (words[1] == 1 ? " client" : " clients"), words[2], none, quiet, feed, quiet / none, feed / none
      }
    }'
}
