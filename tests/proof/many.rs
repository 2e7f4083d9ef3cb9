//! Repair of more rows than are named at a time: found by one look, and mended in one go.

use crate::common::{Database, one, plant, run, sqlstate};
use crate::repair::{Counts, mended};
use crate::{pid, repaired, told, truth, until_blocked};
use postgres::Client;

const ROWS: i64 = 24_000;

fn database(name: &str, key: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            &format!("CREATE TABLE t (id {key} PRIMARY KEY, at date NOT NULL, code text, n int)"),
            &format!(
                "INSERT INTO t SELECT g, date '2026-01-01' + g % 120, 'c' || g, g FROM generate_series(1, {ROWS}) g"
            ),
        ],
    );
    (database, client)
}

fn live(name: &str) -> (Database, Client) {
    let (database, mut client) = database(name, "int");
    run(
        &mut client,
        &["CALL partition_router.migrate('t', 'at', premake => 0)"],
    );
    (database, client)
}

/// What a dry run says.
fn counted(client: &mut Client) -> (i64, i64, i64) {
    let row = client
        .query_one(
            "SELECT inserted, updated, deleted FROM partition_router.repair('t', dry_run => true)",
            &[],
        )
        .expect("repair can be called");
    (row.get(0), row.get(1), row.get(2))
}

/// Of the side that is not right every second row is another, every fifth is gone, some are in other partitions, and some are too many.
/// Gives how many are to be inserted, updated and deleted.
fn damage(client: &mut Client, table: &str) -> (i64, i64, i64) {
    plant(
        client,
        table,
        &[
            &format!("UPDATE {table} SET n = -n WHERE id % 2 = 0"),
            &format!("DELETE FROM {table} WHERE id % 5 = 1"),
            &format!("UPDATE {table} SET at = at + 40 WHERE id % 10 = 3 AND at < '2026-03-01'"),
            &format!(
                "INSERT INTO {table} SELECT {ROWS} + g, date '2026-01-01' + g % 120, 'x', 0 FROM generate_series(1, 500) g"
            ),
        ],
    );
    let moved = one::<i64>(
        client,
        &format!(
            "SELECT count(*) FROM generate_series(1, {ROWS}) g WHERE g % 10 = 3 AND date '2026-01-01' + g % 120 < '2026-03-01'"
        ),
    );
    // Half of every fifth row has another value already.
    (ROWS / 5, ROWS / 2 - ROWS / 10, 500 + moved)
}

fn assert_mended(client: &mut Client) {
    assert!(truth(client));
    assert!(told(client));
    assert_eq!(repaired(client), (0, 0, 0));
}

#[test]
fn one_call_repairs_what_its_dry_run_counts_however_much_differs() {
    let (_database, mut client) = live("much");
    let c = &mut client;
    let (missing, different, extra) = damage(c, "t_partitioned");
    // A row in another partition is one too many there, and one too few where it belongs.
    let moved = extra - 500;
    assert!(moved > 0 && missing + different + extra > 10_000);
    let expected = (missing + moved, different, extra);
    assert_eq!(counted(c), expected);
    assert_eq!(counted(c), expected, "a dry run changes nothing");
    assert_eq!(repaired(c), expected);
    assert_mended(c);
}

#[test]
fn one_call_repairs_the_legacy_however_much_differs_when_names_have_swapped() {
    let (_database, mut client) = live("much_switched");
    let c = &mut client;
    run(c, &["CALL partition_router.switchover('t')"]);
    let (missing, different, extra) = damage(c, "t_legacy");
    // On the legacy a row with another partition key is the same row.
    let moved = extra - 500;
    let expected = (missing, different + moved, 500);
    let was = counted(c);
    let done = repaired(c);
    assert!(
        one::<bool>(
            c,
            "SELECT NOT EXISTS ((TABLE t EXCEPT ALL TABLE t_legacy) UNION ALL (TABLE t_legacy EXCEPT ALL TABLE t))"
        ),
        "{done:?}"
    );
    assert!(told(c));
    assert_eq!(repaired(c), (0, 0, 0));
    assert_eq!((was, done), (expected, expected));
}

#[test]
fn unique_values_exchanged_among_more_rows_than_are_named_at_a_time_are_repaired() {
    let (_database, mut client) = database("much_unique", "int");
    let c = &mut client;
    run(
        c,
        &[
            "UPDATE t SET at = '2026-01-01'",
            "ALTER TABLE t ADD UNIQUE (code, at)",
            "CALL partition_router.migrate('t', 'at', premake => 0)",
        ],
    );
    // Each row takes the value of one that is far away.
    plant(
        c,
        "t_partitioned",
        &[
            "UPDATE t_partitioned SET code = 'x' || code",
            &format!("UPDATE t_partitioned SET code = 'c' || (id + {ROWS} / 2 - 1) % {ROWS} + 1"),
        ],
    );
    let expected = (0, ROWS, 0);
    assert_eq!(counted(c), expected);
    assert_eq!(repaired(c), expected);
    assert_mended(c);
}

