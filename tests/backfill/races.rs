//! What the application does while the backfill is in the middle of a step.

use super::{
    Database, ROWS, assert_equal_sides, capture, finish, one, run, stage, step, steps_until, two_sessions,
    until,
};
use postgres::Client;

/// Runs `act` (with `{}` for the table) once in the middle of every step up to the flip, and between the last and the
/// flip, each time on a fresh table; then `check` on the table that went live. Gives the stages that were met.
fn at_every_step(test: &str, act: &[&str], check: impl Fn(&mut Client, &str, i64)) {
    let (_database, mut backfill, mut application) = two_sessions(test);
    let mut met = Vec::new();
    for hold in 0.. {
        let name = format!("t{hold}");
        capture(&mut backfill, &name);
        for _ in 0..hold {
            // A transaction elsewhere makes rows young, and the drain longer: not every table takes as many steps.
            if stage(&mut backfill, &name) == "flip" {
                break;
            }
            assert!(step(&mut backfill, &name));
        }
        let stage = stage(&mut backfill, &name);
        let act: Vec<String> = act.iter().map(|s| s.replace("{}", &name)).collect();
        let act: Vec<&str> = act.iter().map(String::as_str).collect();
        if stage == "flip" {
            run(&mut application, &act);
        } else {
            run(&mut backfill, &["BEGIN"]);
            step(&mut backfill, &name);
            run(&mut application, &act);
            run(&mut backfill, &["COMMIT"]);
        }
        let rows = finish(&mut backfill, &name);
        check(&mut backfill, &name, rows);
        run(
            &mut backfill,
            &[
                &format!("SELECT partition_router.abandon('{name}')"),
                &format!("DROP TABLE {name}"),
            ],
        );
        let is_flip = stage == "flip";
        met.push(stage);
        if is_flip {
            break;
        }
    }
    for wanted in ["begin", "copy", "index", "drain", "flip"] {
        assert!(met.iter().any(|s| s == wanted), "{wanted} was not met: {met:?}");
    }
    assert!(
        met.iter().filter(|s| *s == "copy").count() > 1,
        "one step copied all: {met:?}"
    );
}

#[test]
fn delete_during_copy_does_not_come_back() {
    at_every_step(
        "delete",
        &["DELETE FROM {} WHERE id IN (1, 2, 900, 1100, 2000, 2250)"],
        |client, name, rows| {
            assert_eq!(rows, ROWS - 6);
            assert_eq!(
                one::<i64>(
                    client,
                    &format!("SELECT count(*) FROM {name}_partitioned WHERE id IN (1, 1100, 2250)")
                ),
                0
            );
        },
    );
}

#[test]
fn partition_key_change_during_copy_leaves_no_ghost() {
    at_every_step(
        "ghost",
        &[
            "UPDATE {} SET d = d + 31 WHERE id IN (1, 900, 1100, 2250)",
            "UPDATE {} SET d = d + 31 WHERE id IN (1, 2250)",
        ],
        |client, name, rows| {
            assert_eq!(rows, ROWS);
            let ghosts = format!(
                "SELECT count(*) FROM (SELECT id FROM {name}_partitioned GROUP BY id HAVING count(*) > 1) g"
            );
            assert_eq!(one::<i64>(client, &ghosts), 0);
        },
    );
}

#[test]
fn primary_key_change_during_copy_keeps_the_row_once() {
    at_every_step(
        "key_change",
        &[
            "UPDATE {} SET id = id + 10000 WHERE id IN (1, 900, 2250)",
            "UPDATE {} SET id = 1 WHERE id = 2",
            "UPDATE {} SET id = id + 1, d = d + 1 WHERE id = 10001",
        ],
        |client, name, rows| {
            assert_eq!(rows, ROWS);
            assert_eq!(
                one::<i32>(
                    client,
                    &format!("SELECT n FROM {name}_partitioned WHERE id = 10002")
                ),
                1
            );
            assert_eq!(
                one::<i32>(client, &format!("SELECT n FROM {name}_partitioned WHERE id = 1")),
                2
            );
        },
    );
}

