//! Several sessions: writers, readers, locks.

use super::{Pair, SIDES, one, run};
use crate::common::sqlstate;
use postgres::Client;
use std::time::{Duration, Instant};

fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Waits until the session `pid` waits for a lock.
fn until_blocked(client: &mut Client, pid: i32) {
    let started = Instant::now();
    while !one::<bool>(
        client,
        &format!("SELECT cardinality(pg_blocking_pids({pid})) > 0"),
    ) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "session {pid} is not blocked"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_writer_with_cached_plans_that_waits_for_ddl_writes_what_is_there_then() {
    for side in SIDES {
        for written in SIDES {
            let mut pair = Pair::live("cached");
            let (mut writer, mut watcher) = (pair.database.connect(), pair.database.connect());
            let insert = writer
                .prepare(&format!(
                    "INSERT INTO {written} (id, d, u, n, t) VALUES ($1, '2026-02-01', $1, 1, 'x')"
                ))
                .expect("PREPARE");
            for id in 500..507i32 {
                writer.execute(&insert, &[&id]).expect("EXECUTE");
            }
            let writer_pid = pid(&mut writer);
            pair.run(&[
                "BEGIN",
                &format!("ALTER TABLE {side} ADD COLUMN x int NOT NULL DEFAULT 7"),
                &format!("ALTER TABLE {side} RENAME COLUMN n TO m"),
            ]);
            let waiting = std::thread::spawn(move || {
                let outcome = writer.execute(&insert, &[&600i32]);
                (
                    writer,
                    outcome
                        .err()
                        .and_then(|e| e.as_db_error().map(|e| e.code().code().to_string())),
                )
            });
            until_blocked(&mut watcher, writer_pid);
            pair.run(&["COMMIT"]);
            let (mut writer, error) = waiting.join().expect("the writer ends");
            assert_eq!(error.as_deref(), Some("42703"), "the column has another name now");
            run(
                &mut writer,
                &[&format!(
                    "INSERT INTO {written} (id, d, u, m) VALUES (600, '2026-02-01', 600, 1)"
                )],
            );
            assert_eq!(pair.one::<i32>("SELECT x FROM a_partitioned WHERE id = 600"), 7);
            assert_eq!(pair.in_step(), 108);
        }
    }
}

#[test]
fn ddl_that_waits_for_a_writer_carries_its_rows_too() {
    for side in SIDES {
        for written in SIDES {
            let mut pair = Pair::live("writer_first");
            let (mut writer, mut ddl, mut watcher) = (
                pair.database.connect(),
                pair.database.connect(),
                pair.database.connect(),
            );
            run(
                &mut writer,
                &[
                    "BEGIN",
                    &format!("INSERT INTO {written} VALUES (500, '2026-02-01', 500, 1, 'x')"),
                ],
            );
            let ddl_pid = pid(&mut ddl);
            let statement =
                format!("ALTER TABLE {side} ADD COLUMN x int DEFAULT 3, ALTER n TYPE bigint USING n * 2");
            let waiting = std::thread::spawn(move || run(&mut ddl, &[&statement]));
            until_blocked(&mut watcher, ddl_pid);
            // The writer goes on: nobody queues for long behind who waits.
            run(
                &mut writer,
                &[&format!("UPDATE {written} SET n = 5 WHERE id = 500"), "COMMIT"],
            );
            waiting.join().expect("the statement ends");
            assert_eq!(
                pair.one::<i64>("SELECT n FROM a_partitioned WHERE id = 500 AND x = 3"),
                10
            );
            assert_eq!(pair.in_step(), 101);
        }
    }
}

#[test]
fn a_lock_that_is_not_to_be_had_ends_the_statement_with_nothing_done() {
    // An attempt takes 50 tries with pauses between them: one lock of each kind will do.
    for (side, held) in [("a", "a_2026_02"), ("a_partitioned", "a")] {
        let mut pair = Pair::live("budget");
        let mut holder = pair.database.connect();
        run(
            &mut holder,
            &["BEGIN", &format!("LOCK TABLE ONLY {held} IN ACCESS SHARE MODE")],
        );
        pair.run(&[
            "SET partition_router.lock_timeout = '1ms'",
            "BEGIN",
            "UPDATE a SET n = 0 WHERE id = 5",
            "SAVEPOINT s",
        ]);
        assert_eq!(
            sqlstate(&mut pair.client, &format!("ALTER TABLE {side} ADD COLUMN x int")),
            "55P03"
        );
        pair.run(&["ROLLBACK TO s"]);
        // Nothing stronger than what the writes took is left.
        let strong: i64 = one(
            &mut holder,
            "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND locktype = 'relation' AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        assert_eq!(strong, 0);
        pair.run(&["COMMIT"]);
        run(&mut holder, &["COMMIT"]);
        pair.run(&[&format!("ALTER TABLE {side} ADD COLUMN x int")]);
        pair.in_step();
    }
}

#[test]
fn a_lock_that_the_statement_itself_does_not_get_leaves_both_sides_as_they_were() {
    let mut pair = Pair::live("parents");
    let mut holder = pair.database.connect();
    pair.run(&["ALTER TABLE a ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents"]);
    run(
        &mut holder,
        &["BEGIN", "LOCK TABLE parents IN ROW EXCLUSIVE MODE"],
    );
    pair.run(&[
        "SET partition_router.lock_timeout = '1ms'",
        "SET lock_timeout = '50ms'",
    ]);
    assert_eq!(
        sqlstate(&mut pair.client, "ALTER TABLE a DROP CONSTRAINT fk"),
        "55P03"
    );
    pair.alike();
    run(&mut holder, &["COMMIT"]);
    pair.run(&["ALTER TABLE a DROP CONSTRAINT fk"]);
    pair.in_step();
}

#[test]
fn ddl_on_both_sides_at_once_takes_turns() {
    for _ in 0..5 {
        let mut pair = Pair::live("turns");
        let sessions: Vec<_> = SIDES
            .iter()
            .map(|side| {
                let mut session = pair.database.connect();
                let side = *side;
                std::thread::spawn(move || {
                    for i in 0..5 {
                        run(&mut session, &[
                            "BEGIN",
                            &format!("INSERT INTO {side} (id, d, u) SELECT {i} + 1000 + oid::int, '2026-02-01', {i} + oid::int
                                      FROM pg_class WHERE relname = '{side}'"),
                            "COMMIT",
                            &format!("ALTER TABLE {side} ADD COLUMN {side}_{i} int DEFAULT {i}"),
                        ]);
                    }
                })
            })
            .collect();
        for session in sessions {
            session.join().expect("no statement fails");
        }
        assert_eq!(pair.in_step(), 110);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attnum > 5 AND NOT attisdropped"),
            10
        );
    }
}

#[test]
fn ddl_in_a_prepared_transaction_is_there_on_both_sides_after_it_commits() {
    let cluster = std::sync::Arc::new(super::common::Cluster::start(&["max_prepared_transactions=5"]));
    let database = super::Database::on(cluster, "prepared");
    let client = database.connect();
    let mut pair = Pair { database, client };
    pair.run(super::TABLE);
    pair.run(&["CALL partition_router.migrate('a', 'd')"]);
    for (end, columns) in [("ROLLBACK", 5), ("COMMIT", 6)] {
        pair.run(&[
            "BEGIN",
            "ALTER TABLE a ADD COLUMN x int DEFAULT 1",
            "INSERT INTO a_partitioned VALUES (500, '2026-02-01', 500, 1, 'x', 2)",
            "PREPARE TRANSACTION 'p'",
            &format!("{end} PREPARED 'p'"),
        ]);
        assert_eq!(
            pair.one::<i64>(
                "SELECT count(*) FROM pg_attribute WHERE attrelid = 'a_partitioned'::regclass AND attnum > 0"
            ),
            columns
        );
        pair.in_step();
    }
}
