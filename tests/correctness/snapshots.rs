//! Transactions whose snapshot is older than what happened since.

use super::{PLAIN, compare, one, outcome, run, session, steps_until};
use crate::common::{Database, sqlstate};
use postgres::Client;

const ISOLATIONS: [&str; 2] = ["REPEATABLE READ", "SERIALIZABLE"];

/// Rows that are changed by one old transaction.
const SHARE: usize = 20;

/// Several copy steps: the copy reads 128 blocks at a time.
fn create(client: &mut Client) {
    run(
        client,
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int, t text) WITH (fillfactor = 10, autovacuum_enabled = off)",
            "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, repeat('x', 500) FROM generate_series(1, 1000) g",
            "CREATE TABLE expected (LIKE a INCLUDING INDEXES)",
            "INSERT INTO expected TABLE a",
        ],
    );
}

/// What an old transaction does with its share of the rows.
fn changes(table: &str, share: usize) -> Vec<String> {
    let first = share * SHARE + 1;
    let id = |offset: usize| first + offset;
    vec![
        format!(
            "UPDATE {table} SET n = -1 WHERE id BETWEEN {} AND {}",
            id(0),
            id(2)
        ),
        format!(
            "UPDATE {table} SET d = d + 31, t = 'moved' WHERE id BETWEEN {} AND {}",
            id(2),
            id(5)
        ),
        format!("DELETE FROM {table} WHERE id BETWEEN {} AND {}", id(6), id(8)),
        format!(
            "UPDATE {table} SET id = id + 100000 WHERE id BETWEEN {} AND {}",
            id(9),
            id(10)
        ),
        format!(
            "UPDATE {table} SET id = id + 100000, d = d - 31 WHERE id = {}",
            id(11)
        ),
        format!(
            "INSERT INTO {table} VALUES ({}, '2026-02-02', -2, 'upsert'), ({}, '2026-02-02', -2, 'upsert')
             ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n, d = EXCLUDED.d",
            id(12),
            id(0) + 200_000
        ),
        format!(
            "MERGE INTO {table} t USING (VALUES ({}), ({}), ({})) s (id) ON t.id = s.id
             WHEN MATCHED AND s.id = {} THEN DELETE WHEN MATCHED THEN UPDATE SET d = d + 31
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, '2026-03-03', -3, 'merge')",
            id(13),
            id(14),
            id(1) + 200_000,
            id(13)
        ),
        // Twice the same row, and a key that was given up.
        format!(
            "UPDATE {table} SET n = n + 1 WHERE id BETWEEN {} AND {}",
            id(0),
            id(5)
        ),
        format!(
            "INSERT INTO {table} VALUES ({}, '2026-01-31', -4, 'again')",
            id(6)
        ),
    ]
}

/// The moments at which an old transaction takes its snapshot, and acts.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Moment {
    BeforeThePair,
    Captured,
    Begun,
    Copying,
    Copied,
    Drained,
    Live,
}

use Moment::*;

fn go_to(client: &mut Client, moment: Moment) {
    match moment {
        BeforeThePair => {}
        Captured => run(
            client,
            &[
                "SELECT partition_router.create_twin('a', 'd')",
                "SELECT partition_router.start_sync('a')",
            ],
        ),
        Begun => steps_until(client, "copy"),
        Copying => {
            run(client, &[super::STEP]);
            let position = "SELECT stage || ' ' || (next_block BETWEEN 1 AND blocks - 1) FROM partition_router.copy_state";
            assert_eq!(
                one::<String>(client, position),
                "copy true",
                "one batch copied all"
            );
        }
        Copied => steps_until(client, "index"),
        Drained => steps_until(client, "flip"),
        Live => run(client, &["CALL partition_router.backfill('a')"]),
    }
}

const MOMENTS: [Moment; 7] = [BeforeThePair, Captured, Begun, Copying, Copied, Drained, Live];

#[test]
fn a_transaction_with_a_snapshot_from_any_moment_is_carried_at_any_later_moment() {
    for isolation in ISOLATIONS {
        let database = Database::new("old_matrix");
        let mut keeper = database.connect();
        create(&mut keeper);
        let mut waiting: Vec<(Moment, Moment, usize, Client)> = Vec::new();
        let mut acted = 0;
        for now in MOMENTS {
            go_to(&mut keeper, now);
            for (taken, _, share, old) in waiting.iter_mut().filter(|(_, acts, ..)| *acts == now) {
                for change in changes("a", *share) {
                    old.batch_execute(&change).unwrap_or_else(|e| {
                        panic!("{isolation}, from {taken:?}, at {now:?}: {change}: {e:?}")
                    });
                }
                run(old, &["COMMIT"]);
                for change in changes("expected", *share) {
                    run(&mut keeper, &[&change]);
                }
                acted += 1;
            }
            for later in MOMENTS.into_iter().filter(|later| *later > now) {
                // The snapshot is taken, but no lock on the table.
                let mut old = session(&database, "public");
                run(
                    &mut old,
                    &[
                        &format!("BEGIN ISOLATION LEVEL {isolation}"),
                        "SELECT FROM pg_class LIMIT 1",
                    ],
                );
                let share = waiting.len();
                waiting.push((now, later, share, old));
            }
        }
        assert_eq!(acted, 21);
        compare(&mut keeper, "a");
        for other in ["a", "a_partitioned"] {
            let lost: i64 = one(
                &mut keeper,
                &format!(
                    "SELECT count(*) FROM ((TABLE expected EXCEPT ALL TABLE {other}) UNION ALL (TABLE {other} EXCEPT ALL TABLE expected)) x"
                ),
            );
            assert_eq!(lost, 0, "{isolation}: {other}");
        }
    }
}

