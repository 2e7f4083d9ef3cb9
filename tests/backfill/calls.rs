//! The call itself: its arguments, when it is interrupted, and when it is called twice.

use super::{ROWS, capture, finish, one, pid, run, stage, step, steps_until, two_sessions, until};
use crate::common::{end_statement_timeout, sqlstate};

#[test]
fn a_cancelled_backfill_goes_on_where_it_was() {
    let (database, mut backfill, mut other) = two_sessions("cancel");
    capture(&mut backfill, "a");
    let backfill_pid = pid(&mut backfill);
    let cancelled = std::thread::spawn(move || {
        sqlstate(
            &mut backfill,
            "CALL partition_router.backfill('a', 100, '1 minute')",
        )
    });
    until(&mut other, "SELECT count(*) > 0 FROM partition_router.copy_state");
    until(
        &mut other,
        &format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND pid = {backfill_pid}"
        ),
    );
    run(
        &mut other,
        &[&format!("SELECT pg_cancel_backend({backfill_pid})")],
    );
    assert_eq!(cancelled.join().expect("the session ends"), "57014");
    run(&mut other, &["DELETE FROM a WHERE id = 1"]);
    let mut again = database.connect();
    assert_eq!(finish(&mut again, "a"), ROWS - 1);
}

#[test]
fn only_the_copy_pauses() {
    let (_database, mut backfill, _other) = two_sessions("pause");
    capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "index");
    run(
        &mut backfill,
        &[
            "SET statement_timeout = '2min'",
            "CALL partition_router.backfill('a', pause => '1 hour')",
        ],
    );
    assert_eq!(stage(&mut backfill, "a"), "done");
}

#[test]
fn a_statement_timeout_at_any_moment_only_pauses_it() {
    let (_database, mut backfill, mut other) = two_sessions("timeout");
    capture(&mut backfill, "a");
    let mut timeouts = 0;
    for attempt in 1..2000 {
        run(
            &mut backfill,
            &[&format!("SET statement_timeout = '{}ms'", 5 + attempt)],
        );
        match backfill.batch_execute("CALL partition_router.backfill('a', 50)") {
            Ok(()) => break,
            Err(error) => assert_eq!(
                error.as_db_error().map(|e| e.code().code()),
                Some("57014"),
                "{error:?}"
            ),
        }
        timeouts += 1;
        run(
            &mut other,
            &[&format!("UPDATE a SET n = -1, d = d + 1 WHERE id = {attempt}")],
        );
    }
    assert!(timeouts > 0);
    end_statement_timeout(&mut backfill);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
}

#[test]
fn max_duration_stops_between_steps_and_the_next_call_goes_on() {
    let (_database, mut backfill, _other) = two_sessions("duration");
    capture(&mut backfill, "a");
    let mut calls = 0;
    while stage(&mut backfill, "a") != "done" {
        run(
            &mut backfill,
            &["CALL partition_router.backfill('a', batch_rows => 100, max_duration => '0')"],
        );
        calls += 1;
        assert!(calls < 500, "it never ends");
    }
    assert!(calls > 5, "{calls} calls did it all");
    assert_eq!(finish(&mut backfill, "a"), ROWS);
}

#[test]
fn nonsense_for_arguments_is_refused() {
    let (_database, mut backfill, _other) = two_sessions("arguments");
    capture(&mut backfill, "a");
    run(&mut backfill, &["SET statement_timeout = '10s'"]);
    for rows in ["0", "-1"] {
        assert_eq!(
            sqlstate(
                &mut backfill,
                &format!("CALL partition_router.backfill('a', {rows})")
            ),
            "22023"
        );
    }
    for call in ["backfill('a', NULL)", "backfill(NULL)"] {
        assert_eq!(
            sqlstate(&mut backfill, &format!("CALL partition_router.{call}")),
            "22004",
            "{call}"
        );
    }
    run(&mut backfill, &["CREATE TABLE stranger (id int)"]);
    assert_eq!(
        sqlstate(&mut backfill, "CALL partition_router.backfill('stranger')"),
        "PR011"
    );
}

#[test]
fn two_backfills_at_once_are_refused() {
    let (_database, mut backfill, mut other) = two_sessions("twice");
    capture(&mut backfill, "a");
    run(&mut backfill, &["BEGIN"]);
    step(&mut backfill, "a");
    assert_eq!(
        sqlstate(&mut other, "CALL partition_router.backfill('a')"),
        "55006"
    );
    assert_eq!(
        sqlstate(&mut other, "SELECT partition_router.abandon('a')"),
        "55006"
    );
    run(&mut backfill, &["COMMIT"]);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
}

