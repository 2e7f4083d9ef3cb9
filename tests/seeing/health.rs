//! Each check is made to fail, and its own `mend` is run as it stands.

use super::common::{Cluster, Database, one, plant, run, sqlstate, texts};
use super::live;
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The worst status of a check, with its message.
pub fn status(client: &mut Client, check: &str) -> (String, String) {
    let row = client
        .query_one(
            "SELECT status, message FROM partition_router.health WHERE \"check\" = $1
             ORDER BY array_position('{fail,warn,ok}'::text[], status) LIMIT 1",
            &[&check],
        )
        .unwrap_or_else(|error| panic!("{check}: {error:?}"));
    (row.get(0), row.get(1))
}

pub fn assert_status(client: &mut Client, check: &str, expected: &str) {
    let (found, message) = status(client, check);
    assert_eq!(found, expected, "{check}: {message}");
}

pub fn mend_of(client: &mut Client, check: &str) -> String {
    one(
        client,
        &format!(
            "SELECT mend FROM partition_router.health WHERE \"check\" = '{check}' AND status <> 'ok' LIMIT 1"
        ),
    )
}

/// The check has this status, and none of `mend`'s statements leaves it so.
pub fn mended(client: &mut Client, check: &str, expected: &str) {
    assert_status(client, check, expected);
    let mend = mend_of(client, check);
    run(client, &[&mend]);
    assert_status(client, check, "ok");
}

fn without_ddl(client: &mut Client, statements: &[&str]) {
    run(client, &["SET partition_router.carry_ddl = off"]);
    run(client, statements);
    run(client, &["RESET partition_router.carry_ddl"]);
}

fn assert_proven(client: &mut Client) {
    let query = "SELECT bool_and(matches) FROM partition_router.verify('revenues', 'rows')";
    assert!(one::<bool>(client, query));
}

