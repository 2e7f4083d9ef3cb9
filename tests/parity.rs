//! Proof that both sides are equal, what it finds when they are not, and making them equal again.

mod common;

use common::{Database, assert_equal_sides, one, plant, run, texts};
use postgres::Client;

const TABLES: &[&str] = &[
    "CREATE TABLE t (id serial PRIMARY KEY, gone int, at date NOT NULL, amount numeric, \"Note é\" text, js jsonb)",
    "ALTER TABLE t DROP COLUMN gone",
    "INSERT INTO t (at, amount, \"Note é\", js)
        SELECT date '2026-01-01' + g % 90, g / 3.0, CASE WHEN g % 5 = 0 THEN NULL ELSE repeat('x' || g, g) END,
               jsonb_build_object('g', g) FROM generate_series(1, 1000) g",
];

fn live(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &["CALL partition_router.migrate('t', 'at')"]);
    (database, client)
}

/// A missing row, an extra one and two different ones.
fn plant_four(client: &mut Client) {
    plant(
        client,
        "t",
        &[
            "INSERT INTO t (id, at, amount) VALUES (5001, '2026-01-05', 1)",
            "DELETE FROM t WHERE id = 40",
            "UPDATE t SET amount = amount + 1 WHERE id = 50",
            "UPDATE t SET \"Note é\" = '' WHERE id = 55",
        ],
    );
}

fn passes(client: &mut Client, level: &str) -> bool {
    one(
        client,
        &format!("SELECT bool_and(matches) FROM partition_router.verify('t', '{level}')"),
    )
}

const SIDES: &str = "id, at, amount, \"Note é\", js";

#[test]
fn each_level_passes_on_equal_sides_and_counts_by_partition() {
    let (_database, mut client) = live("equal");
    let c = &mut client;
    for level in ["counts", "checksum", "rows"] {
        let query = format!(
            "SELECT concat_ws(' ', partition, legacy_rows, twin_rows, matches) FROM partition_router.verify('t', '{level}')
             WHERE legacy_rows > 0 ORDER BY partition::text"
        );
        let counts = texts(
            c,
            "SELECT concat_ws(' ', 't_' || to_char(at, 'YYYY_MM'), count(*), count(*), 't') FROM t GROUP BY to_char(at, 'YYYY_MM') ORDER BY 1",
        );
        assert_eq!(texts(c, &query), counts, "{level}");
        let with_checksum: i64 = one(
            c,
            &format!(
                "SELECT count(legacy_checksum) FROM partition_router.verify('t', '{level}') WHERE legacy_checksum = twin_checksum"
            ),
        );
        assert_eq!(with_checksum == 0, level == "counts", "{level}");
        let recorded: String = one(c, "SELECT verified_level FROM partition_router.status");
        assert_eq!(recorded, level);
    }
}

#[test]
fn a_proof_is_recorded_with_its_snapshot_its_time_and_what_it_found() {
    let (_database, mut client) = live("recorded");
    let c = &mut client;
    for level in ["counts", "checksum", "rows"] {
        run(c, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
        let snapshot: String = one(c, "SELECT pg_current_snapshot()::text");
        assert!(passes(c, level));
        let recorded: String = one(
            c,
            "SELECT concat_ws(' ', stage, detail ->> 'level', detail ->> 'snapshot', (detail ->> 'seconds')::float8 > 0,
                 detail ->> 'legacy_rows', detail ->> 'twin_rows',
                 detail ->> 'legacy_checksum' = detail ->> 'twin_checksum', length(detail ->> 'twin_checksum'))
             FROM partition_router.run_log WHERE operation = 'verify' ORDER BY id DESC LIMIT 1",
        );
        let digest = if level == "counts" { "" } else { " t 32" };
        assert_eq!(
            recorded,
            format!("PASSED {level} {snapshot} t 1000 1000{digest}"),
            "{level}"
        );
        run(c, &["COMMIT"]);
    }
}

#[test]
fn what_was_planted_is_found_and_named() {
    let (_database, mut client) = live("planted");
    let c = &mut client;
    plant_four(c);
    let found = texts(
        c,
        "SELECT concat_ws(' ', kind, key ->> 'id', legacy IS NULL, twin IS NULL) FROM partition_router.mismatches('t') ORDER BY (key ->> 'id')::int",
    );
    assert_eq!(
        found,
        [
            "extra 40 t f",
            "different 50 f f",
            "different 55 f f",
            "missing 5001 f t"
        ]
    );
    assert_eq!(
        one::<String>(
            c,
            "SELECT concat_ws(' ', key ->> 'at', legacy ->> 'Note é' = '', length(twin ->> 'Note é') IS NULL)
             FROM partition_router.mismatches('t') WHERE key ->> 'id' = '55'"
        ),
        "2026-02-25 t t"
    );
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.mismatches('t', 2)"),
        2
    );
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.mismatches('t', 0)"),
        0
    );
    assert!(!passes(c, "checksum"));
    assert!(!passes(c, "rows"));
    assert_eq!(
        texts(
            c,
            "SELECT stage || ' ' || (detail ->> 'level') FROM partition_router.run_log WHERE operation = 'verify' ORDER BY id"
        ),
        ["PASSED checksum", "FAILED checksum", "FAILED rows"]
    );
    assert_eq!(
        one::<i64>(c, "SELECT count(verified_at) FROM partition_router.status"),
        0
    );
    let failing = texts(
        c,
        "SELECT partition::text FROM partition_router.verify('t', 'rows') WHERE NOT matches ORDER BY 1",
    );
    assert_eq!(failing, ["t_2026_01", "t_2026_02"]);
}

