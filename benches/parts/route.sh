# shellcheck shell=bash
# Parts "route" and "pairs": what routing costs a table that has no pair, a routed point read against the same query written
# against the twin, a call of route(), and a month's report; and the first three again beside 1,000 other pairs. One-row reads
# are kept in microseconds, calls in nanoseconds.

# What loads the library, as it would be for everybody; and what routes.
LOADED='-c session_preload_libraries=partition_router'
ROUTED="$LOADED -c partition_router.transparent=on -c partition_router.use_partitioned_tables=on"

part_route() {
  local round mode variant
  route_tables
  pin
  for ((round = 0; round < BENCH_ROUTE_ROUNDS; round++)); do
    for mode in prepared simple; do
      for variant in $(rotated "$round" unloaded loaded transparent); do
        taken route "select_one_$mode" "$variant" select_slice "$mode" "$variant"
      done
      for variant in $(rotated "$round" hand routed legacy); do
        taken route "point_one_$mode" "$variant" point_slice "$mode" "$variant"
      done
    done
  done
  for ((round = 0; round < BENCH_ROUTE_ROUNDS; round++)); do
    for variant in $(rotated "$round" empty route tenant); do
      taken route call "$variant" call_time "$variant"
    done
  done
  unpin
  progress 'the report'
  sql route -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT * FROM bench.rows($BENCH_COPY_ROWS)" \
    -c 'VACUUM ANALYZE revenues' -c 'VACUUM ANALYZE revenues_partitioned'
  # The first of each reads what is not in memory yet.
  for variant in hand routed legacy; do report_time "$variant" >/dev/null; done
  pin
  for ((round = 0; round < BENCH_ROUTE_ROUNDS; round++)); do
    for variant in $(rotated "$round" hand routed legacy); do
      taken route month "$variant" report_time "$variant"
    done
  done
  unpin
  drop_schema route
}

part_pairs() {
  local round variant
  route_tables
  sql public -c 'DROP DATABASE IF EXISTS many' -c "CREATE DATABASE many TEMPLATE $PGDATABASE"
  PGDATABASE=many many_pairs
  pin
  for ((round = 0; round < BENCH_ROUTE_ROUNDS; round++)); do
    for variant in $(rotated "$round" few many); do
      taken pairs select_one_prepared "$variant" beside "$variant" select_slice prepared transparent
      taken pairs select_one_simple "$variant" beside "$variant" select_slice simple transparent
      taken pairs point_one_prepared "$variant" beside "$variant" point_slice prepared routed
      taken pairs point_one_simple "$variant" beside "$variant" point_slice simple routed
      taken pairs call "$variant" beside "$variant" call_time tenant
    done
  done
  unpin
  sql public -c 'DROP DATABASE many'
  drop_schema route
}

# taken GROUP WORK VARIANT COMMAND …: keeps what the command measures, and ends the run when it fails.
taken() {
  local value
  value=$("${@:4}")
  keep "$1" "$2" "$3" "$value"
}

# beside few|many COMMAND …: in the database that has one pair, or 1,000 more.
beside() {
  local database=$PGDATABASE
  [[ $1 == few ]] || database=many
  shift
  PGDATABASE=$database "$@"
}

# A table with no pair, a pair of 24 months with a rollout, and a function of route()'s shape that does nothing.
route_tables() {
  drop_schema route
  sql route -c 'CREATE SCHEMA route' -f "$SQL/schema.sql" -v rows="$BENCH_ONE_ROWS" -f "$SQL/one_rows.sql"
  in_step route live
  PGOPTIONS='-c search_path=route -c client_min_messages=warning' "$PG_BIN/pgbench" -i -q -s "$BENCH_ROUTE_SCALE" >/dev/null 2>&1
  sql route -c "SELECT partition_router.set_rollout('revenues', 25)" >/dev/null
  sql route -c "CREATE FUNCTION empty_route(relation regclass, tenant text DEFAULT NULL, use_partitioned boolean DEFAULT NULL)
    RETURNS regclass LANGUAGE c STABLE AS '$(compiled empty)', 'empty_route'"
  sql public -c CHECKPOINT
}

# So many pairs, each live and proven, of small tables.
many_pairs() {
  local n
  for ((n = 0; n < BENCH_PAIRS; n++)); do
    echo "CREATE TABLE pair_$n (id int PRIMARY KEY, n int);"
    echo "INSERT INTO pair_$n VALUES ($n, 1);"
    echo "CALL partition_router.migrate('pair_$n', 'id', 'hash', partitions => 1);"
    echo "SELECT partition_router.set_rollout('pair_$n', 50, ARRAY['a', 'b']);"
  done | sql many_pairs -c 'CREATE SCHEMA many_pairs' -f - >/dev/null
  progress "$BENCH_PAIRS pairs"
}

# select_slice MODE VARIANT: one transaction of pgbench -S.
select_slice() {
  local options=''
  case $2 in
    loaded) options=$LOADED ;;
    transparent) options=$ROUTED ;;
  esac
  MODE=$1 OPTIONS=$options slice route "$SQL/select_one.sql" "$BENCH_ROUTE_ONE" -D scale="$BENCH_ROUTE_SCALE"
}

# point_slice MODE VARIANT: one row by primary and partition key.
point_slice() {
  local from=revenues options=$LOADED
  case $2 in
    hand) from=revenues_partitioned ;;
    routed) options=$ROUTED ;;
  esac
  sed "s/@from@/$from/; s/@first@/$FIRST/" "$SQL/point_one.sql" >"$BENCH/point.sql"
  MODE=$1 OPTIONS=$options slice route "$BENCH/point.sql" "$BENCH_ROUTE_ONE" -D rows="$BENCH_ONE_ROWS" \
    -D step="$((60000000 / BENCH_ONE_ROWS))"
}

# call_time VARIANT: nanoseconds of one call, of a loop of them.
call_time() {
  local call ms
  case $1 in
    empty) call="route.empty_route('revenues', g::text)" ;;
    route) call="partition_router.route('revenues')" ;;
    tenant) call="partition_router.route('revenues', g::text)" ;;
  esac
  ms=$(timed route "LOAD 'partition_router'" "SELECT count($call) FROM generate_series(1, $BENCH_CALLS) g")
  awk -v ms="$ms" -v n="$BENCH_CALLS" 'BEGIN { printf "%.1f\n", ms * 1000000 / n }'
}

# report_time VARIANT: milliseconds of the report of a month.
report_time() {
  local from=revenues settings='SELECT 1'
  case $1 in
    hand) from=revenues_partitioned ;;
    routed) settings="LOAD 'partition_router'; SET partition_router.transparent = on; SET partition_router.use_partitioned_tables = on" ;;
  esac
  timed route 'SET max_parallel_workers_per_gather = 0' "$settings" \
    "SELECT count(*) FROM ($(sed "s/@from@/$from/" "$SQL/month.sql")) report"
}