#[test]
fn a_migrated_table_has_every_check_and_all_are_ok() {
    let (_database, mut client) = live("all_ok");
    let c = &mut client;
    let found = texts(
        c,
        "SELECT DISTINCT \"check\" FROM partition_router.health ORDER BY 1",
    );
    assert_eq!(
        found,
        [
            "columns",
            "default_partition",
            "indexes",
            "maintenance",
            "parity",
            "partition_sync",
            "partitions_ahead",
            "phase",
            "replica_lag",
            "replication_slots",
            "sequence",
            "settings",
            "sync",
            "sync_errors",
            "worker"
        ]
    );
    let wrong = texts(
        c,
        "SELECT format('%s: %s', \"check\", message) FROM partition_router.health WHERE status <> 'ok'",
    );
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn disabled_and_missing_triggers_are_mended_with_what_was_written_meanwhile() {
    let (_database, mut client) = live("triggers");
    let c = &mut client;
    without_ddl(
        c,
        &[
            "ALTER TABLE revenues DISABLE TRIGGER sync_to_partitioned_revenues_u",
            "DROP TRIGGER sync_to_partitioned_revenues_d ON revenues",
            "DELETE FROM revenues WHERE id = 7",
        ],
    );
    mended(c, "sync", "fail");
    assert_proven(c);
    run(c, &["DELETE FROM revenues WHERE id = 8"]);
    assert_proven(c);
}

#[test]
fn triggers_of_the_twin_and_of_its_partitions_are_mended() {
    let (_database, mut client) = live("leaf_triggers");
    let c = &mut client;
    let partition: String = one(
        c,
        "SELECT partition::text FROM partition_router.partitions WHERE NOT is_default ORDER BY 1 LIMIT 1",
    );
    for statement in [
        format!("ALTER TABLE {partition} DISABLE TRIGGER sync_to_legacy_revenues_i"),
        format!("DROP TRIGGER sync_to_legacy_revenues_i ON {partition}"),
        "ALTER TABLE ONLY revenues_partitioned DISABLE TRIGGER sync_to_legacy_revenues_i".into(),
    ] {
        without_ddl(c, &[&statement]);
        mended(c, "partition_sync", "fail");
    }
    run(
        c,
        &["INSERT INTO revenues_partitioned (id, at) VALUES (1000, current_date)"],
    );
    assert_proven(c);
}

#[test]
fn columns_that_drifted_apart_are_mended_and_the_failed_writes_are_told() {
    let (_database, mut client) = live("columns");
    let c = &mut client;
    without_ddl(
        c,
        &["ALTER TABLE revenues ADD COLUMN note text NOT NULL DEFAULT 'x'"],
    );
    assert_eq!(
        sqlstate(c, "INSERT INTO revenues (at) VALUES (current_date)"),
        "PR015"
    );
    mended(c, "columns", "fail");
    run(c, &["INSERT INTO revenues (at, note) VALUES (current_date, 'y')"]);
    let (found, message) = status(c, "sync_errors");
    assert_eq!(found, "warn", "{message}");
    assert!(message.contains("PR015"), "{message}");
    mended(c, "sync_errors", "warn");
    without_ddl(c, &["ALTER TABLE revenues_partitioned ADD COLUMN extra int"]);
    mended(c, "columns", "fail");
    without_ddl(c, &["ALTER TABLE revenues ALTER COLUMN note TYPE varchar(20)"]);
    mended(c, "columns", "fail");
    assert_proven(c);
}

#[test]
fn a_value_that_the_writer_may_not_write_is_no_error_of_the_sync() {
    let (_database, mut client) = live("own_errors");
    let c = &mut client;
    assert_eq!(
        sqlstate(
            c,
            "INSERT INTO revenues_partitioned (id, at) VALUES (1, current_date)"
        ),
        "23505"
    );
    assert_status(c, "sync_errors", "ok");
}

#[test]
fn indexes_that_the_twin_lacks_are_mended_whatever_their_names() {
    let (_database, mut client) = live("indexes");
    let c = &mut client;
    for statement in [
        "CREATE INDEX ON revenues (at DESC, id) WHERE id > 10",
        "CREATE INDEX \"x USING btree (id); DROP TABLE revenues; --\" ON revenues (((id + 1)))",
        "CREATE UNIQUE INDEX ON revenues ((id * 2), at)",
    ] {
        without_ddl(c, &[statement]);
        mended(c, "indexes", "warn");
    }
    assert!(one::<bool>(c, "SELECT to_regclass('revenues') IS NOT NULL"));
}

#[test]
fn no_partition_ahead_fails_until_maintenance_runs() {
    let database = Database::new("ahead");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE logins (at timestamptz NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE logins_old PARTITION OF logins FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "SELECT partition_router.manage('logins', '1 month')",
        ],
    );
    mended(c, "partitions_ahead", "fail");
    // Twelve newer ones of the past do not hide those that are ahead.
    for month in 1..=12 {
        run(
            c,
            &[&format!(
                "CREATE TABLE logins_{month} PARTITION OF logins FOR VALUES FROM ('2000-{month:02}-01') TO ('2000-{month:02}-02')"
            )],
        );
    }
    assert_status(c, "partitions_ahead", "ok");
}

#[test]
fn a_partition_that_is_partitioned_itself_is_ahead_whatever_was_made_after_it() {
    let database = Database::new("deep");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE visits (at date NOT NULL, org int NOT NULL) PARTITION BY RANGE (at)",
            "DO $$ DECLARE start date; name text; BEGIN
                 FOR back IN -1 .. 2 LOOP
                     start := date_trunc('month', current_date) - back * interval '1 month'; name := 'visits_' || back + 1;
                     EXECUTE format('CREATE TABLE %s PARTITION OF visits FOR VALUES FROM (%L) TO (%L) PARTITION BY HASH (org)',
                         name, start, start + interval '1 month');
                     EXECUTE format('CREATE TABLE %s_all PARTITION OF %1$s FOR VALUES WITH (MODULUS 1, REMAINDER 0)', name);
                 END LOOP; END $$",
            "SELECT partition_router.manage('visits', '1 month')",
        ],
    );
    assert_status(c, "partitions_ahead", "ok");
    let figures = "SELECT format('%s %s', partitions, partitions_ahead) FROM partition_router.table_metrics";
    assert_eq!(one::<String>(c, figures), "4 1");
}

#[test]
fn rows_in_the_default_warn_until_maintenance_runs() {
    let (_database, mut client) = live("strays");
    let c = &mut client;
    run(c, &["INSERT INTO revenues (at) VALUES (current_date - 400)"]);
    // Maintenance begins when the copy has ended.
    run(c, &["UPDATE partition_router.pair SET phase = 'copying'"]);
    let (found, message) = status(c, "default_partition");
    assert!(
        found == "ok" && message.starts_with("1 rows are"),
        "{found} {message}"
    );
    let figures =
        "SELECT format('%s %s', default_rows, default_rows_to_move) FROM partition_router.table_metrics";
    assert_eq!(one::<String>(c, figures), "1 0");
    run(c, &["UPDATE partition_router.pair SET phase = 'live'"]);
    mended(c, "default_partition", "warn");
}