#[test]
fn upsert_and_merge_during_copy_meet_the_copied_row() {
    at_every_step(
        "upsert",
        &[
            "INSERT INTO {} VALUES (1, '2026-03-03', 1, -7, 'upsert'), (5000, '2026-03-03', 5000, -7, 'upsert')
             ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n, d = EXCLUDED.d, t = EXCLUDED.t",
            "MERGE INTO {} t USING (VALUES (1100), (2250), (6000)) s (id) ON t.id = s.id
             WHEN MATCHED AND t.id = 1100 THEN DELETE WHEN MATCHED THEN UPDATE SET n = -7
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, '2026-01-01', s.id, -7, 'merge')",
        ],
        |client, name, rows| {
            assert_eq!(rows, ROWS + 1);
            assert_eq!(one::<i64>(client, &format!("SELECT count(*) FROM {name}_partitioned WHERE n = -7")), 4);
        },
    );
}

#[test]
fn rows_inserted_and_deleted_keys_reused_during_copy_are_there_once() {
    at_every_step(
        "insert",
        &[
            "INSERT INTO {} SELECT g, '2026-02-02', g, -1, 'new' FROM generate_series(5000, 5400) g",
            "DELETE FROM {} WHERE id IN (1, 1100)",
            "INSERT INTO {} VALUES (1, '2026-03-30', 1, -1, 'reused'), (1100, '2026-01-01', 1100, -1, 'reused')",
            "BEGIN",
            "INSERT INTO {} VALUES (7000, '2026-03-30', 7000, -1, 'undone')",
            "DELETE FROM {} WHERE id < 500",
            "ROLLBACK",
        ],
        |client, name, rows| {
            assert_eq!(rows, ROWS + 401);
            assert_eq!(
                one::<i64>(
                    client,
                    &format!("SELECT count(*) FROM {name}_partitioned WHERE n = -1")
                ),
                403
            );
        },
    );
}

#[test]
fn unique_values_that_change_hands_during_copy_do_not_stop_it() {
    // 1 and 81 share their day.
    at_every_step(
        "unique",
        &[
            "UPDATE {} SET u = -1 WHERE id = 1",
            "UPDATE {} SET u = 1 WHERE id = 81",
            "UPDATE {} SET u = 81 WHERE id = 1",
            "UPDATE {} SET u = -161 WHERE id = 161",
            "INSERT INTO {} VALUES (9000, date '2026-01-01' + 1, 161, 0, 'took it')",
        ],
        |client, name, rows| {
            assert_eq!(rows, ROWS + 1);
            assert_eq!(
                one::<i32>(client, &format!("SELECT u FROM {name}_partitioned WHERE id = 1")),
                81
            );
        },
    );
}

/// A table with few rows whose key has this type, copied up to the drain.
fn before_the_drain(test: &str, key: &str) -> (Database, Client) {
    let database = Database::new(test);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            &format!(
                "CREATE TABLE a (id {key} PRIMARY KEY, d date NOT NULL DEFAULT '2026-01-05', n int, t text)"
            ),
            "INSERT INTO a VALUES (1.0, '2026-01-05', 0), (2, '2026-01-05', 0)",
            "SELECT partition_router.create_twin('a', 'd')",
            "SELECT partition_router.start_sync('a')",
        ],
    );
    steps_until(&mut client, "a", "drain");
    (database, client)
}

/// Ends the backfill; what is in both sides must be equal.
fn drained(client: &mut Client) -> i64 {
    run(client, &["CALL partition_router.backfill('a')"]);
    assert_equal_sides(client, "a", "a_partitioned", "id::text, d, n, t");
    one(client, "SELECT count(*) FROM a_partitioned")
}

#[test]
fn keys_that_are_equal_and_look_otherwise_keep_their_row() {
    let (_database, mut client) = before_the_drain("other_bytes", "numeric");
    run(
        &mut client,
        &[
            "UPDATE a SET id = 1.00 WHERE id = 1",
            "UPDATE a SET id = 1.0 WHERE id = 1",
            "UPDATE a SET id = 2.00 WHERE id = 2",
        ],
    );
    assert_eq!(drained(&mut client), 2);
}

#[test]
fn a_key_that_changes_many_times_is_in_the_twin_once() {
    let (_database, mut client) = before_the_drain("often", "numeric");
    run(
        &mut client,
        &[
            "INSERT INTO a SELECT g, '2026-01-01', g FROM generate_series(100, 30000) g",
            "UPDATE a SET n = -n WHERE id > 20000",
            "UPDATE a SET d = d + 40, id = id + 30000 WHERE id BETWEEN 101 AND 600",
            "UPDATE a SET id = id - 30000 WHERE id > 30300",
            "DELETE FROM a WHERE id BETWEEN 1000 AND 1100",
            "INSERT INTO a SELECT g, '2026-03-01', 7 FROM generate_series(1000, 1050) g",
        ],
    );
    assert_eq!(drained(&mut client), 2 + 29901 - 101 + 51);
}

