//! Savepoints, prepared transactions, and snapshots that are older than the pair.

use super::{Pair, SIDES, on_each_side};
use crate::common::{Database, assert_equal_sides, one, run};

#[test]
fn a_rolled_back_savepoint_leaves_nothing_on_either_side() {
    on_each_side("savepoint", |pair, side| {
        pair.run(&[
            "BEGIN",
            &format!("UPDATE {side} SET n = 1000 WHERE id = 1"),
            "SAVEPOINT s1",
            &format!("DELETE FROM {side} WHERE id <= 50"),
            "SAVEPOINT s2",
            &format!("INSERT INTO {side} VALUES (1, '2026-02-02', 7, 7, 'again')"),
            "ROLLBACK TO s2",
            &format!("INSERT INTO {side} VALUES (600, '2026-02-02', 600, 7, 'gone')"),
            "ROLLBACK TO s1",
            &format!("UPDATE {side} SET d = d + 31 WHERE id = 2"),
            "RELEASE s1",
            &format!("INSERT INTO {side} VALUES (601, '2026-02-02', 601, 7, 'stays')"),
            "COMMIT",
        ]);
        assert_eq!(pair.rows(), 101);
        assert_eq!(pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 1"), 1000);
    });
}

#[test]
fn exception_blocks_by_the_hundred_keep_both_sides_equal() {
    on_each_side("exceptions", |pair, side| {
        pair.run(&[&format!(
            "DO $$BEGIN FOR i IN 1..200 LOOP BEGIN
                 INSERT INTO {side} VALUES (1000 + i, '2026-02-02', 1000 + i, i, 'loop');
                 IF i % 3 = 0 THEN RAISE 'no'; END IF;
                 UPDATE {side} SET d = '2026-01-01' WHERE id = 1000 + i;
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END$$"
        )]);
        assert_eq!(pair.rows(), 234);
    });
}

#[test]
fn a_prepared_transaction_carries_its_changes() {
    on_each_side("prepared", |pair, side| {
        let (kept, undone) = (
            format!("kept_{}", pair.database.name),
            format!("undone_{}", pair.database.name),
        );
        pair.run(&[
            "BEGIN",
            &format!("UPDATE {side} SET d = d + 31, n = -1 WHERE id <= 10"),
            &format!("DELETE FROM {side} WHERE id = 11"),
            &format!("PREPARE TRANSACTION '{kept}'"),
            "BEGIN",
            &format!("DELETE FROM {side} WHERE id > 50"),
            &format!("PREPARE TRANSACTION '{undone}'"),
        ]);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a"), 100);
        pair.run(&[
            &format!("ROLLBACK PREPARED '{undone}'"),
            &format!("COMMIT PREPARED '{kept}'"),
        ]);
        assert_eq!(pair.rows(), 99);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE n = -1"),
            10
        );
    });
}

#[test]
fn a_transaction_older_than_the_pair_is_carried() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::new("old_snapshot");
        let (mut client, mut old) = (database.connect(), database.connect());
        run(
            &mut client,
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int)",
                "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g FROM generate_series(1, 100) g",
            ],
        );
        // The snapshot is taken, but no lock on the table.
        run(
            &mut old,
            &[
                &format!("BEGIN ISOLATION LEVEL {isolation}"),
                "SELECT 1 FROM pg_class LIMIT 1",
            ],
        );
        run(
            &mut client,
            &[
                "CALL partition_router.migrate('a', 'd')",
                "INSERT INTO a VALUES (500, '2026-02-02', 0)",
            ],
        );
        run(
            &mut old,
            &[
                "UPDATE a SET n = -1 WHERE id <= 10",
                "UPDATE a SET d = d + 60 WHERE id BETWEEN 5 AND 15",
                "DELETE FROM a WHERE id BETWEEN 21 AND 30",
                "UPDATE a SET id = id + 1000 WHERE id = 40",
                "INSERT INTO a VALUES (501, '2026-02-02', 0)",
                "COMMIT",
            ],
        );
        assert_equal_sides(&mut client, "a", "a_partitioned", "id, d, n");
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
            10
        );
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM a_partitioned"), 92);
    }
}

#[test]
fn a_truncate_in_a_transaction_older_than_the_pair_is_carried() {
    for side in SIDES {
        let database = Database::new("old_truncate");
        let (mut client, mut old) = (database.connect(), database.connect());
        run(
            &mut client,
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL)",
                "INSERT INTO a SELECT g, date '2026-01-01' + g % 80 FROM generate_series(1, 100) g",
            ],
        );
        run(
            &mut old,
            &[
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "SELECT 1 FROM pg_class LIMIT 1",
            ],
        );
        run(&mut client, &["CALL partition_router.migrate('a', 'd')"]);
        run(
            &mut old,
            &[
                &format!("TRUNCATE {side}"),
                "INSERT INTO a VALUES (7, '2026-01-01')",
                "COMMIT",
            ],
        );
        assert_equal_sides(&mut client, "a", "a_partitioned", "id, d");
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM a_partitioned"), 1);
    }
}

#[test]
fn an_old_snapshot_cannot_overwrite_what_came_from_the_other_side() {
    let mut pair = Pair::plain("crosswise");
    for (old_side, new_side) in [("a", "a_partitioned"), ("a_partitioned", "a")] {
        let mut old = pair.database.connect();
        run(
            &mut old,
            &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM a"],
        );
        pair.run(&[&format!("UPDATE {new_side} SET n = n + 1 WHERE id = 1")]);
        let update = format!("UPDATE {old_side} SET n = n + 1 WHERE id = 1");
        assert_eq!(crate::common::sqlstate(&mut old, &update), "40001");
        run(&mut old, &["ROLLBACK"]);
    }
    assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 1"), 3);
    pair.rows();
}
