//! The way back: `abandon` leaves the schema as it was before, and the extension can go at any time.

mod common;

use common::{Database, assert_equal_sides, one, run, sqlstate};
use postgres::Client;

/// The schema `s` as `pg_dump` writes it.
fn dump(database: &Database) -> String {
    database.schema_dump(&["--schema=s"])
}

const TABLES: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.orgs (id int PRIMARY KEY)",
    "INSERT INTO s.orgs VALUES (1), (2)",
    "CREATE FUNCTION s.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TABLE s.\"T é\" (id serial PRIMARY KEY, at timestamp NOT NULL DEFAULT now(), org int REFERENCES s.orgs,
        idn int GENERATED ALWAYS AS IDENTITY, code text UNIQUE DEFERRABLE, amount int CHECK (amount >= 0))
        WITH (fillfactor = 80)",
    "CREATE TABLE s.child (id int PRIMARY KEY, parent int REFERENCES s.\"T é\" ON DELETE CASCADE)",
    "CREATE INDEX ON s.\"T é\" (org, at DESC) WHERE amount > 5",
    "CREATE STATISTICS s.st ON org, code FROM s.\"T é\"",
    "CREATE VIEW s.v AS SELECT id, amount FROM s.\"T é\"",
    "CREATE TRIGGER before BEFORE UPDATE ON s.\"T é\" FOR EACH ROW EXECUTE FUNCTION s.nothing()",
    "ALTER TABLE s.\"T é\" ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON s.\"T é\" USING (amount > 0)",
    "GRANT SELECT ON s.\"T é\" TO PUBLIC",
    "COMMENT ON TABLE s.\"T é\" IS 'a table'",
    "INSERT INTO s.\"T é\" (at, org, code, amount)
        SELECT timestamp '2026-01-01' + g * interval '1 hour', 1 + g % 2, 'c' || g, g FROM generate_series(1, 3000) g",
    "INSERT INTO s.child SELECT g, g FROM generate_series(1, 100) g",
];

const T: &str = "'s.\"T é\"'";

fn prepared(client: &mut Client) {
    run(
        client,
        &[&format!("SELECT partition_router.create_twin({T}, 'at')")],
    );
}

fn copying(client: &mut Client) {
    prepared(client);
    run(client, &[&format!("SELECT partition_router.start_sync({T})")]);
}

/// Steps until the copy is at a stage.
fn at_stage(client: &mut Client, stage: &str) {
    copying(client);
    for _ in 0..100 {
        let now = "SELECT coalesce((SELECT stage FROM partition_router.copy_state), 'none')";
        if one::<String>(client, now) == stage {
            return;
        }
        run(
            client,
            &[
                &format!("SELECT partition_router.backfill_step({T}, 500)"),
                "UPDATE s.\"T é\" SET amount = amount + 1 WHERE id % 500 = 7",
            ],
        );
    }
    panic!("the copy never came to {stage}");
}

/// What is left in the extension's own tables.
const LEFT: &str =
    "SELECT (SELECT count(*) FROM partition_router.pair) + (SELECT count(*) FROM partition_router.policy)
    + (SELECT count(*) FROM partition_router.copy_state) + (SELECT count(*) FROM partition_router.rollout)
    + (SELECT count(*) FROM pg_class WHERE relname LIKE 'change\\_log%')";

fn leaves_no_trace(name: &str, reach: impl FnOnce(&mut Client)) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, TABLES);
    let before = dump(&database);
    assert!(before.contains("CREATE TRIGGER before"), "{before}");
    reach(&mut client);
    assert_ne!(dump(&database), before);
    run(&mut client, &[&format!("SELECT partition_router.abandon({T})")]);
    assert_eq!(dump(&database), before);
    assert_eq!(one::<i64>(&mut client, LEFT), 0);
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT stage FROM partition_router.run_log ORDER BY id DESC LIMIT 1"
        ),
        "ABANDONED"
    );
    // And again, to the end.
    run(
        &mut client,
        &[
            "UPDATE s.\"T é\" SET amount = amount + 1",
            &format!("CALL partition_router.migrate({T}, 'at', partition_interval => '3 months')"),
            "DELETE FROM s.\"T é\" WHERE id = 5",
        ],
    );
    assert_equal_sides(
        &mut client,
        "s.\"T é\"",
        "s.\"T é_partitioned\"",
        "id, at, org, idn, code, amount",
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.child"), 99);
}