#[test]
fn rows_that_maintenance_leaves_alone_are_told_with_their_keys_and_warn_nobody() {
    let database = Database::new("stays");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE sensors (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE sensors_default PARTITION OF sensors DEFAULT",
            "INSERT INTO sensors VALUES ('9999-01-01'), ('infinity'), (NULL), (current_date)",
            "SELECT partition_router.manage('sensors', '1 month', premake => 2)",
        ],
    );
    let figures =
        "SELECT format('%s %s', default_rows, default_rows_to_move) FROM partition_router.table_metrics";
    // Nobody has looked at them yet.
    assert_eq!(one::<String>(c, figures), "4 4");
    mended(c, "default_partition", "warn");
    assert_eq!(one::<String>(c, figures), "3 0");
    let (_, message) = status(c, "default_partition");
    assert!(
        message.starts_with("3 rows are in the default partition"),
        "{message}"
    );
    for what in [
        "1 rows stay in the default partition, far away from every partition: keys such as 9999-01-01",
        "2 rows stay in the default partition, no partition can hold them: keys such as ",
        "create_range_partition()",
    ] {
        assert!(message.contains(what), "{message}");
    }
    let page: String = one(c, "SELECT partition_router.report()");
    assert!(page.contains("3 rows<small> which maintenance leaves there"));
    assert!(!page.contains("<div class=\"warn\"><dt>In the default"));
    // One more, which it does move.
    run(c, &["INSERT INTO sensors VALUES (current_date - 60)"]);
    assert_eq!(one::<String>(c, figures), "4 1");
    let (_, message) = status(c, "default_partition");
    assert!(
        message.starts_with("1 rows are in the default partition, and others stay: 2"),
        "{message}"
    );
    let page: String = one(c, "SELECT partition_router.report()");
    assert!(page.contains("<div class=\"warn\"><dt>In the default"));
    mended(c, "default_partition", "warn");
    assert_eq!(one::<String>(c, figures), "3 0");
    // What its message says to do about them.
    run(
        c,
        &[
            "DELETE FROM sensors WHERE at IS NULL",
            "SELECT partition_router.create_range_partition('sensors', 'sensors_far', '9999-01-01', 'MAXVALUE')",
            "CALL partition_router.run_maintenance('sensors')",
        ],
    );
    assert_eq!(one::<String>(c, figures), "0 0");
    let (_, message) = status(c, "default_partition");
    assert_eq!(message, "the default partition is empty");
}

#[test]
fn maintenance_that_failed_is_told_until_a_run_succeeds() {
    let (_database, mut client) = live("failed_run");
    let c = &mut client;
    run(
        c,
        &["UPDATE partition_router.policy SET last_error = 'no space left'"],
    );
    let (_, message) = status(c, "maintenance");
    assert_eq!(message, "no space left");
    mended(c, "maintenance", "fail");
    run(
        c,
        &[
            "UPDATE partition_router.policy SET last_run_at = now() - interval '1 day'",
            "SET partition_router.maintenance_interval = '1h'",
        ],
    );
    mended(c, "maintenance", "warn");
}

#[test]
fn an_old_proof_warns_and_a_failed_one_fails_until_both_sides_are_proven() {
    let (_database, mut client) = live("parity");
    let c = &mut client;
    run(
        c,
        &["UPDATE partition_router.pair SET verified_at = now() - interval '30 days'"],
    );
    mended(c, "parity", "warn");
    plant(c, "revenues", &["DELETE FROM revenues WHERE id = 1"]);
    run(c, &["SELECT * FROM partition_router.verify('revenues')"]);
    let (_, message) = status(c, "parity");
    assert!(message.contains("differed in 1 partitions"), "{message}");
    mended(c, "parity", "fail");
}

#[test]
fn a_sequence_near_the_end_of_its_column_is_told_and_the_column_widened() {
    let (_database, mut client) = live("sequence");
    let c = &mut client;
    run(c, &["SELECT setval('revenues_id_seq', 1700000000)"]);
    assert_status(c, "sequence", "warn");
    run(c, &["SELECT setval('revenues_id_seq', 2100000000)"]);
    mended_away(c, "sequence", "fail");
    run(
        c,
        &[
            "SELECT setval('revenues_id_seq', 3000000000)",
            "INSERT INTO revenues (at) VALUES (current_date)",
        ],
    );
    assert_proven(c);
}