#[test]
fn a_key_in_the_log_compressed_and_not_is_one_key() {
    // A new row comes to its trigger as it was given; the old one of an UPDATE comes as it lies in the table.
    let (_database, mut client) = before_the_drain("two_shapes", "text");
    let log: String = one(
        &mut client,
        "SELECT 'partition_router.change_log_' || id FROM partition_router.pair",
    );
    run(
        &mut client,
        &[
            "INSERT INTO a (id, t) SELECT repeat('x', 1500), string_agg(md5(g::text), '') FROM generate_series(1, 60) g",
            "UPDATE a SET n = 5 WHERE n IS NULL",
        ],
    );
    let shapes: i64 = one(
        &mut client,
        &format!("SELECT count(DISTINCT pg_column_size(id)) FROM {log} WHERE length(id) = 1500"),
    );
    assert_eq!(shapes, 2, "the log has the key in two shapes");
    assert_eq!(drained(&mut client), 3);
}

#[test]
fn a_row_that_moves_to_a_later_block_is_copied_once() {
    let (_database, mut backfill, mut application) = two_sessions("later_block");
    capture(&mut backfill, "a");
    run(
        &mut backfill,
        &["SELECT partition_router.backfill_step('a', 100)"],
    );
    run(&mut backfill, &["BEGIN"]);
    step(&mut backfill, "a");
    // Its old block is copied, its new one is not; and both lie within what is to be copied.
    run(
        &mut application,
        &[
            "UPDATE a SET n = -1, d = d + 31 WHERE id = 1",
            "UPDATE a SET n = -2 WHERE id = 2",
        ],
    );
    run(&mut backfill, &["COMMIT"]);
    assert!(one::<bool>(
        &mut backfill,
        "SELECT bool_and((a.ctid::text::point)[0] >= c.next_block AND (a.ctid::text::point)[0] < c.blocks)
         FROM a, partition_router.copy_state c WHERE id IN (1, 2) AND c.next_block > 0"
    ));
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(
            &mut backfill,
            "SELECT count(*) FROM a_partitioned WHERE id IN (1, 2)"
        ),
        2
    );
}

#[test]
fn a_copy_outlives_rewrites_of_the_table() {
    let rewrites = [
        "VACUUM FULL {}",
        "CLUSTER {} USING {}_pkey",
        "ALTER TABLE {} ALTER COLUMN n SET DEFAULT 5, SET (fillfactor = 50)",
        "VACUUM (FREEZE) {}",
    ];
    let (_database, mut backfill, mut application) = two_sessions("rewrite");
    for (i, rewrite) in rewrites.into_iter().enumerate() {
        let name = format!("t{i}");
        capture(&mut backfill, &name);
        for _ in 0..2 {
            step(&mut backfill, &name);
        }
        assert_eq!(stage(&mut backfill, &name), "copy");
        run(
            &mut application,
            &[
                &format!("DELETE FROM {name} WHERE id IN (1, 2200)"),
                &format!("UPDATE {name} SET d = d + 31 WHERE id IN (3, 2198)"),
                &rewrite.replace("{}", &name),
                &format!("INSERT INTO {name} VALUES (9000, '2026-02-02', 9000, 1, 'after')"),
            ],
        );
        assert_eq!(finish(&mut backfill, &name), ROWS - 1);
        let restarted = one::<bool>(
            &mut backfill,
            &format!(
                "SELECT count(*) > 0 FROM partition_router.run_log WHERE legacy LIKE '%{name}%' AND stage = 'RESTART'"
            ),
        );
        assert_eq!(restarted, i < 2, "{rewrite}");
    }
}

