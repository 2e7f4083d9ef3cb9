//! Unique constraints that are checked at the end.

use super::{Scene, everywhere, nothing_more};

/// The heap has room in its first block: new versions of rows come to lie before the old ones.
const SWAPS: [&str; 4] = [
    "CREATE TABLE a (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, d date NOT NULL, u int, n int,
                     UNIQUE (u, d) DEFERRABLE INITIALLY DEFERRED) WITH (autovacuum_enabled = off)",
    "INSERT INTO a SELECT g, '2026-01-01', g, g FROM generate_series(-600, 20) g",
    "DELETE FROM a WHERE id <= 0",
    "VACUUM (INDEX_CLEANUP ON) a",
];

#[test]
fn keys_that_swap_within_a_statement_are_carried() {
    everywhere("swap", &SWAPS, "'d'", |scene| {
        scene.run(&[
            "UPDATE {} SET id = 21 - id",
            "UPDATE {} SET u = 21 - u",
            "UPDATE {} SET id = id % 20 + 1, d = d + 40 WHERE id <= 20",
            "UPDATE {} SET id = id % 20 + 1, u = u % 20 + 1",
        ]);
        |scene: &mut Scene| {
            let wrong: i64 = scene.one("SELECT count(*) FROM a_partitioned WHERE id <> (22 - n) % 20 + 1 OR u <> (20 - n + 1) % 20 + 1");
            assert_eq!(wrong, 0, "at {:?}", scene.at);
        }
    });
}

#[test]
fn keys_that_are_double_for_a_while_are_carried() {
    everywhere("double", &SWAPS, "'d'", |scene| {
        scene.run(&[
            // Two rows with one key between two statements, in both orders.
            "BEGIN",
            "UPDATE {} SET id = 2 WHERE n = 1",
            "UPDATE {} SET id = 1 WHERE n = 2",
            "COMMIT",
            "BEGIN",
            "UPDATE {} SET id = 3 WHERE n = 4",
            "UPDATE {} SET n = n + 100 WHERE id = 3",
            "UPDATE {} SET id = 4 WHERE n = 103",
            "COMMIT",
            "BEGIN",
            "UPDATE {} SET id = 5 WHERE n = 6",
            "DELETE FROM {} WHERE n = 5",
            "COMMIT",
            "BEGIN",
            "INSERT INTO {} VALUES (7, '2026-01-01', 7, 700)",
            "DELETE FROM {} WHERE n = 7",
            "COMMIT",
            "BEGIN",
            "INSERT INTO {} VALUES (8, '2026-01-01', 8, 800)",
            "SAVEPOINT s",
            "DELETE FROM {} WHERE n = 8",
            "ROLLBACK TO s",
            "UPDATE {} SET id = 800, u = 800 WHERE n = 800",
            "COMMIT",
        ]);
        |scene: &mut Scene| {
            let rows: String =
                scene.one("SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM a_partitioned WHERE id < 9 OR id > 20");
            assert_eq!(
                rows, "1:2 2:1 3:104 4:103 5:6 7:700 8:8 800:800",
                "at {:?}",
                scene.at
            );
        }
    });
}

#[test]
fn unique_values_that_are_double_for_a_while_are_carried() {
    everywhere("double_unique", &SWAPS, "'d'", |scene| {
        scene.run(&[
            "BEGIN",
            "UPDATE {} SET u = 20 WHERE n = 1",
            "UPDATE {} SET u = 1, d = '2026-02-01' WHERE n = 20",
            "UPDATE {} SET d = '2026-01-01' WHERE n = 20",
            "COMMIT",
            "BEGIN",
            "UPDATE {} SET u = 5 WHERE n = 6",
            "SET CONSTRAINTS ALL DEFERRED",
            "UPDATE {} SET u = 6 WHERE n = 5",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "COMMIT",
        ]);
        for twice in [
            "UPDATE {} SET u = 8 WHERE n = 9",
            "UPDATE {} SET id = 8 WHERE n = 9",
            "INSERT INTO {} VALUES (8, '2026-01-01', 500, 500)",
        ] {
            scene.run(&["BEGIN", twice]);
            assert_eq!(scene.sqlstate("COMMIT"), "23505", "at {:?}: {twice}", scene.at);
            scene.run(&["BEGIN", twice]);
            assert_eq!(scene.sqlstate("SET CONSTRAINTS ALL IMMEDIATE"), "23505");
            scene.run(&["ROLLBACK"]);
        }
        nothing_more
    });
}
