//! Strong locks come within their budget or not at all.

use super::{ROWS, capture, create, finish, one, pid, run, stage, steps_until, two_sessions, until};
use crate::common::sqlstate;
use std::time::{Duration, Instant};

#[test]
fn capture_waits_for_a_writer_without_holding_others_up() {
    let (database, mut backfill, mut writer) = two_sessions("capture_waits");
    create(&mut backfill, "a");
    run(&mut backfill, &["SELECT partition_router.create_twin('a', 'd')"]);
    run(
        &mut writer,
        &["BEGIN", "UPDATE a SET n = -1, d = d + 31 WHERE id = 1"],
    );
    let capture_pid = pid(&mut backfill);
    let capture = std::thread::spawn(move || {
        run(&mut backfill, &["SELECT partition_router.start_sync('a')"]);
        backfill
    });
    let mut bystander = database.connect();
    let waits = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE pid = {capture_pid} AND NOT granted AND relation = 'a'::regclass"
    );
    let mut longest = Duration::ZERO;
    for i in 0..5 {
        until(&mut bystander, &waits);
        let started = Instant::now();
        run(
            &mut bystander,
            &[&format!(
                "INSERT INTO a (id, d, t) VALUES ({}, '2026-02-02', 'bystander')",
                9000 + i
            )],
        );
        longest = longest.max(started.elapsed());
    }
    // The budget is 100 ms; the rest is what a busy machine may add. A queue would last as long as the writer.
    assert!(longest < Duration::from_secs(2), "a bystander waited {longest:?}");
    run(&mut writer, &["COMMIT"]);
    let mut backfill = capture.join().expect("capture begins when the writer has ended");
    assert_eq!(finish(&mut backfill, "a"), ROWS + 5);
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
        1
    );
}

#[test]
fn a_prepared_transaction_in_the_way_of_capture_is_named() {
    let (database, mut backfill, mut writer) = two_sessions("prepared");
    create(&mut backfill, "a");
    run(&mut backfill, &["SELECT partition_router.create_twin('a', 'd')"]);
    let prepared = format!("p_{}", database.name);
    run(
        &mut writer,
        &[
            "BEGIN",
            "DELETE FROM a WHERE id = 1",
            &format!("PREPARE TRANSACTION '{prepared}'"),
        ],
    );
    run(&mut backfill, &["SET partition_router.lock_timeout = '5ms'"]);
    let error = backfill
        .batch_execute("SELECT partition_router.start_sync('a')")
        .expect_err("it is in the way");
    let error = error.as_db_error().expect("the server refused it");
    assert_eq!(error.code().code(), "55P03");
    assert!(
        error.detail().is_some_and(|d| d.contains("prepared transaction")),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    // Nothing has changed, and nothing is held.
    assert_eq!(
        one::<i64>(
            &mut writer,
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'a'::regclass"
        ),
        0
    );
    run(
        &mut writer,
        &[
            "UPDATE a SET n = 0 WHERE id = 2",
            &format!("COMMIT PREPARED '{prepared}'"),
        ],
    );
    run(&mut backfill, &["SELECT partition_router.start_sync('a')"]);
    assert_eq!(finish(&mut backfill, "a"), ROWS - 1);
}

#[test]
fn a_flip_that_a_writer_never_lets_through_gives_up_and_can_be_called_again() {
    let (_database, mut backfill, mut writer) = two_sessions("flip");
    capture(&mut backfill, "a");
    run(&mut writer, &["BEGIN", "UPDATE a SET n = -1 WHERE id = 1"]);
    steps_until(&mut backfill, "a", "flip");
    run(&mut backfill, &["SET partition_router.lock_timeout = '5ms'"]);
    assert_eq!(
        sqlstate(&mut backfill, "CALL partition_router.backfill('a')"),
        "55P03"
    );
    assert_eq!(stage(&mut backfill, "a"), "flip");
    run(
        &mut writer,
        &[
            "UPDATE a SET d = d + 31 WHERE id = 2",
            "COMMIT",
            "DELETE FROM a WHERE id = 3",
        ],
    );
    assert_eq!(finish(&mut backfill, "a"), ROWS - 1);
}

#[test]
fn a_writer_that_waits_for_the_flip_is_carried_by_the_live_sync() {
    let (database, mut backfill, mut writer) = two_sessions("waits_for_flip");
    capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "flip");
    run(&mut backfill, &["BEGIN"]);
    super::step(&mut backfill, "a");
    let writer_pid = pid(&mut writer);
    let waiting = std::thread::spawn(move || {
        run(
            &mut writer,
            &["UPDATE a SET d = d + 31, n = -1 WHERE id IN (1, 2200)"],
        );
    });
    let mut other = database.connect();
    until(
        &mut other,
        &format!("SELECT cardinality(pg_blocking_pids({writer_pid})) > 0"),
    );
    run(&mut backfill, &["COMMIT"]);
    waiting.join().expect("the writer goes on");
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
        2
    );
}

#[test]
fn the_copy_locks_no_row_and_stops_no_writer() {
    let (_database, mut backfill, mut writer) = two_sessions("no_lock");
    capture(&mut backfill, "a");
    // Few changes: a long change log is emptied under a lock of its own, as the flip does.
    run(&mut writer, &["SET lock_timeout = '1s'"]);
    for i in 0.. {
        assert!(i < 100, "a few changes between two steps keep it from the flip");
        let at = stage(&mut backfill, "a");
        if at == "flip" {
            break;
        }
        run(&mut backfill, &["BEGIN"]);
        super::step(&mut backfill, "a");
        run(
            &mut writer,
            &[
                "UPDATE a SET n = n + 1 WHERE id % 70 = 0",
                &format!("DELETE FROM a WHERE id = {}", 10 + i),
                &format!(
                    "INSERT INTO a (id, d, t) VALUES ({}, '2026-02-02', 'free')",
                    9000 + i
                ),
            ],
        );
        run(&mut backfill, &["COMMIT"]);
    }
    finish(&mut backfill, "a");
}
