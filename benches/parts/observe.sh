# shellcheck shell=bash
# Part "observe": what it takes to look at BENCH_TABLES live pairs of 36 partitions each: health, metrics() and openmetrics(), and the
# page, with its size. Each in a session of its own, as an exporter's is after a restart: nothing is cached in it.

part_observe() {
  local round call
  sql public -c "CREATE OR REPLACE PROCEDURE bench.many_pairs(pairs int) LANGUAGE plpgsql AS \$\$
    BEGIN
      FOR i IN 1 .. pairs LOOP
        EXECUTE format('CREATE TABLE many.t%s (id serial PRIMARY KEY, org_id int NOT NULL, at timestamp NOT NULL)', i);
        EXECUTE format('CREATE INDEX ON many.t%s (org_id)', i);
        PERFORM partition_router.create_twin(format('many.t%s', i)::regclass, 'at', premake => 34);
        PERFORM partition_router.start_sync(format('many.t%s', i)::regclass);
        COMMIT;
      END LOOP;
    END \$\$" -c 'DROP SCHEMA IF EXISTS many CASCADE' -c 'CREATE SCHEMA many'
  progress "$(thousands "$BENCH_TABLES") pairs of 36 partitions"
  sql public -c "CALL bench.many_pairs($BENCH_TABLES)"
  sql public -c 'VACUUM ANALYZE' -c CHECKPOINT
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    progress "round $round"
    keep observe look health "$(timed public 'SELECT count(*), max(length(message)) FROM partition_router.health')"
    for call in metrics openmetrics report; do
      keep observe look "$call" "$(timed public "SELECT length(partition_router.$call()::text)")"
    done
  done
  keep observe page report "$(sql public -Atc 'SELECT octet_length(partition_router.report()) / 1024')"
  # One pair a transaction: all of them have more relations than one transaction may lock.
  for ((round = 1; round <= BENCH_TABLES; round++)); do
    echo "SELECT partition_router.abandon('many.t$round'); DROP TABLE many.t$round;"
  done | sql public >/dev/null
  sql public -c 'DROP SCHEMA many'
}
