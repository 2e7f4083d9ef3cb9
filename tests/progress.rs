//! What a person who waits for a migration sees, and what a view says meanwhile.

mod common;

use common::{Database, one, run};

const TABLE: &str =
    "CREATE TABLE revenues (id serial PRIMARY KEY, occurred_at timestamp NOT NULL, amount int)";
const ROWS: &str = "INSERT INTO revenues (occurred_at, amount)
    SELECT timestamp '2026-01-15' + g % 100 * interval '1 day', g FROM generate_series(1, 20000) g";
const WIDE: &str = "ALTER TABLE revenues ADD COLUMN note text NOT NULL DEFAULT repeat('x', 400)";

#[test]
fn a_migration_says_when_a_stage_begins_and_does_not_flood() {
    let database = Database::new("notices");
    let (mut client, notices) = database.connect_hearing();
    run(
        &mut client,
        &[
            TABLE,
            WIDE,
            ROWS,
            "SELECT partition_router.create_twin('revenues', 'occurred_at')",
            "SELECT partition_router.start_sync('revenues')",
        ],
    );
    notices.try_iter().for_each(drop);
    run(
        &mut client,
        &[
            "CALL partition_router.backfill('revenues', 200)",
            "CALL partition_router.migrate('revenues', 'occurred_at')",
        ],
    );
    let heard: Vec<String> = notices.try_iter().collect();
    let stages: Vec<&str> = heard.iter().filter_map(|n| n.split(": ").nth(1)).collect();
    assert_eq!(
        stages.iter().fold(Vec::new(), |mut distinct: Vec<&str>, stage| {
            if distinct.last() != Some(stage) {
                distinct.push(stage);
            }
            distinct
        }),
        ["copy", "index", "drain", "flip", "finish", "done", "verify"],
        "{heard:?}"
    );
    // Without a pace each batch and each partition would say something: some fifty lines.
    assert!(heard.len() < 20, "{heard:?}");
    assert!(
        heard.iter().any(|n| n.contains("20,000 rows copied")),
        "{heard:?}"
    );
}

#[test]
fn progress_tells_the_total_from_the_blocks_read_also_of_a_table_never_analysed() {
    let database = Database::new("progress");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            TABLE,
            "ALTER TABLE revenues SET (autovacuum_enabled = off)",
            ROWS,
            "INSERT INTO revenues (occurred_at, amount) SELECT occurred_at, amount FROM revenues",
            "SELECT partition_router.create_twin('revenues', 'occurred_at')",
            "SELECT partition_router.start_sync('revenues')",
            "SELECT partition_router.backfill_step('revenues', 10000)",
            "SELECT partition_router.backfill_step('revenues', 10000)",
        ],
    );
    let total: i64 = one(&mut client, "SELECT rows_total FROM partition_router.progress");
    assert!((39_000..=41_000).contains(&total), "{total} of 40000");
    let half: bool = one(
        &mut client,
        "SELECT rows_done BETWEEN 10000 AND 39000 AND percent BETWEEN 20 AND 98 AND rows_per_second > 0
            AND eta > '0' AND stage = 'copy' FROM partition_router.progress",
    );
    assert!(half, "the copy is half done");
    run(&mut client, &["CALL partition_router.backfill('revenues')"]);
    let done: bool = one(
        &mut client,
        "SELECT stage = 'done' AND rows_done = 40000 AND rows_total = 40000 AND eta IS NULL
         FROM partition_router.progress",
    );
    assert!(done, "the copy is done");
}

/// Dropping a foreign key locks the table that it points at: within the budget, and with nothing in hand while waiting.
#[test]
fn abandon_does_not_hold_the_legacy_while_a_table_it_points_at_is_read() {
    let database = Database::new("abandon_locks");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE organizations (id int PRIMARY KEY)",
            "INSERT INTO organizations VALUES (1)",
            "CREATE TABLE revenues (id serial PRIMARY KEY, org_id int REFERENCES organizations, at date NOT NULL)",
            "INSERT INTO revenues (org_id, at) VALUES (1, '2026-01-01')",
            "CALL partition_router.migrate('revenues', 'at')",
        ],
    );
    let mut reader = database.connect();
    run(&mut reader, &["BEGIN", "SELECT * FROM organizations"]);
    let abandoning = std::thread::spawn(move || {
        run(&mut client, &["SELECT partition_router.abandon('revenues')"]);
        client
    });
    let mut writer = database.connect();
    while !one::<bool>(
        &mut writer,
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'organizations'::regclass)",
    ) {
        assert!(!abandoning.is_finished(), "abandon did not wait for the reader");
    }
    run(
        &mut writer,
        &[
            "SET lock_timeout = '5s'",
            "INSERT INTO revenues (org_id, at) VALUES (1, '2026-01-02')",
        ],
    );
    run(&mut reader, &["COMMIT"]);
    let mut client = abandoning.join().expect("abandon ends well");
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
        0
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM revenues"), 2);
}