/// As [`mended`], where nothing is left to check.
fn mended_away(client: &mut Client, check: &str, expected: &str) {
    assert_status(client, check, expected);
    let mend = mend_of(client, check);
    run(client, &[&mend]);
    let query = format!(
        "SELECT count(*) FROM partition_router.health WHERE \"check\" = '{check}' AND status <> 'ok'"
    );
    assert_eq!(one::<i64>(client, &query), 0);
}

#[test]
fn an_archive_that_was_begun_long_ago_is_told_until_it_is_finished() {
    let database = Database::new("archive");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE visits (on_day date NOT NULL) PARTITION BY RANGE (on_day)",
            "CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "INSERT INTO visits VALUES ('2020-01-20')",
            "CREATE FUNCTION keep(p regclass) RETURNS regclass LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'the attic is locked'; END $$",
            "SELECT partition_router.manage('visits', '1 month', retention => '2 years', retention_action => 'archive',
                 archive_function => 'keep(regclass)')",
            "SELECT partition_router.create_partitions('visits')",
            "CALL partition_router.run_maintenance('visits')",
            "UPDATE partition_router.archives SET changed_at = now() - interval '3 days'",
        ],
    );
    assert_status(c, "maintenance", "fail");
    run(
        c,
        &[
            "CREATE OR REPLACE FUNCTION keep(p regclass) RETURNS regclass LANGUAGE plpgsql AS
               $$ BEGIN EXECUTE format('CREATE TABLE public.kept AS TABLE %s', p); RETURN 'public.kept'::regclass; END $$",
        ],
    );
    mended(c, "archives", "warn");
    assert_status(c, "maintenance", "ok");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM kept"), 1);
}

#[test]
fn a_table_that_is_gone_is_told_until_the_pair_is_let_go_of() {
    let (_database, mut client) = live("gone");
    let c = &mut client;
    without_ddl(c, &["DROP TABLE revenues_partitioned"]);
    mended_away(c, "tables", "fail");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM partition_router.status"), 0);
}

#[test]
fn a_standby_that_is_behind_says_so_and_no_replica_is_fine() {
    let cluster = Arc::new(Cluster::start(&[]));
    let mut primary = cluster.connect("postgres");
    run(
        &mut primary,
        &["CREATE EXTENSION partition_router", "CREATE TABLE t (id int)"],
    );
    assert_eq!(status(&mut primary, "replica_lag").1, "no replica is connected");
    let standby = cluster.standby(&[]);
    let mut s = standby.connect("postgres");
    run(
        &mut s,
        &[
            "LOAD 'partition_router'",
            "SET partition_router.max_replica_lag = 0",
        ],
    );
    run(&mut s, &["SELECT pg_wal_replay_pause()"]);
    run(&mut primary, &["INSERT INTO t SELECT generate_series(1, 1000)"]);
    let wait = |client: &mut Client, query: &str| {
        let started = Instant::now();
        while !one::<bool>(client, query) {
            assert!(started.elapsed() < Duration::from_secs(60), "{query}");
            std::thread::yield_now();
        }
    };
    wait(
        &mut s,
        "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()",
    );
    assert_status(&mut s, "replica_lag", "warn");
    let behind = "SELECT partition_router.openmetrics() ~ 'replica_lag_bytes\\{replica=\"walreceiver\",kind=\"physical\"\\} [1-9]'";
    wait(&mut primary, behind);
    let mend = mend_of(&mut s, "replica_lag");
    run(&mut s, &[&mend]);
    wait(
        &mut s,
        "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()",
    );
    assert_status(&mut s, "replica_lag", "ok");
    assert!(status(&mut primary, "replica_lag").1.starts_with("replicas: 1"));
}

#[test]
fn verify_partitions_says_what_health_says() {
    let (_database, mut client) = live("machine");
    let c = &mut client;
    run(c, &["SELECT setval('revenues_id_seq', 2100000000)"]);
    assert!(one::<bool>(
        c,
        "SELECT v ->> 'status' = 'fail' AND NOT (v ->> 'valid')::boolean AND v -> 'checks' = (
             SELECT jsonb_agg(to_jsonb(h)) FROM partition_router.health h)
         FROM partition_router.verify_partitions() v"
    ));
}
