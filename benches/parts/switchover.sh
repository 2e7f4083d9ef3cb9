# shellcheck shell=bash
# Part "switchover": how long the swap holds its locks, and how long clients wait, while eight of them write: there and back,
# at several sizes. Not part of the default run. Kept as "switchover, millions of rows, WHAT, value", in milliseconds.

part_switchover() {
  local size rows writer trip call
  direction forward
  for size in $BENCH_SWITCHOVER; do
    rows=$(awk -v m="$size" 'BEGIN { print int(1000000 * m) }')
    progress "$(thousands "$rows") rows"
    legacy switchover 0
    sql switchover -v rows="$rows" -v copies="$((rows / BENCH_ROWS + 1))" -v start="$FIRST" -v seconds=62000000 \
      -f "$SQL/growth_rows.sql" -c 'VACUUM ANALYZE revenues'
    sql switchover -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0)" -c CHECKPOINT
    rm -f "$BENCH"/switchover_log.*
    PGOPTIONS='-c search_path=switchover,public' "$PG_BIN/pgbench" -n -M prepared -c 8 -j 2 -T 3600 -l \
      --log-prefix="$BENCH/switchover_log" --max-tries=1 -D rows="$rows" -f "$SQL/switchover_client.sql" \
      >"$BENCH/switchover_clients" 2>&1 &
    writer=$!
    # The first trip meets tables of which no session knows anything: it counts like the others.
    for ((trip = 0; trip < BENCH_TRIPS; trip++)); do
      for call in switchover rollback; do
        sql switchover -c "CALL partition_router.$call('revenues')"
        kill -0 "$writer" 2>/dev/null || die "a client failed: $(tail -n 3 "$BENCH/switchover_clients")"
      done
    done
    kill "$writer"
    wait "$writer" 2>/dev/null || true
    ! grep -q 'aborted\|ERROR' "$BENCH/switchover_clients" || die "a client failed: $(tail -n 3 "$BENCH/switchover_clients")"
    sql switchover -Atc "SELECT detail ->> 'locked_ms' FROM partition_router.run_log
        WHERE stage = 'SWAPPED' ORDER BY id DESC LIMIT 2 * $BENCH_TRIPS" |
      while read -r value; do keep switchover "$size" held "$value"; done
    # Of each client, its longest transaction that ended within a second around each swap.
    sql switchover -Atc "SELECT 'swap', extract(epoch FROM at) FROM partition_router.run_log
        WHERE stage = 'SWAPPED' ORDER BY id DESC LIMIT 2 * $BENCH_TRIPS" | tr '|' ' ' |
      cat - "$BENCH"/switchover_log.* | awk '
        $1 == "swap" { swap[++swaps] = $2; next }
        { end = $5 + $6 / 1e6
          for (i = 1; i <= swaps; i++)
            if (end > swap[i] - 0.5 && end < swap[i] + 0.5 && $3 > longest[i, $1]) longest[i, $1] = $3 }
        END { for (key in longest) print longest[key] / 1000 }' |
      while read -r value; do keep switchover "$size" stall "$value"; done
  done
  [[ $(sql switchover -Atc "SELECT bool_and(matches) FROM partition_router.verify('revenues')") == t ]] || die 'the sides differ'
  drop_schema switchover
}

# Locks held (median and most) and stalls (median, p99, most), by size.
switchover_table() {
  sort -t $'\t' -k 2,2n -k 3,3 -k 4,4n "$BENCH/switchover.tsv" | awk -F '\t' '
    function flush() {
      if (n) printf "| %s M | %s | %d | %.1f | %.1f | %.1f |\n", size, what == "held" ? "locks held" : "a client waits", n,
        value[int((n + 1) / 2)], value[int(n * 0.99) < 1 ? 1 : int(n * 0.99)], value[n]
      n = 0
    }
    BEGIN { print "| rows | ms | values | median | p99 | most |"; print "| --- | --- | ---: | ---: | ---: | ---: |" }
    $2 != size || $3 != what { flush(); size = $2; what = $3 }
    { value[++n] = $4 }
    END { flush() }'
}

# Part "reader": a reader stays for BENCH_READER seconds while eight clients write and the switchover is called again and again: how long each
# client waited at most, how long anybody stood in the queue of a lock, and how often the call gave up. Kept as
# "reader, -, waited|queued|gave_up, value", in milliseconds or times.
part_reader() {
  local reader writer queue tries=0 answer
  direction forward
  legacy switchover 100000
  sql switchover -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0)" -c CHECKPOINT
  rm -f "$BENCH"/reader_log.*
  PGOPTIONS='-c search_path=switchover,public' "$PG_BIN/pgbench" -n -M prepared -c 8 -j 2 -T 3600 -l \
    --log-prefix="$BENCH/reader_log" --max-tries=1 -D rows=100000 -f "$SQL/switchover_client.sql" >"$BENCH/reader_clients" 2>&1 &
  writer=$!
  sql switchover -c 'BEGIN' -c 'SELECT count(*) FROM revenues' -c "SELECT pg_sleep($BENCH_READER)" -c 'COMMIT' >/dev/null &
  reader=$!
  until [[ $(sql switchover -Atc "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1 ]]; do :; done
  sql switchover -At -v seconds="$BENCH_READER" -f "$SQL/longest_wait.sql" >"$BENCH/reader_queue" &
  queue=$!
  until answer=$(sql switchover -v VERBOSITY=verbose -c "CALL partition_router.switchover('revenues')" 2>&1); do
    [[ $answer == *55P03*'pg_sleep'* ]] || die "the call gave up without saying who is in the way: $answer"
    tries=$((tries + 1))
  done
  wait "$reader"
  wait "$queue"
  kill "$writer"
  wait "$writer" 2>/dev/null || true
  ! grep -q 'aborted\|ERROR' "$BENCH/reader_clients" || die "a client failed: $(tail -n 3 "$BENCH/reader_clients")"
  keep reader - gave_up "$tries"
  keep reader - queued "$(<"$BENCH/reader_queue")"
  awk '$3 > longest[$1] { longest[$1] = $3 } END { for (client in longest) print longest[client] / 1000 }' "$BENCH"/reader_log.* |
    while read -r value; do keep reader - waited "$value"; done
  drop_schema switchover
}

reader_table() {
  sort -t $'\t' -k 3,3 -k 4,4n "$BENCH/reader.tsv" | awk -F '\t' -v seconds="$BENCH_READER" '
    $3 == "gave_up" { tries = $4 }
    $3 == "waited" { most = $4; n++ }
    $3 == "queued" { queued = $4 }
    END {
      printf "A reader for %d s: the call gave up %d times and then succeeded. ", seconds, tries
      printf "By `pg_locks.waitstart`, asked every 5 ms, nobody stood in a queue longer than %.1f ms; ", queued
      printf "of %d clients none had a transaction longer than %.1f ms.\n", n, most
    }'
}
