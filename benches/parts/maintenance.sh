# shellcheck shell=bash
# Part "maintenance": runs of maintenance with nothing to do and with partitions to create, a default partition that is drained,
# and archives, each against what one would do instead. pg_partman is version 4.7, as Debian has it.

# many_tables SCHEMA: BENCH_TABLES tables by month, of the same partitions for both: 32 past ones, this one and those to come.
many_tables() {
  sql public -c "DROP SCHEMA IF EXISTS $1 CASCADE" -c "CREATE SCHEMA $1"
  sql "$1" -c "CALL bench.many_tables('$1', $BENCH_TABLES, $2)"
}

bench_procedure() {
  sql public -c "CREATE OR REPLACE PROCEDURE bench.many_tables(place text, tables int, partitions int) LANGUAGE plpgsql AS \$\$
    DECLARE first timestamp := date_trunc('month', localtimestamp) - (partitions - 4) * interval '1 month';
    BEGIN
      FOR i IN 1 .. tables LOOP
        EXECUTE format('CREATE TABLE %I.t%s (id int NOT NULL, at timestamp NOT NULL) PARTITION BY RANGE (at)', place, i);
        EXECUTE format('CREATE TABLE %I.t%s_default PARTITION OF %I.t%s DEFAULT', place, i, place, i);
        FOR m IN 0 .. partitions - 1 LOOP
          EXECUTE format('CREATE TABLE %I.%I PARTITION OF %I.t%s FOR VALUES FROM (%L) TO (%L)', place,
            't' || i || '_p' || to_char(first + m * interval '1 month', 'YYYY_MM'), place, i,
            first + m * interval '1 month', first + (m + 1) * interval '1 month');
        END LOOP;
        COMMIT;
      END LOOP;
    END \$\$"
}

# ours_manages SCHEMA PREMAKE FROM TO: these tables.
ours_manages() {
  sql public -c "DO \$\$ BEGIN FOR i IN $3 .. $4 LOOP
    INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake)
    VALUES (format('$1.t%s', i)::regclass, 't' || i || '_p', '1 month', $2); END LOOP; END \$\$"
}

partman_manages() {
  sql public -c "INSERT INTO partman.part_config (parent_table, control, partition_type, partition_interval, premake, datetime_string,
      automatic_maintenance, jobmon, infinite_time_partitions)
    SELECT format('$1.t%s', i), 'at', 'native', '1 mon', $2, 'YYYY_MM', 'on', false, true FROM generate_series(1, $BENCH_TABLES) i"
}

part_maintenance() {
  local round
  sql public -c 'CREATE SCHEMA IF NOT EXISTS partman' -c 'CREATE EXTENSION IF NOT EXISTS pg_partman SCHEMA partman'
  bench_procedure
  progress "$(thousands "$BENCH_TABLES") tables of 36 partitions"
  many_tables many 36
  partman_manages many 3
  # Each has its own idea of what "3 ahead" is: what is missing is made before anything is timed.
  ours_manages many 3 1 "$BENCH_TABLES"
  sql public -c 'CALL partition_router.run_maintenance()' -c 'SELECT partman.run_maintenance(p_analyze => false, p_jobmon => false)' >/dev/null
  sql public -c 'VACUUM ANALYZE'
  idle_of_some
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    keep maintenance idle ours "$(timed public 'CALL partition_router.run_maintenance()')"
    keep maintenance idle partman "$(timed public 'SELECT partman.run_maintenance(p_analyze => false, p_jobmon => false)')"
  done
  progress '3 partitions on each'
  # pg_partman first: it tells the last partition by a name of its own making.
  sql public -c 'UPDATE partman.part_config SET premake = 6'
  MADE=$(partitions_of_many)
  keep maintenance create3 partman "$(timed public 'SELECT partman.run_maintenance(p_analyze => false, p_jobmon => false)')"
  made_three
  # Three more than there are: 32 are past, one is now, and one is the default.
  sql public -c "UPDATE partition_router.policy SET premake = $((MADE / BENCH_TABLES - 34 + 3))"
  keep maintenance create3 ours "$(timed public 'CALL partition_router.run_maintenance()')"
  made_three
  sql public -c 'DELETE FROM partition_router.policy' -c 'DELETE FROM partman.part_config'
  drop_many
  maintenance_drain
  maintenance_archive
}

# How the time grows with the number of tables: a quarter of them, half, and in the rounds that follow all.
idle_of_some() {
  local part round had=0
  sql public -c 'DELETE FROM partition_router.policy'
  for part in 4 2 1; do
    ours_manages many 3 $((had + 1)) $((had = BENCH_TABLES / part))
    for ((round = 1; round <= BENCH_ROUNDS && part > 1; round++)); do
      keep maintenance "idle_of_$part" ours "$(timed public 'CALL partition_router.run_maintenance()')"
    done
  done
}

partitions_of_many() {
  sql public -Atc "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'p'
    WHERE c.relnamespace = 'many'::regnamespace"
}