#[test]
fn counts_find_a_missing_row_and_not_a_different_one() {
    let (_database, mut client) = live("counts");
    let c = &mut client;
    plant(c, "t_2026_01", &["UPDATE t_2026_01 SET amount = 0 WHERE id = 1"]);
    assert!(passes(c, "counts") && !passes(c, "checksum"));
    plant(c, "t_2026_01", &["DELETE FROM t_2026_01 WHERE id = 1"]);
    assert!(!passes(c, "counts"));
    // A row in the wrong partition has the right total.
    run(c, &["SELECT partition_router.repair('t')"]);
    assert!(passes(c, "rows"));
}

#[test]
fn repair_mends_once_and_then_has_nothing_to_do() {
    let (_database, mut client) = live("repair");
    let c = &mut client;
    plant_four(c);
    let repair = |c: &mut Client, dry: bool| -> String {
        one(
            c,
            &format!(
                "SELECT concat_ws(' ', inserted, updated, deleted) FROM partition_router.repair('t', {dry})"
            ),
        )
    };
    assert_eq!(repair(c, true), "1 2 1");
    assert!(!passes(c, "rows"), "a dry run mended something");
    assert_eq!(repair(c, false), "1 2 1");
    assert_eq!(repair(c, false), "0 0 0");
    assert_equal_sides(c, "t", "t_partitioned", SIDES);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM t WHERE id IN (40, 5001)"),
        1,
        "the legacy is the truth"
    );
    // A row that sits in the partition of another key.
    plant(c, "t", &["UPDATE t SET at = at + 60 WHERE id IN (7, 8)"]);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.mismatches('t')"),
        4
    );
    repair(c, false);
    assert_equal_sides(c, "t", "t_partitioned", SIDES);
}

#[test]
fn a_partition_made_by_hand_is_reported_and_repair_takes_it_in() {
    let (_database, mut client) = live("by_hand");
    let status = "SELECT status FROM partition_router.health WHERE \"check\" = 'partition_sync'";
    assert_eq!(one::<String>(&mut client, status), "ok");
    run(
        &mut client,
        &[
            "SET partition_router.carry_ddl = off",
            "CREATE TABLE by_hand PARTITION OF t_partitioned FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')",
        ],
    );
    assert_eq!(one::<String>(&mut client, status), "fail");
    run(&mut client, &["SELECT partition_router.repair('t')"]);
    assert_eq!(one::<String>(&mut client, status), "ok");
    let before: i64 = one(&mut client, "SELECT count(*) FROM t");
    run(
        &mut client,
        &[
            "UPDATE t SET at = '2090-01-05' WHERE id = (SELECT min(id) FROM t)",
            "DELETE FROM by_hand",
        ],
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM t"), before - 1);
    assert!(passes(&mut client, "rows"));
}

#[test]
fn repair_under_writes_ends_with_equal_sides() {
    let (database, mut client) = live("repair_writes");
    plant(
        &mut client,
        "t_partitioned",
        &[
            "DELETE FROM t_partitioned WHERE id % 2 = 0",
            "UPDATE t_partitioned SET amount = -1 WHERE id % 5 = 1",
        ],
    );
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = database.connect();
            for i in 0..200 {
                run(
                    &mut writer,
                    &[
                        &format!(
                            "UPDATE t SET amount = {i}, at = at + {} WHERE id = {}",
                            i % 3 * 20,
                            i % 50 + 1
                        ),
                        &format!("DELETE FROM t WHERE id = {}", 300 + i),
                        &format!(
                            "INSERT INTO t (id, at, amount) VALUES ({}, '2026-02-02', {i})",
                            300 + i
                        ),
                    ],
                );
            }
        });
        while !writer.is_finished() {
            // A deadlock with the writer is an error of the repair's, not of the writer's.
            if let Err(error) = client.batch_execute("SELECT partition_router.repair('t')") {
                let code = error.as_db_error().map(|e| e.code().code().to_string());
                assert_eq!(code.as_deref(), Some("40P01"), "{error:?}");
            }
        }
        writer.join().expect("no write failed");
    });
    run(&mut client, &["SELECT partition_router.repair('t')"]);
    assert_equal_sides(&mut client, "t", "t_partitioned", SIDES);
}