#[test]
fn abandon_from_prepared_leaves_no_trace() {
    leaves_no_trace("prepared", prepared);
}

#[test]
fn abandon_before_the_first_row_is_copied_leaves_no_trace() {
    leaves_no_trace("copying", copying);
}

#[test]
fn abandon_in_the_middle_of_the_copy_leaves_no_trace() {
    leaves_no_trace("half", |client| {
        // The copy goes by chunks of blocks.
        run(
            client,
            &[
                "INSERT INTO s.\"T é\" (at, code) SELECT '2026-02-01', 'd' || g FROM generate_series(1, 40000) g",
            ],
        );
        copying(client);
        let mut copied: i64 = 0;
        while copied == 0 {
            run(
                client,
                &[&format!("SELECT partition_router.backfill_step({T}, 500)")],
            );
            copied = one(
                client,
                "SELECT coalesce(max(rows_done), 0)::bigint FROM partition_router.progress",
            );
        }
        assert!(copied < 43000, "{copied}");
    });
}

#[test]
fn abandon_at_every_later_stage_of_the_copy_leaves_no_trace() {
    for stage in ["index", "drain", "flip", "finish"] {
        leaves_no_trace(stage, |client| at_stage(client, stage));
    }
}

#[test]
fn abandon_from_live_leaves_no_trace() {
    leaves_no_trace("live", |client| {
        run(
            client,
            &[
                &format!("CALL partition_router.migrate({T}, 'at')"),
                &format!("SELECT partition_router.set_rollout({T}, 50, ARRAY['a'])"),
                "INSERT INTO s.\"T é_partitioned\" (org, code) VALUES (1, 'through the twin')",
            ],
        );
    });
}

#[test]
fn abandon_after_a_switchover_leaves_no_trace() {
    for back in [false, true] {
        leaves_no_trace("switched", |client| {
            run(
                client,
                &[
                    &format!("CALL partition_router.migrate({T}, 'at')"),
                    &format!("CALL partition_router.switchover({T})"),
                    "INSERT INTO s.\"T é\" (org, code) VALUES (1, 'under the new name')",
                ],
            );
            if back {
                run(client, &[&format!("CALL partition_router.rollback({T})")]);
            }
        });
    }
}

#[test]
fn abandon_does_not_drop_what_depends_on_the_twin() {
    let database = Database::new("depends");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            &format!("CALL partition_router.migrate({T}, 'at')"),
            "CREATE VIEW s.mine AS SELECT * FROM s.\"T é_partitioned\"",
        ],
    );
    let abandon = format!("SELECT partition_router.abandon({T})");
    assert_eq!(sqlstate(&mut client, &abandon), "2BP01");
    run(
        &mut client,
        &["INSERT INTO s.\"T é\" (org, code) VALUES (1, 'still in step')"],
    );
    assert_equal_sides(
        &mut client,
        "s.\"T é\"",
        "s.\"T é_partitioned\"",
        "id, at, org, idn, code, amount",
    );
    run(&mut client, &["DROP VIEW s.mine", &abandon]);
}

#[test]
fn abandon_gives_up_when_a_reader_holds_the_table_and_leaves_the_pair_as_it_was() {
    let database = Database::new("locked");
    let mut client = database.connect();
    let mut reader = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            &format!("CALL partition_router.migrate({T}, 'at')"),
            "SET partition_router.lock_timeout = '10ms'",
        ],
    );
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.\"T é\""]);
    let abandon = format!("SELECT partition_router.abandon({T})");
    let error = client.batch_execute(&abandon).expect_err("the table is locked");
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "55P03", "{error:?}");
    assert!(error.hint().is_some());
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "live"
    );
    run(&mut reader, &["COMMIT"]);
    run(&mut client, &[&abandon]);
}

