# shellcheck shell=bash
# Part "bystanders": a reader that stays for five seconds at a time, eight writers, and maintenance of every kind, called again and again:
# how long anybody but the call waits for a lock on the table or a partition. Sampled from pg_locks; the writers' own longest
# transaction beside it. Kept as "bystanders, -, waited|longest|samples|calls|failed, value", in milliseconds or times.

part_bystanders() {
  local reader writer sampler calls=0 began round
  drop_schema bystanders
  sql bystanders -c 'CREATE SCHEMA bystanders' -c "
    CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY, at timestamp NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE visits_default PARTITION OF visits DEFAULT;
    CREATE TABLE waits (ms double precision)" -c "
    SELECT partition_router.manage('visits', '1 month', premake => 2)" >/dev/null
  echo "INSERT INTO visits (at, note) VALUES (now() - random() * interval '40 days', 'x');" >"$BENCH/bystander.sql"
  rm -f "$BENCH"/bystander_log.*
  PGOPTIONS='-c search_path=bystanders,public' "$PG_BIN/pgbench" -n -M prepared -c 8 -j 2 -R 800 -T 3600 -l \
    --log-prefix="$BENCH/bystander_log" --max-tries=1 -f "$BENCH/bystander.sql" >"$BENCH/bystander_clients" 2>&1 &
  writer=$!
  while :; do
    sql bystanders -c 'BEGIN' -c 'SELECT count(*) FROM visits' -c 'SELECT pg_sleep(5)' -c 'COMMIT' >/dev/null
  done &
  reader=$!
  sql bystanders -c "SET application_name = 'sampler'" -c "
    DO \$\$BEGIN LOOP
      INSERT INTO waits SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0) * 1000
      FROM pg_locks l JOIN pg_stat_activity a USING (pid)
      WHERE NOT l.granted AND l.locktype = 'relation' AND a.application_name <> 'maintenance' AND l.waitstart IS NOT NULL;
      COMMIT; PERFORM pg_sleep(0.002);
    END LOOP; END\$\$" &
  sampler=$!
  began=$(now)
  round=0
  while (($(elapsed_seconds "$began") < BENCH_READER)); do
    round=$((round + 1))
    # Something to do for each kind of task: rows that wait in the default, a partition that is past its retention, one to detach.
    sql bystanders -c "INSERT INTO visits (at, note) SELECT date '2015-01-01' + $round * 40 + n % 20, 'old' FROM generate_series(1, 300) n" -c "
      SELECT partition_router.set_policy('visits', retention_count => 1 + $round % 4,
        retention_action => CASE $round % 2 WHEN 0 THEN 'drop' ELSE 'detach' END)" >/dev/null
    PGAPPNAME=maintenance sql bystanders -c 'CALL partition_router.run_maintenance()' >/dev/null 2>&1
    calls=$((calls + 1))
  done
  sql public -Atc "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sampler'" >/dev/null
  kill "$reader" "$writer"
  wait "$reader" "$writer" "$sampler" 2>/dev/null || true
  ! grep -q 'aborted\|ERROR' "$BENCH/bystander_clients" || die "a writer failed: $(tail -n 3 "$BENCH/bystander_clients")"
  keep bystanders - calls "$calls"
  sql bystanders -AtF $'\t' -c "SELECT 'bystanders', '-', k, v FROM (SELECT max(ms) AS waited, count(*) AS samples,
      (SELECT count(*) FROM partition_router.maintenance_log WHERE parent LIKE '%visits' AND status = 'failed') AS failed,
      (SELECT count(*) FROM partition_router.maintenance_log WHERE parent LIKE '%visits' AND status = 'done') AS done
    FROM waits) w, jsonb_each_text(to_jsonb(w)) AS x(k, v)" >>"$BENCH/bystanders.tsv"
  # With a rate, the third field counts from when the transaction was due: less its lag it is the transaction's own.
  awk '{ own = $3 - $7; if (own > most) most = own } END { print most / 1000 }' "$BENCH"/bystander_log.* |
    while read -r value; do keep bystanders - longest "$value"; done
  sql public -c 'DELETE FROM partition_router.policy' -c 'DROP SCHEMA bystanders CASCADE' >/dev/null
}

elapsed_seconds() { awk -v a="$1" -v b="$(now)" 'BEGIN { print int(b - a) }'; }

bystanders_table() {
  awk -F '\t' '{ value[$3] = $4 }
    END { printf "%d calls of `run_maintenance`, which did %d tasks and gave %d up to a reader: of %d looks at `pg_locks`, the longest wait of anybody else was %.1f ms. The longest transaction of a writer took %.1f ms.\n",
      value["calls"], value["done"], value["failed"], value["samples"], value["waited"], value["longest"] }' "$BENCH/bystanders.tsv"
}