#[test]
fn verify_is_exact_while_applications_write() {
    let (database, mut client) = live("traffic");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = database.connect();
            for i in 0..150 {
                run(
                    &mut writer,
                    &[
                        &format!(
                            "UPDATE t SET at = '2026-01-01'::date + {} WHERE id % 10 = {}",
                            i % 90,
                            i % 10
                        ),
                        &format!("DELETE FROM t_partitioned WHERE id = {}", i + 1),
                        "INSERT INTO t (at) VALUES ('2026-03-01')",
                    ],
                );
            }
        });
        let mut verified = 0;
        while !writer.is_finished() {
            for level in ["counts", "checksum", "rows"] {
                assert!(passes(&mut client, level), "{level}");
            }
            verified += 1;
        }
        writer.join().expect("no write failed");
        assert!(verified > 0);
    });
    assert_equal_sides(&mut client, "t", "t_partitioned", SIDES);
}

#[test]
fn a_checksum_depends_on_values_alone() {
    let database = Database::new("canonical");
    let mut client = database.connect();
    let c = &mut client;
    let value = "repeat('0123456789', 2000)";
    run(
        c,
        &[
            // The same rows, laid out in two ways.
            "CREATE TABLE a (id int PRIMARY KEY, at date NOT NULL, x text, y float8, z timestamptz, n numeric)",
            "CREATE TABLE b (junk int, n numeric, z timestamptz, y float8, x text, at date NOT NULL, id int PRIMARY KEY, more text)",
            "ALTER TABLE b DROP COLUMN junk, DROP COLUMN more",
            "ALTER TABLE a ALTER x SET STORAGE EXTERNAL",
            "ALTER TABLE b ALTER x SET STORAGE MAIN, ALTER x SET COMPRESSION lz4",
            &format!(
                "INSERT INTO a SELECT g, '2026-01-01', {value}, g / 3.0, '2026-01-01 12:00+02', 1.50 FROM generate_series(1, 50) g"
            ),
            "INSERT INTO b (id, at, x, y, z, n) SELECT * FROM a ORDER BY id DESC",
            "CALL partition_router.migrate('a', 'at')",
            "CALL partition_router.migrate('b', 'at')",
        ],
    );
    let checksum = |c: &mut Client, table: &str| -> String {
        one(
            c,
            &format!(
                "SELECT string_agg(legacy_checksum || twin_checksum, ' ' ORDER BY partition) FROM partition_router.verify('{table}')"
            ),
        )
    };
    let first = checksum(c, "a");
    assert_eq!(first, checksum(c, "b"));
    run(
        c,
        &[
            "SET datestyle = 'German'",
            "SET timezone = 'Asia/Tokyo'",
            "SET extra_float_digits = -10",
            "SET bytea_output = 'escape'",
            "SET intervalstyle = 'iso_8601'",
            "VACUUM FULL a",
        ],
    );
    assert_eq!(first, checksum(c, "a"));
    // The scale of a numeric is part of its value.
    run(c, &["UPDATE a SET n = 1.5 WHERE id = 1"]);
    assert_ne!(first, checksum(c, "a"));
}

#[test]
fn values_that_compare_equal_but_differ_in_bytes_are_different() {
    let (_database, mut client) = live("bytes");
    let c = &mut client;
    plant(c, "t", &["UPDATE t SET amount = trim_scale(amount) WHERE id = 3"]);
    assert!(!passes(c, "checksum"));
    assert_eq!(
        one::<String>(c, "SELECT kind FROM partition_router.mismatches('t')"),
        "different"
    );
    run(c, &["SELECT partition_router.repair('t')"]);
    assert!(passes(c, "rows"));
}

#[test]
fn a_read_only_or_repeatable_read_transaction_can_verify() {
    let (_database, mut client) = live("read_only");
    let c = &mut client;
    let verdicts: i64 = one(c, "SELECT count(*) FROM partition_router.run_log");
    for begin in [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
    ] {
        run(c, &[begin]);
        for level in ["counts", "checksum", "rows"] {
            assert!(passes(c, level), "{begin} {level}");
        }
        assert_eq!(
            one::<i64>(c, "SELECT count(*) FROM partition_router.mismatches('t')"),
            0
        );
        run(c, &["COMMIT"]);
    }
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.run_log"),
        verdicts
    );
    run(c, &["BEGIN ISOLATION LEVEL SERIALIZABLE"]);
    assert!(passes(c, "rows"));
    run(c, &["COMMIT"]);
}

#[test]
fn either_side_or_a_partition_names_the_pair() {
    let (_database, mut client) = live("either");
    for relation in ["t", "t_partitioned", "t_2026_01"] {
        let rows: i64 = one(
            &mut client,
            &format!("SELECT sum(legacy_rows)::bigint FROM partition_router.verify('{relation}')"),
        );
        assert_eq!(rows, 1000, "{relation}");
    }
}