#[test]
fn the_extension_can_be_dropped_at_any_time_and_the_tables_go_on() {
    for stage in ["prepared", "copy", "drain", "live"] {
        let database = Database::new("drop_extension");
        let mut client = database.connect();
        run(&mut client, TABLES);
        match stage {
            "prepared" => prepared(&mut client),
            "live" => run(
                &mut client,
                &[&format!("CALL partition_router.migrate({T}, 'at')")],
            ),
            _ => at_stage(&mut client, stage),
        }
        let rows: i64 = one(&mut client, "SELECT count(*) FROM s.\"T é\"");
        run(
            &mut client,
            &[
                "DROP EXTENSION partition_router CASCADE",
                "INSERT INTO s.\"T é\" (org, code) VALUES (1, 'new')",
                "UPDATE s.\"T é\" SET amount = 1 WHERE id = 1",
                "DELETE FROM s.\"T é\" WHERE id = 2",
                "INSERT INTO s.\"T é_partitioned\" (org, code) VALUES (1, 'no longer a twin')",
            ],
        );
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.\"T é\""), rows);
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'sync\\_to%'";
        assert_eq!(one::<i64>(&mut client, triggers), 0, "{stage}");
        run(
            &mut client,
            &[
                "DROP TABLE s.\"T é_partitioned\"",
                "CREATE EXTENSION partition_router",
            ],
        );
        run(
            &mut client,
            &[&format!("CALL partition_router.migrate({T}, 'at')")],
        );
    }
}

/// What of the extension is in a database, apart from tables of users.
const OF_THE_EXTENSION: &str =
    "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'partition\\_router%'
    UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class
        WHERE relname LIKE 'partition\\_router\\_%' OR relname LIKE 'change\\_log%'
    UNION ALL SELECT 'trigger ' || tgname || ' of ' || tgrelid::regclass FROM pg_trigger
        WHERE NOT tgisinternal AND tgname NOT IN ('before', 'mine')
    UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE probin LIKE '%partition_router%'
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger";

/// Drops the extension; then nothing of it is left, the tables have the rows that they had, and take every kind of write. Each takes
/// a number and a day. Gives the tables that what was under way has left.
fn goes_and_the_tables_go_on(client: &mut Client, case: &str, tables: &[&str]) -> Vec<String> {
    let sum = |client: &mut Client, table: &str| -> String {
        one(
            client,
            &format!(
                "SELECT format('%s %s', count(*), md5(string_agg(id || ' ' || at, ',' ORDER BY id, at))) FROM {table}"
            ),
        )
    };
    let before: Vec<String> = tables.iter().map(|table| sum(client, table)).collect();
    run(client, &["DROP EXTENSION partition_router CASCADE"]);
    let left = common::texts(client, OF_THE_EXTENSION);
    let tables_left: Vec<String> = left
        .iter()
        .filter_map(|line| line.strip_prefix("relation partition_router_"))
        .map(str::to_string)
        .collect();
    assert_eq!(left.len(), tables_left.len(), "{case}: {left:?}");
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(&sum(client, table), before, "{case}: {table}");
    }
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: i64 = one(client, &count);
        run(
            client,
            &[
                &format!(
                    "INSERT INTO {table} (id, at) VALUES (100001, '2026-01-02'), (100002, '2026-02-02')"
                ),
                &format!("COPY {table} (id, at) FROM PROGRAM 'echo 100003,2026-01-03' WITH (FORMAT csv)"),
                &format!("UPDATE {table} SET at = at + 1 WHERE id > 100000"),
                &format!("UPDATE {table} SET id = id + 10 WHERE id = 100002"),
                &format!("DELETE FROM {table} WHERE id = 100001"),
            ],
        );
        assert_eq!(one::<i64>(client, &count), rows + 2, "{case}: {table}");
    }
    for table in tables {
        run(client, &[&format!("TRUNCATE {table}")]);
        assert_eq!(
            one::<i64>(client, &format!("SELECT count(*) FROM {table}")),
            0,
            "{case}: {table}"
        );
    }
    run(client, &["CREATE EXTENSION partition_router"]);
    let again = "SELECT count(*) FROM partition_router.status";
    assert_eq!(one::<i64>(client, again), 0, "{case}");
    tables_left
}

