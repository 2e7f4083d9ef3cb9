//! Tables whose columns lie otherwise than they look: dropped ones, late ones, other numbers on the other side.

use super::{At, Scene, at, everywhere, nothing_more, run};
use crate::common::Database;

const CHANGES: [&str; 9] = [
    "UPDATE {} SET n = -1 WHERE id <= 10",
    "UPDATE {} SET d = d + 31 WHERE id BETWEEN 5 AND 15",
    "UPDATE {} SET id = id + 1000, later = 'moved' WHERE id BETWEEN 16 AND 20",
    "INSERT INTO {} (id, d) VALUES (2000, '2026-02-02'), (2001, '2029-02-02')",
    "INSERT INTO {} (id, d, n, later) SELECT id + 3000, d, n, later FROM {} WHERE id BETWEEN 30 AND 40",
    "DELETE FROM {} WHERE id BETWEEN 50 AND 55",
    "UPDATE {} SET later = NULL WHERE id BETWEEN 60 AND 65",
    "UPDATE {} SET d = '2026-03-03', big = big + 1 WHERE id BETWEEN 63 AND 70",
    "WITH gone AS (DELETE FROM {} WHERE id IN (80, 81) RETURNING *) INSERT INTO {} (later, d, id, n) SELECT later, d, id, 5 FROM gone",
];

/// Columns were dropped, and others came with a default that no row of the heap holds.
const SHAPE: [&str; 5] = [
    "CREATE TABLE a (gone1 text, n int, gone2 int, id int PRIMARY KEY, gone3 jsonb, d date NOT NULL)",
    "INSERT INTO a SELECT 'x', g, g, g, '{}', date '2026-01-01' + g % 80 FROM generate_series(1, 100) g",
    "ALTER TABLE a DROP COLUMN gone1, DROP COLUMN gone2, DROP COLUMN gone3",
    "ALTER TABLE a ADD COLUMN later text DEFAULT 'fast', ADD COLUMN big numeric DEFAULT 12.50, ADD COLUMN none int",
    "INSERT INTO a (id, d, n, later) VALUES (101, '2026-01-02', 1, NULL)",
];

#[test]
fn dropped_columns_and_fast_defaults_are_copied_and_carried() {
    everywhere("shape", &SHAPE, "'d'", |scene| {
        scene.run(&CHANGES);
        |scene: &mut Scene| {
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM a_partitioned"),
                101 + 2 + 11 - 6
            );
            let fast = "SELECT count(*) FROM a_partitioned WHERE later = 'fast' AND big >= 12.5";
            assert!(scene.one::<i64>(fast) >= 90);
        }
    });
}

/// Gives the twin, its root or some of its partitions, columns with other numbers, before anything is in it.
fn shuffle(scene: &mut Scene) {
    run(
        &mut scene.keeper,
        &[
            "SET partition_router.carry_ddl = off",
            // A partition that was a table of its own: other order, dropped columns.
            "CREATE TABLE own (x1 int, later text, x2 text, big numeric, d date NOT NULL, none int, n int, id int NOT NULL, x3 date)",
            "ALTER TABLE own DROP COLUMN x1, DROP COLUMN x2, DROP COLUMN x3",
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE a_partitioned DETACH PARTITION a_2026_02",
            "DROP TABLE a_2026_02",
            "ALTER TABLE own RENAME TO a_2026_02",
            "ALTER TABLE a_partitioned ATTACH PARTITION a_2026_02 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
        ],
    );
}

#[test]
fn a_partition_with_other_column_numbers_is_copied_and_carried() {
    let database = Database::new("numbers");
    for moment in At::COPY.into_iter().chain(At::LIVE) {
        // Before the copy it is empty, and the copy gives it its indexes; a live pair loses the rows of that month and
        // gets them back through repair.
        let mut setup = SHAPE.to_vec();
        if moment.is_live() {
            setup.push("DELETE FROM a WHERE d BETWEEN '2026-02-01' AND '2026-02-28'");
        }
        let before_the_copy = [At::Captured, At::Begun].contains(&moment);
        if !before_the_copy && !moment.is_live() {
            continue;
        }
        at(&database, moment, &setup, "'d'", |scene| {
            shuffle(scene);
            if moment.is_live() {
                run(&mut scene.keeper, &["SELECT partition_router.repair('a')"]);
            }
            scene.run(&CHANGES);
            let leaf = "UPDATE a_2026_02 SET n = -9 WHERE id = 2000";
            if moment == At::Twin {
                scene.run(&[leaf]);
            }
            nothing_more
        });
    }
}

#[test]
fn a_twin_with_other_column_numbers_is_carried() {
    // Columns that come and go on both sides, in one transaction, in another order.
    everywhere("twin_numbers", &SHAPE, "'d'", |scene| {
        if [At::Copying, At::Switched].contains(&scene.at) {
            return nothing_more; // a step holds its locks; the columns go by the twin's own name
        }
        run(
            &mut scene.keeper,
            &[
                "SET partition_router.carry_ddl = off",
                "BEGIN",
                "ALTER TABLE a ADD COLUMN e1 int, ADD COLUMN e2 text DEFAULT 'e2', ADD COLUMN e3 date",
                "ALTER TABLE a_partitioned ADD COLUMN e3 date, ADD COLUMN e2 text DEFAULT 'e2', ADD COLUMN e1 int",
                "ALTER TABLE a DROP COLUMN none",
                "ALTER TABLE a_partitioned DROP COLUMN none",
                "ALTER TABLE a ADD COLUMN none text DEFAULT 'again'",
                "ALTER TABLE a_partitioned ADD COLUMN none text DEFAULT 'again'",
                "COMMIT",
            ],
        );
        scene.run(&CHANGES);
        scene.run(&[
            "UPDATE {} SET e1 = id, e2 = id::text, e3 = d WHERE id < 50",
            "UPDATE {} SET d = d + 31 WHERE id BETWEEN 40 AND 49",
        ]);
        nothing_more
    });
}