#[test]
fn a_second_call_changes_nothing() {
    let (_database, mut backfill, _other) = two_sessions("again");
    capture(&mut backfill, "a");
    finish(&mut backfill, "a");
    let state = "SELECT (SELECT c::text FROM partition_router.copy_state c) || (SELECT count(*) FROM partition_router.run_log)
                 || (SELECT max(xmin::text::bigint) FROM a_partitioned)";
    let before: String = one(&mut backfill, state);
    run(
        &mut backfill,
        &[
            "CALL partition_router.backfill('a')",
            "CALL partition_router.backfill('a_partitioned')",
        ],
    );
    assert_eq!(one::<String>(&mut backfill, state), before);
}

#[test]
fn writes_to_the_twin_are_refused_until_the_pair_is_live() {
    let (_database, mut backfill, mut other) = two_sessions("refused");
    super::create(&mut backfill, "a");
    run(&mut backfill, &["SELECT partition_router.create_twin('a', 'd')"]);
    let refused = |other: &mut postgres::Client| {
        for statement in [
            "INSERT INTO a_partitioned VALUES (1, '2026-01-02')",
            "INSERT INTO a_2026_01 VALUES (1, '2026-01-02')",
            "COPY a_partitioned FROM PROGRAM 'printf \"1\\t2026-01-02\\t1\\t1\\tx\\n\"'",
        ] {
            let error = other.batch_execute(statement).expect_err(statement);
            let error = error.as_db_error().expect("the server refused it");
            assert_eq!(error.code().code(), "PR012", "{statement}");
            assert!(
                error.hint().is_some_and(|h| h.contains("legacy table")),
                "{error:?}"
            );
        }
        run(other, &["SET session_replication_role = replica"]);
        assert_eq!(
            sqlstate(other, "INSERT INTO a_2026_01 VALUES (1, '2026-01-02')"),
            "PR012"
        );
        run(other, &["RESET session_replication_role"]);
    };
    refused(&mut other);
    run(&mut backfill, &["SELECT partition_router.start_sync('a')"]);
    refused(&mut other);
    for at in ["copy", "index", "drain", "flip"] {
        steps_until(&mut backfill, "a", at);
        refused(&mut other);
    }
    assert_eq!(sqlstate(&mut other, "TRUNCATE a_partitioned"), "PR012");
    for statement in [
        "UPDATE a_partitioned SET n = 0",
        "DELETE FROM a_partitioned WHERE id = 1",
    ] {
        assert_eq!(sqlstate(&mut other, statement), "PR012", "{statement}");
    }
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    run(&mut other, &["UPDATE a_partitioned SET n = -1 WHERE id = 1"]);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
}

#[test]
fn a_database_whose_transactions_are_repeatable_read_is_copied_all_the_same() {
    for isolation in ["repeatable read", "serializable"] {
        let (database, mut backfill, mut other) = two_sessions("isolation");
        run(
            &mut backfill,
            &[&format!(
                "ALTER DATABASE \"{}\" SET default_transaction_isolation = '{isolation}'",
                database.name
            )],
        );
        backfill = database.connect();
        capture(&mut backfill, "a");
        run(
            &mut other,
            &["UPDATE a SET n = -1, d = d + 31 WHERE id IN (1, 2200)"],
        );
        assert_eq!(finish(&mut backfill, "a"), ROWS);
        super::create(&mut backfill, "b");
        run(
            &mut backfill,
            &[
                "CALL partition_router.migrate('b', 'd')",
                "UPDATE b SET d = d + 31 WHERE id = 1",
            ],
        );
        assert_eq!(finish(&mut backfill, "b"), ROWS);
    }
}

#[test]
fn a_column_added_to_the_legacy_during_the_copy_stops_it_with_a_hint() {
    let (_database, mut backfill, mut other) = two_sessions("column");
    capture(&mut backfill, "a");
    run(
        &mut backfill,
        &["SELECT partition_router.backfill_step('a', 100)"],
    );
    run(
        &mut other,
        &[
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE a ADD COLUMN extra int DEFAULT 7",
            "UPDATE a SET extra = 8 WHERE id = 1",
        ],
    );
    assert_eq!(
        sqlstate(&mut backfill, "CALL partition_router.backfill('a')"),
        "PR015"
    );
    run(
        &mut other,
        &["ALTER TABLE a_partitioned ADD COLUMN extra int DEFAULT 7"],
    );
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT sum(extra) FROM a_partitioned"),
        7 * ROWS + 1
    );
}