#[test]
fn the_extension_can_be_dropped_after_a_switchover_and_with_a_guard_or_a_feed() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        (
            "switched",
            &["CALL partition_router.switchover('t')"],
            &["t", "t_legacy"],
        ),
        (
            "back",
            &[
                "CALL partition_router.switchover('t')",
                "CALL partition_router.rollback('t')",
            ],
            &["t", "t_partitioned"],
        ),
        (
            "a guard",
            &[
                "CALL partition_router.switchover('t')",
                "CALL partition_router.cleanup('t', keep_unique => true)",
            ],
            &["t"],
        ),
        (
            "a feed",
            &["SELECT partition_router.enable_change_feed('t', ARRAY['id'])"],
            &["t", "t_partitioned"],
        ),
        (
            "a feed of what is switched, a policy and a held partition",
            &[
                "SELECT partition_router.enable_change_feed('t', ARRAY['id'])",
                "CALL partition_router.switchover('t')",
                "SELECT partition_router.set_policy('t', retention => '24 months')",
                "SELECT partition_router.hold('t_2026_01')",
            ],
            &["t", "t_legacy"],
        ),
    ];
    for (case, steps, tables) in cases {
        let database = Database::new("drop_later");
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, code text UNIQUE)",
                "INSERT INTO t SELECT g, date '2026-01-01' + g % 60, 'c' || g FROM generate_series(1, 500) g",
                "CALL partition_router.migrate('t', 'at')",
            ],
        );
        run(&mut client, steps);
        run(&mut client, &["UPDATE t SET code = code || '!' WHERE id < 50"]);
        let left = goes_and_the_tables_go_on(&mut client, case, tables);
        assert!(left.is_empty(), "{case}: {left:?}");
    }
}

#[test]
fn the_extension_can_be_dropped_beside_a_default_that_is_drained() {
    let task = "SELECT creating[1] FROM partition_router.maintenance_tasks('t')";
    for stage in ["copy", "index", "flip"] {
        let database = Database::new("drop_draining");
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "CREATE TABLE t (id int NOT NULL, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
                "CREATE TABLE t_default PARTITION OF t DEFAULT",
                "INSERT INTO t SELECT g, date '2026-01-01' + g % 60 FROM generate_series(1, 8000) g",
                "SELECT partition_router.manage('t', '1 month', premake => 1)",
            ],
        );
        let task: String = one(&mut client, task);
        let now = "SELECT coalesce((SELECT stage FROM partition_router.drain), 'none')";
        while one::<String>(&mut client, now) != stage {
            let step = format!("SELECT partition_router.maintenance_task('t', '{task}')");
            assert!(one::<bool>(&mut client, &step), "{stage}");
            run(&mut client, &["UPDATE t SET id = id + 10000 WHERE id % 2000 = 7"]);
        }
        run(&mut client, &["SELECT partition_router.maintenance_let_go()"]);
        let left = goes_and_the_tables_go_on(&mut client, stage, &["t"]);
        assert!(!left.is_empty(), "{stage}: the page says otherwise");
        let tables: String = left
            .iter()
            .map(|table| format!("DROP TABLE IF EXISTS partition_router_{table};"))
            .collect();
        run(&mut client, &[&tables]);
    }
}

