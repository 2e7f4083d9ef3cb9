//! What a person who waits for a migration sees, and what a view says meanwhile.

mod common;

use common::{Database, one, plant, run};
use postgres::Client;
use std::sync::mpsc::Receiver;
use std::time::Duration;

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

/// Runs `call` with a NOTICE at each step; gives what is heard.
fn heard(client: &mut Client, notices: &Receiver<String>, call: &str) -> Vec<String> {
    run(client, &["SET partition_router.notice_interval = 0"]);
    notices.try_iter().for_each(drop);
    run(client, &[call, "RESET partition_router.notice_interval"]);
    notices.try_iter().collect()
}

/// Whether one of the lines has all of these parts, in this order.
fn assert_said(heard: &[String], parts: &[&str]) {
    let has_all = |line: &String| {
        let mut rest = line.as_str();
        parts.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    };
    let last = &heard[heard.len().saturating_sub(50)..];
    assert!(
        heard.iter().any(has_all),
        "{parts:?} in the end of {} lines: {last:?}",
        heard.len()
    );
}

#[test]
fn long_calls_say_how_far_they_are_at_the_rate_that_was_asked_for() {
    let database = Database::new("calls_notices");
    let (mut client, notices) = database.connect_hearing();
    run(
        &mut client,
        &[
            TABLE,
            WIDE,
            ROWS,
            "CALL partition_router.migrate('revenues', 'occurred_at')",
        ],
    );
    let said = heard(
        &mut client,
        &notices,
        "SELECT partition_router.verify('revenues', 'checksum', true)",
    );
    assert_said(
        &said,
        &[
            "\"public\".\"revenues\": read: ",
            " of ",
            " blocks, ",
            " blocks/s, about ",
            " s left",
        ],
    );
    let whole = said
        .last()
        .and_then(|last| last.split(": ").nth(2))
        .expect("a last one");
    let (done, rest) = whole.split_once(" of ").expect("so many of so many");
    assert!(
        rest.starts_with(&format!("{done} blocks")),
        "all of them in the end: {said:?}"
    );
    plant(
        &mut client,
        "revenues",
        &["UPDATE revenues SET amount = -1 WHERE id <= 15000"],
    );
    let said = heard(
        &mut client,
        &notices,
        "SELECT partition_router.repair('revenues')",
    );
    assert_said(&said, &[": read: "]);
    assert_said(&said, &[": compare: ", " of ", " blocks"]);
    assert_said(&said, &[": mend: 30,000 of 30,000 rows"]);
    let said = heard(
        &mut client,
        &notices,
        "SELECT * FROM partition_router.mismatches('revenues', 5)",
    );
    assert_said(&said, &[": read: "]);

    // Nobody asked for more than one in five seconds, and all of this takes less.
    notices.try_iter().for_each(drop);
    run(
        &mut client,
        &[
            "RESET partition_router.notice_interval",
            "SELECT partition_router.verify('revenues', 'checksum', true)",
        ],
    );
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), Vec::<String>::new());

    run(
        &mut client,
        &[
            "SELECT partition_router.abandon('revenues')",
            "CREATE TABLE bookings (id int, at date NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE bookings_default PARTITION OF bookings DEFAULT",
            "INSERT INTO bookings SELECT g, date '2026-01-01' + g % 90, repeat('x', 500) FROM generate_series(1, 12000) g",
            "SELECT partition_router.manage('bookings', '1 month')",
        ],
    );
    let said = heard(
        &mut client,
        &notices,
        "CALL partition_router.run_maintenance('bookings')",
    );
    assert_said(&said, &["\"public\".\"bookings\": copy: ", " of ", " blocks"]);
    assert_said(
        &said,
        &["\"public\".\"bookings\": index: ", " of ", " partitions"],
    );
    let said = heard(
        &mut client,
        &notices,
        "CALL partition_router.unpartition('bookings')",
    );
    assert_said(&said, &["copy: ", " of ", " blocks"]);
}

/// Who waits for a lock hears who has it.
#[test]
fn a_call_that_waits_says_for_whom() {
    let database = Database::new("calls_wait");
    let mut writer = database.connect();
    run(
        &mut writer,
        &[
            TABLE,
            ROWS,
            "SELECT partition_router.create_twin('revenues', 'occurred_at')",
        ],
    );
    let pid: i32 = one(&mut writer, "SELECT pg_backend_pid()");
    run(
        &mut writer,
        &["BEGIN", "UPDATE revenues SET amount = 0 WHERE id = 1"],
    );
    let (mut client, notices) = database.connect_hearing();
    run(
        &mut client,
        &[
            "SET partition_router.notice_interval = 0",
            "SET partition_router.lock_timeout = '5ms'",
        ],
    );
    let waiting =
        std::thread::spawn(move || run(&mut client, &["SELECT partition_router.start_sync('revenues')"]));
    let waits = format!(
        "\"public\".\"revenues\": waits for SHARE ROW EXCLUSIVE: pid {pid} (idle in transaction): UPDATE revenues"
    );
    loop {
        let notice = notices
            .recv_timeout(Duration::from_secs(60))
            .expect("it says that it waits");
        if notice.starts_with(&waits) {
            break;
        }
    }
    run(&mut writer, &["COMMIT"]);
    waiting.join().expect("the call ends well");
}

/// A worker builds the index and waits for a snapshot that is older; the session that called waits for the worker.
#[test]
fn calls_at_work_are_seen_with_who_blocks_them_and_gone_when_they_end() {
    let database = Database::new("calls_view");
    let mut watcher = database.connect();
    run(
        &mut watcher,
        &[
            "CREATE TABLE bookings (id int, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE bookings_1 PARTITION OF bookings FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
            "CREATE TABLE bookings_2 PARTITION OF bookings FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
            "CREATE ROLE calls_monitor LOGIN IN ROLE pg_monitor",
        ],
    );
    let mut holder = database.connect();
    let pid: i32 = one(&mut holder, "SELECT pg_backend_pid()");
    run(
        &mut holder,
        &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"],
    );
    let mut client = database.connect();
    let own: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let building = std::thread::spawn(move || {
        run(
            &mut client,
            &["CALL partition_router.create_index('bookings', '(id)')"],
        );
        client
    });
    let mut monitor = database.connect_as("calls_monitor");
    let seen = "SELECT count(*) FILTER (WHERE blocked_by = $1::text AND pid <> $2) = 1 AND count(*) = 2
                FROM partition_router.calls
                WHERE relation = 'bookings'::regclass AND call = 'create_index' AND stage = 'index'
                  AND unit = 'partitions' AND done BETWEEN 0 AND total AND stage_began_at <= now()";
    while !monitor
        .query_one(seen, &[&pid.to_string(), &own])
        .expect("a monitor may look")
        .get::<_, bool>(0)
    {
        assert!(!building.is_finished(), "it did not wait");
    }
    run(&mut holder, &["COMMIT"]);
    let mut client = building.join().expect("the index is built");
    // Neither an idle session is at work, nor is what it did before shown while it does something else.
    assert_eq!(
        one::<i64>(&mut watcher, "SELECT count(*) FROM partition_router.calls"),
        0
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.calls"),
        0
    );
}