# made_three: since the last look each table has three partitions more.
made_three() {
  local found
  found=$(partitions_of_many)
  ((found == MADE + 3 * BENCH_TABLES)) || die "there are $found partitions, not $((MADE + 3 * BENCH_TABLES))"
  MADE=$found
}

# One table a transaction: a thousand tables of 36 partitions are more locks than one transaction may have.
drop_many() {
  local i
  for ((i = 1; i <= BENCH_TABLES; i++)); do echo "DROP TABLE IF EXISTS many.t$i CASCADE;"; done | sql public
}

# A default with a million rows of 24 months.
filled_default() {
  sql public -c "DROP SCHEMA IF EXISTS $1 CASCADE" -c "CREATE SCHEMA $1"
  sql "$1" -f "$SQL/schema.sql" -c 'ALTER TABLE revenues RENAME TO model' \
    -c 'CREATE TABLE revenues (LIKE model INCLUDING DEFAULTS, PRIMARY KEY (id, occurred_at)) PARTITION BY RANGE (occurred_at)' \
    -c 'CREATE INDEX ON revenues (org_id, occurred_at DESC)' -c 'CREATE INDEX ON revenues (property_id, occurred_at DESC)' \
    -c "CREATE INDEX ON revenues (occurred_at) WHERE status = 'pending'"
}

maintenance_drain() {
  local round ms
  progress "a default with $(thousands "$BENCH_PARTMAN_ROWS") rows"
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    filled_default drained
    sql drained -c 'CREATE TABLE revenues_default PARTITION OF revenues DEFAULT' \
      -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT * FROM bench.rows($BENCH_PARTMAN_ROWS)" -c 'VACUUM ANALYZE revenues' -c CHECKPOINT
    sql drained -c "SELECT partition_router.manage('revenues', '1 month', premake => 0)" >/dev/null
    ms=$(timed drained "CALL partition_router.run_maintenance('revenues')")
    [[ $(sql drained -Atc 'SELECT count(*) FROM revenues_default') == 0 ]] || die 'the default is not empty'
    keep maintenance drain ours "$ms"
    sql public -c 'DELETE FROM partition_router.policy' -c 'DROP SCHEMA drained CASCADE'
  done
  filled_default drained
  sql drained -c "SELECT partman.create_parent('drained.revenues', 'occurred_at', 'native', 'monthly', p_premake => 1,
      p_start_partition => date_trunc('month', localtimestamp)::text, p_jobmon => false)" \
    -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT * FROM bench.rows($BENCH_PARTMAN_ROWS)" -c 'VACUUM ANALYZE revenues' -c CHECKPOINT >/dev/null
  keep maintenance drain partman "$(timed drained "SELECT partman.partition_data_time('drained.revenues', p_batch_count => 1000, p_analyze => false)")"
  sql public -c 'DELETE FROM partman.part_config' -c 'DROP SCHEMA drained CASCADE'
}

# What a partition of the same rows takes until it is archived and dropped, and until the file is written, against COPY to a file.
maintenance_archive() {
  local round format kept_in=$PLACE/archives
  progress "archives of $(thousands "$BENCH_PARTMAN_ROWS") rows"
  mkdir -p "$kept_in"
  chmod 777 "$kept_in"
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    for format in $(rotated "$round" copy csv parquet); do
      filled_default kept
      sql kept -c "CREATE TABLE revenues_old PARTITION OF revenues FOR VALUES FROM (MINVALUE) TO ('2023-01-01')" \
        -c "CREATE TABLE revenues_new PARTITION OF revenues FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')" \
        -c "INSERT INTO revenues ($COLUMNS_BUT_ID) SELECT org_id, property_id, amount_cents, occurred_at - interval '10 years', description,
          category, payment_method, status, created_by_user_id, created_at, updated_at FROM bench.rows($BENCH_PARTMAN_ROWS)" \
        -c 'VACUUM ANALYZE revenues' -c CHECKPOINT
      if [[ $format == copy ]]; then
        keep maintenance archive copy "$(timed kept "COPY revenues_old TO '$kept_in/copy.csv' (FORMAT csv, HEADER)")"
      else
        archive_by kept "$format" "$kept_in"
      fi
      sql public -c 'DELETE FROM partition_router.policy' -c 'DROP SCHEMA kept CASCADE'
      rm -f "$kept_in"/*
    done
  done
}

# archive_by SCHEMA FORMAT DIRECTORY: the whole way, and of it the writing.
archive_by() {
  local ms
  sql "$1" -c "INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention, retention_action, archive_format)
    VALUES ('revenues', 'revenues', '1 year', 0, '1 year', 'archive', '$2')" -c 'DELETE FROM partition_router.archives'
  ms=$(timed "$1" "LOAD 'partition_router'" "SET partition_router.archive_directory = '$3'" "CALL partition_router.run_maintenance('revenues', part => 'cleanup')")
  keep maintenance archive "$2_whole" "$ms"
  keep maintenance archive "$2" "$(sql "$1" -Atc "SELECT write_ms FROM partition_router.archives WHERE partition = 'revenues_old' AND state = 'archived'")"
}