#[test]
fn the_extension_can_be_dropped_beside_a_partition_that_is_on_another_server_or_on_its_way() {
    for state in ["copying", "copied", "proven", "placed"] {
        let (database, far) = (Database::new("drop_placed"), Database::new("drop_far"));
        let mut client = database.connect();
        run(
            &mut far.connect(),
            &[
                "CREATE TABLE t_2026_01 (id int NOT NULL, at date NOT NULL, CHECK (at >= '2026-01-01' AND at < '2026-02-01'))",
            ],
        );
        run(
            &mut client,
            &[
                "CREATE EXTENSION postgres_fdw",
                &format!(
                    "CREATE SERVER cold FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '5432', dbname '{}')",
                    far.cluster.socket(),
                    far.name
                ),
                "CREATE USER MAPPING FOR CURRENT_USER SERVER cold OPTIONS (user 'postgres')",
                "CREATE TABLE t (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at)",
                "CREATE TABLE t_2026_01 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
                "CREATE TABLE t_2026_02 PARTITION OF t FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
                "INSERT INTO t SELECT g, date '2026-01-01' + g % 59 FROM generate_series(1, 500) g",
                "SELECT partition_router.manage('t', '1 month')",
            ],
        );
        let now = "SELECT coalesce((SELECT state FROM partition_router.placement), 'none')";
        let step = "SELECT partition_router.place_step('t_2026_01', 'cold')";
        match state {
            "placed" => run(&mut client, &["CALL partition_router.place('t_2026_01', 'cold')"]),
            _ => {
                while one::<String>(&mut client, now) != state {
                    assert!(one::<bool>(&mut client, step));
                }
            }
        }
        let left = goes_and_the_tables_go_on(&mut client, state, &["t"]);
        assert_eq!(left.is_empty(), state == "placed", "{state}: {left:?}");
    }
}

#[test]
fn a_table_of_a_pair_that_was_dropped_is_reported_and_can_be_let_go() {
    for (dropped, rest) in [
        ("s.\"T é_partitioned\"", "s.\"T é\""),
        ("s.\"T é\"", "s.\"T é_partitioned\""),
    ] {
        let database = Database::new("dropped");
        let mut client = database.connect();
        run(&mut client, TABLES);
        run(
            &mut client,
            &[
                &format!("CALL partition_router.migrate({T}, 'at')"),
                "SET partition_router.carry_ddl = off",
                "ALTER TABLE s.\"T é_partitioned\" ALTER id DROP DEFAULT, ALTER idn DROP DEFAULT",
                &format!("DROP TABLE {dropped} CASCADE"),
            ],
        );
        for view in [
            "status",
            "partitions",
            "progress",
            "health",
            "run_log",
            "maintenance_log",
        ] {
            run(&mut client, &[&format!("SELECT * FROM partition_router.{view}")]);
        }
        run(
            &mut client,
            &[
                "SELECT partition_router.metrics()",
                "SELECT partition_router.verify_partitions()",
            ],
        );
        assert_eq!(
            one::<i64>(
                &mut client,
                "SELECT count(*) FROM partition_router.health WHERE status = 'fail' AND \"check\" = 'tables'"
            ),
            1,
            "{dropped}"
        );
        for call in ["verify", "mismatches", "repair", "start_sync"] {
            let statement = format!("SELECT partition_router.{call}('{rest}')");
            let error = client.batch_execute(&statement).expect_err(&statement);
            let error = error.as_db_error().expect("the server answered");
            assert_ne!(error.code().code(), "XX000", "{statement}: {error:?}");
            assert!(error.hint().is_some(), "{statement}: {error:?}");
        }
        run(
            &mut client,
            &[&format!("SELECT partition_router.abandon('{rest}')")],
        );
        assert_eq!(one::<i64>(&mut client, LEFT), 0);
        // What is left is an ordinary table again.
        run(
            &mut client,
            &[
                &format!("DELETE FROM {rest} WHERE id = 1"),
                &format!("TRUNCATE {rest} CASCADE"),
            ],
        );
    }
}
