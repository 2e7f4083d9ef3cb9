//! Two sessions at once.

use super::Pair;
use crate::common::{one, run};
use postgres::Client;
use std::time::{Duration, Instant};

pub(super) fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Waits until the session `pid` waits for a lock.
pub(super) fn until_blocked(client: &mut Client, pid: i32) {
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

/// The SQLSTATE of a statement, empty when it worked.
pub(super) fn outcome(client: &mut Client, statement: &str) -> String {
    match client.batch_execute(statement) {
        Ok(()) => String::new(),
        Err(error) => error
            .as_db_error()
            .expect("the server refused it")
            .code()
            .code()
            .to_string(),
    }
}

/// Runs `first` in an open transaction, `second` in another session that it blocks, ends the first, then the second.
pub(super) fn meet(pair: &mut Pair, first: &str, second: &str, end: &str) -> String {
    let (mut a, mut b) = (pair.database.connect(), pair.database.connect());
    let b_pid = pid(&mut b);
    run(&mut a, &["BEGIN", first]);
    let second = second.to_string();
    let waiting = std::thread::spawn(move || outcome(&mut b, &second));
    until_blocked(&mut pair.client, b_pid);
    run(&mut a, &[end]);
    waiting.join().expect("the session ends")
}

#[test]
fn an_update_waits_for_one_of_the_other_side_and_adds_to_it() {
    let mut pair = Pair::plain("meet");
    for (first, second) in [("a", "a_partitioned"), ("a_partitioned", "a")] {
        let before: i32 = pair.one("SELECT n FROM a WHERE id = 1");
        let (add_10, add_1) = (
            format!("UPDATE {first} SET n = n + 10 WHERE id = 1"),
            format!("UPDATE {second} SET n = n + 1 WHERE id = 1"),
        );
        assert_eq!(meet(&mut pair, &add_10, &add_1, "COMMIT"), "");
        assert_eq!(
            pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 1"),
            before + 11
        );
        assert_eq!(meet(&mut pair, &add_10, &add_1, "ROLLBACK"), "");
        assert_eq!(
            pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 1"),
            before + 12
        );
        pair.rows();
    }
}

#[test]
fn a_delete_and_an_update_of_the_same_row_agree() {
    let mut pair = Pair::plain("delete_meets_update");
    for (i, (first, second)) in [("a", "a_partitioned"), ("a_partitioned", "a"), ("a", "a")]
        .into_iter()
        .enumerate()
    {
        let (gone, kept) = (10 + i, 20 + i);
        assert_eq!(
            meet(
                &mut pair,
                &format!("DELETE FROM {first} WHERE id = {gone}"),
                &format!("UPDATE {second} SET n = -1, t = 'late' WHERE id = {gone}"),
                "COMMIT"
            ),
            ""
        );
        assert_eq!(
            meet(
                &mut pair,
                &format!("UPDATE {first} SET t = 'kept', n = -1 WHERE id = {kept}"),
                &format!("DELETE FROM {second} WHERE id = {kept} AND n > 0"),
                "COMMIT"
            ),
            ""
        );
        assert_eq!(pair.rows(), 99 - i as i64);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE t = 'late'"), 0);
        assert_eq!(
            pair.one::<i64>(&format!(
                "SELECT count(*) FROM a WHERE t = 'kept' AND id = {kept}"
            )),
            1
        );
    }
}

#[test]
fn the_same_new_key_on_both_sides_at_once_is_given_once() {
    let mut pair = Pair::plain("same_key");
    for (i, (first, second)) in [("a", "a_partitioned"), ("a_partitioned", "a")]
        .into_iter()
        .enumerate()
    {
        let id = 500 + i;
        // Another day: the twin's own key does not collide.
        let code = meet(
            &mut pair,
            &format!("INSERT INTO {first} VALUES ({id}, '2026-01-05', {id}, 1, 'first')"),
            &format!("INSERT INTO {second} VALUES ({id}, '2026-02-05', {id}, 1, 'second')"),
            "COMMIT",
        );
        assert_eq!(code, "23505");
        assert_eq!(pair.rows(), 101 + i as i64);
    }
}

#[test]
fn rows_written_from_both_sides_in_opposite_order_deadlock_at_worst() {
    let mut pair = Pair::plain("opposite");
    for _ in 0..10 {
        let (mut a, mut b) = (pair.database.connect(), pair.database.connect());
        run(&mut a, &["SET deadlock_timeout = '20ms'"]);
        run(&mut b, &["SET deadlock_timeout = '20ms'"]);
        let other = std::thread::spawn(move || {
            outcome(
                &mut b,
                "UPDATE a_partitioned SET n = n + 1, d = d + 1 WHERE id <= 50",
            )
        });
        let mine = outcome(&mut a, "UPDATE a SET n = n + 1, d = d + 1 WHERE id <= 50");
        let other = other.join().expect("the session ends");
        for code in [mine, other] {
            // 40001: the row that it waited for has moved to another partition.
            assert!(["", "40P01", "40001"].contains(&code.as_str()), "{code}");
        }
        assert_eq!(pair.rows(), 100);
    }
}

#[test]
fn a_write_that_waits_for_a_row_that_moves_is_not_taken_for_one_of_no_row() {
    for mover in ["a", "a_partitioned"] {
        let mut pair = Pair::plain("meets_move");
        let add = "UPDATE a_partitioned SET n = n + 1 WHERE id = 1";
        let to_month =
            |month: &str| format!("UPDATE {mover} SET d = date '2026-{month}-10', n = n + 10 WHERE id = 1");
        // A partitioned table's own UPDATE says 40001; the row within its month is waited for and changed.
        assert_eq!(
            meet(&mut pair, &to_month("02"), add, "COMMIT"),
            "40001",
            "{mover}"
        );
        assert_eq!(meet(&mut pair, &to_month("03"), add, "ROLLBACK"), "", "{mover}");
        assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 1"), 12, "{mover}");
        let stays = format!("UPDATE {mover} SET d = date '2026-02-11' WHERE id = 1");
        assert!(["", "40001"].contains(&meet(&mut pair, &stays, add, "COMMIT").as_str()));
        // A write on the legacy waits there, and adds.
        let before: i32 = pair.one("SELECT n FROM a WHERE id = 1");
        let on_legacy = "UPDATE a SET n = n + 1 WHERE id = 1";
        assert_eq!(
            meet(&mut pair, &to_month("03"), on_legacy, "COMMIT"),
            "",
            "{mover}"
        );
        assert_eq!(
            pair.one::<i32>("SELECT n FROM a WHERE id = 1"),
            before + 11,
            "{mover}"
        );
        pair.rows();
    }
}