#[test]
fn keys_in_other_bytes_are_counted_once_however_many_they_are() {
    let (_database, mut client) = database("much_numeric", "numeric");
    let c = &mut client;
    run(c, &["CALL partition_router.migrate('t', 'at', premake => 0)"]);
    plant(
        c,
        "t_partitioned",
        &["UPDATE t_partitioned SET id = id::numeric(20, 2)"],
    );
    let expected = (0, ROWS, 0);
    assert_eq!(counted(c), expected);
    assert_eq!(repaired(c), expected);
    assert_mended(c);
}

/// Runs `beside` while a repair of many rows waits for one in the middle, which it has found and not mended yet; gives what the
/// repair ended with.
fn repair_held_at(database: &Database, id: i64, beside: impl FnOnce(&mut Client, i32)) -> Counts {
    let mut holder = database.connect();
    run(
        &mut holder,
        &["BEGIN", &format!("SELECT FROM t WHERE id = {id} FOR UPDATE")],
    );
    std::thread::scope(|scope| {
        let mut client = database.connect();
        let backend = pid(&mut client);
        let repairing = scope.spawn(move || mended(&mut client));
        let mut other = database.connect();
        until_blocked(&mut other, backend);
        beside(&mut other, backend);
        run(&mut holder, &["COMMIT"]);
        repairing.join().expect("the session lives")
    })
}

#[test]
fn rows_that_change_behind_the_back_of_a_repair_of_many_end_equal() {
    let (database, mut client) = live("much_beside");
    damage(&mut client, "t_partitioned");
    let from = ROWS / 2;
    let done = repair_held_at(&database, from, |other, _| {
        // Rows that the repair has found, and comes to later.
        run(
            other,
            &[
                &format!("DELETE FROM t WHERE id BETWEEN {from} + 1 AND {from} + 40"),
                &format!("UPDATE t SET n = 777 WHERE id BETWEEN {from} + 100 AND {from} + 104 AND id % 5 <> 1"),
                &format!(
                    "INSERT INTO t SELECT g, '2026-02-02', 'again', 1 FROM generate_series({from} + 1, {from} + 20) g
                     WHERE NOT EXISTS (SELECT FROM t_partitioned p WHERE p.id = g)"
                ),
                "INSERT INTO t VALUES (900000, '2026-02-02', 'new', 1)",
                // What is too many on the twin goes with what comes to its key.
                "UPDATE t_partitioned SET n = 5 WHERE id = 900000",
            ],
        );
    });
    assert!(done.is_ok(), "{done:?}");
    assert_mended(&mut client);
}

#[test]
fn a_repair_of_many_rows_that_is_cancelled_has_done_nothing_and_can_be_called_again() {
    let (database, mut client) = live("much_cancelled");
    let c = &mut client;
    damage(c, "t_partitioned");
    let expected = counted(c);
    let done = repair_held_at(&database, ROWS / 2, |other, backend| {
        run(other, &[&format!("SELECT pg_cancel_backend({backend})")]);
        crate::until(
            other,
            &format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {backend} AND NOT granted)"),
        );
    });
    assert_eq!(done, Err("57014".into()));
    assert_eq!(counted(c), expected);
    assert_eq!(repaired(c), expected);
    assert_mended(c);
}

#[test]
fn a_repair_of_many_rows_that_fails_within_a_savepoint_leaves_the_session_whole() {
    let (_database, mut client) = live("much_failed");
    let c = &mut client;
    damage(c, "t_partitioned");
    let expected = counted(c);
    run(
        c,
        &[
            "BEGIN",
            "SAVEPOINT before",
            "SET LOCAL temp_file_limit = '8kB'",
            "SET LOCAL work_mem = '64kB'",
        ],
    );
    assert_eq!(sqlstate(c, "SELECT partition_router.repair('t')"), "53400");
    run(c, &["ROLLBACK TO before"]);
    assert_eq!(repaired(c), expected);
    run(c, &["COMMIT"]);
    assert_mended(c);
}

#[test]
fn a_dry_run_counts_a_row_of_the_legacy_with_another_partition_key_as_one_to_be_changed() {
    let (_database, mut client) = live("moved_switched");
    let c = &mut client;
    run(c, &["CALL partition_router.switchover('t')"]);
    plant(
        c,
        "t_legacy",
        &[
            "UPDATE t_legacy SET at = at + 40 WHERE id IN (3, 4)",
            "UPDATE t_legacy SET n = -n WHERE id = 5",
            "DELETE FROM t_legacy WHERE id = 6",
            "INSERT INTO t_legacy VALUES (900000, '2026-01-01', 'x', 0)",
        ],
    );
    let expected = (1, 3, 1);
    assert_eq!(counted(c), expected);
    assert_eq!(repaired(c), expected);
    assert_eq!(repaired(c), (0, 0, 0));
}