#[test]
fn truncate_during_copy_leaves_only_what_came_after() {
    let (_database, mut backfill, mut application) = two_sessions("truncate");
    for hold in 0.. {
        let name = format!("t{hold}");
        capture(&mut backfill, &name);
        for _ in 0..hold {
            step(&mut backfill, &name);
        }
        run(
            &mut application,
            &[
                &format!("UPDATE {name} SET n = 0 WHERE id < 10"),
                "BEGIN",
                &format!("INSERT INTO {name} VALUES (8000, '2026-02-02', 8000, 1, 'before')"),
                &format!("TRUNCATE {name}"),
                &format!("INSERT INTO {name} VALUES (8001, '2026-02-02', 8001, 1, 'after')"),
                "COMMIT",
                &format!("INSERT INTO {name} VALUES (8002, '2026-02-02', 8002, 1, 'after')"),
                "BEGIN",
                &format!("TRUNCATE {name}"),
                "ROLLBACK",
            ],
        );
        let at = stage(&mut backfill, &name);
        assert_eq!(finish(&mut backfill, &name), 2, "at {at}");
        if at == "flip" {
            break;
        }
    }
}

#[test]
fn a_transaction_that_commits_after_the_drain_is_not_lost() {
    let (database, mut backfill, mut application) = two_sessions("late");
    capture(&mut backfill, "a");
    run(
        &mut application,
        &[
            "BEGIN",
            "UPDATE a SET n = -1, d = d + 31 WHERE id IN (1, 2200)",
            "DELETE FROM a WHERE id = 2",
            "INSERT INTO a VALUES (9000, '2026-02-02', 9000, -1, 'late')",
        ],
    );
    let mut others = database.connect();
    steps_until(&mut backfill, "a", "drain");
    run(&mut others, &["UPDATE a SET n = -2 WHERE id = 3"]);
    steps_until(&mut backfill, "a", "flip");
    // The flip needs the writer to end; it waits and tries again.
    let flip_pid = super::pid(&mut backfill);
    let flip = std::thread::spawn(move || {
        let more = step(&mut backfill, "a");
        (backfill, more)
    });
    until(
        &mut others,
        &format!(
            "SELECT count(*) > 0 FROM pg_locks WHERE pid = {flip_pid} AND NOT granted AND relation = 'a'::regclass"
        ),
    );
    run(&mut application, &["UPDATE a SET n = -1 WHERE id = 4", "COMMIT"]);
    let (mut backfill, more) = flip.join().expect("the flip comes through");
    assert!(more);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
        4
    );
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT count(*) FROM a_partitioned WHERE n = -2"),
        1
    );
}

#[test]
fn a_snapshot_older_than_the_backfill_updates_and_deletes_afterwards() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let (_database, mut backfill, mut application) = two_sessions("old");
        capture(&mut backfill, "a");
        run(
            &mut application,
            &[
                &format!("BEGIN ISOLATION LEVEL {isolation}"),
                "SELECT 1 FROM pg_class LIMIT 1",
            ],
        );
        finish(&mut backfill, "a");
        run(
            &mut application,
            &[
                "UPDATE a SET n = -1, d = d + 31 WHERE id IN (1, 1100, 2200)",
                "DELETE FROM a WHERE id IN (2, 2198)",
                "UPDATE a SET id = 9000 WHERE id = 3",
                "COMMIT",
            ],
        );
        assert_eq!(finish(&mut backfill, "a"), ROWS - 2);
    }
}

#[test]
fn a_transaction_open_across_the_whole_copy_that_only_reads_is_not_in_the_way() {
    let (_database, mut backfill, mut application) = two_sessions("reader");
    run(&mut application, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    capture(&mut backfill, "a");
    assert_eq!(one::<i64>(&mut application, "SELECT count(*) FROM a"), ROWS);
    run(&mut backfill, &["UPDATE a SET n = -1 WHERE id = 1"]);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(&mut application, "SELECT count(*) FROM a WHERE n = -1"),
        0
    );
    run(&mut application, &["COMMIT"]);
}

#[test]
fn truncate_of_a_twin_that_is_not_live_is_refused() {
    let (_database, mut backfill, mut application) = two_sessions("truncate_twin");
    capture(&mut backfill, "c");
    let leaf: String = one(
        &mut backfill,
        "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'c_partitioned'::regclass",
    );
    for wanted in ["begin", "copy", "index", "drain", "flip"] {
        steps_until(&mut backfill, "c", wanted);
        for table in ["c_partitioned", leaf.as_str()] {
            assert_eq!(
                crate::common::sqlstate(&mut application, &format!("TRUNCATE {table}")),
                "PR012",
                "{table} in {wanted}"
            );
        }
    }
    assert_eq!(finish(&mut backfill, "c"), ROWS);
}