#[test]
fn a_row_that_was_changed_after_the_snapshot_is_refused_and_the_rest_is_carried() {
    for isolation in ISOLATIONS {
        let database = Database::new("old_conflict");
        let mut keeper = database.connect();
        create(&mut keeper);
        let mut old = session(&database, "public");
        run(
            &mut old,
            &[
                &format!("BEGIN ISOLATION LEVEL {isolation}"),
                "SELECT FROM pg_class LIMIT 1",
            ],
        );
        run(
            &mut keeper,
            &[
                "CALL partition_router.migrate('a', 'd')",
                "UPDATE a_partitioned SET n = 77, d = d + 31 WHERE id = 1",
            ],
        );
        run(&mut old, &["SAVEPOINT s"]);
        for change in [
            "UPDATE a SET t = 'lost update' WHERE id = 1",
            "DELETE FROM a WHERE id = 1",
            "SELECT FROM a WHERE id = 1 FOR UPDATE",
        ] {
            assert_eq!(sqlstate(&mut old, change), "40001", "{isolation}: {change}");
            run(&mut old, &["ROLLBACK TO s"]);
        }
        run(&mut old, &["UPDATE a SET n = -1 WHERE id = 2", "COMMIT"]);
        assert_eq!(compare(&mut keeper, "a"), 1000);
        assert_eq!(
            one::<i32>(&mut keeper, "SELECT n FROM a_partitioned WHERE id = 1"),
            77
        );
        assert_eq!(
            one::<i32>(&mut keeper, "SELECT n FROM a_partitioned WHERE id = 2"),
            -1
        );
    }
}

#[test]
fn a_twin_that_the_snapshot_does_not_see_yet_refuses_to_be_updated() {
    // The statement would find no row, and tell the application so.
    for isolation in ISOLATIONS {
        let database = Database::new("old_twin");
        let mut keeper = database.connect();
        create(&mut keeper);
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}");
        let mut sessions = Vec::new();
        for taken in MOMENTS {
            go_to(&mut keeper, taken);
            // More than one serializable transaction would be in the way of the other.
            if taken != Live && (isolation == "REPEATABLE READ" || taken == Copying) {
                let mut old = session(&database, "public");
                run(&mut old, &[&begin, "SELECT FROM pg_class LIMIT 1"]);
                sessions.push((taken, old));
            }
        }
        for (taken, old) in &mut sessions {
            for change in [
                "UPDATE a_partitioned SET n = -1 WHERE id = 1",
                "UPDATE a_2026_01 SET n = -1 WHERE id = 1",
                "DELETE FROM a_partitioned WHERE id = 1",
                "DELETE FROM a_2026_02",
                "MERGE INTO a_partitioned t USING (VALUES (1)) s (id) ON t.id = s.id
             WHEN MATCHED THEN UPDATE SET n = -1 WHEN NOT MATCHED THEN DO NOTHING",
            ] {
                run(old, &["SAVEPOINT s"]);
                assert_eq!(
                    sqlstate(old, change),
                    "40001",
                    "{isolation}, from {taken:?}: {change}"
                );
                run(old, &["ROLLBACK TO s"]);
            }
            // What names no row that is there already is as good as ever.
            let id = 5000 + *taken as i32;
            run(
                old,
                &[
                    &format!("INSERT INTO a_partitioned VALUES ({id}, '2026-02-02', 1, 'old')"),
                    &format!("UPDATE a SET n = -1 WHERE id = {}", id - 4900),
                    "COMMIT",
                    &begin,
                    &format!("UPDATE a_partitioned SET n = -1 WHERE id = {}", id - 4800),
                    "COMMIT",
                ],
            );
        }
        assert_eq!(compare(&mut keeper, "a"), 1000 + sessions.len() as i64);
        assert_eq!(
            one::<i64>(&mut keeper, "SELECT count(*) FROM a WHERE n = -1"),
            2 * sessions.len() as i64
        );
    }
}

#[test]
fn write_skew_across_the_two_sides_is_refused() {
    for (reads, writes) in [
        ("a", "a_partitioned"),
        ("a_partitioned", "a"),
        ("a", "a"),
        ("a_partitioned", "a_partitioned"),
    ] {
        let database = Database::new("skew");
        let mut keeper = database.connect();
        run(&mut keeper, &PLAIN);
        run(&mut keeper, &["CALL partition_router.migrate('a', 'd')"]);
        let (mut one_way, mut other_way) = (session(&database, "public"), session(&database, "public"));
        // Each reads the row that the other writes, through the other side.
        run(
            &mut one_way,
            &[
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                &format!("SELECT n FROM {reads} WHERE id = 1"),
            ],
        );
        run(
            &mut other_way,
            &[
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                &format!("SELECT n FROM {reads} WHERE id = 2"),
            ],
        );
        let mut codes = vec![outcome(
            &mut one_way,
            &format!("UPDATE {writes} SET n = -1 WHERE id = 2"),
        )];
        codes.push(outcome(
            &mut other_way,
            &format!("UPDATE {writes} SET n = -1 WHERE id = 1"),
        ));
        codes.push(outcome(&mut one_way, "COMMIT"));
        codes.push(outcome(&mut other_way, "COMMIT"));
        codes.retain(|code| !code.is_empty());
        assert_eq!(codes, ["40001"], "read {reads}, write {writes}");
        assert_eq!(compare(&mut keeper, "a"), 100);
        assert_eq!(
            one::<i64>(&mut keeper, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
            1
        );
    }
}
