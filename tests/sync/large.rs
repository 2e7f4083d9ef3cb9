//! Statements of so many rows that they are written many at a time: the heap first, each index afterwards.

use super::common::{one, sqlstate};
use super::{Pair, SIDES};

/// Rows over a month and a half, with a unique, a partial, an expression and a covering index, a generated column and a
/// value that lies out of line.
const TABLE: [&str; 7] = [
    "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, code int, n int CHECK (n <> 666), t text,
        twice int GENERATED ALWAYS AS (n * 2) STORED, UNIQUE (code, d))",
    "ALTER TABLE a ALTER t SET STORAGE EXTERNAL",
    "CREATE INDEX a_partial ON a (d DESC, n) WHERE n % 2 = 0",
    "CREATE INDEX a_expression ON a (lower(left(t, 20)), (n + 1) DESC NULLS LAST)",
    "CREATE INDEX a_covering ON a (n) INCLUDE (code)",
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 45, g, g, 'Row ' || g FROM generate_series(1, 300) g",
    "INSERT INTO a VALUES (50000, '2026-01-31', NULL, NULL, NULL)",
];

fn pair(test: &str) -> Pair {
    let mut pair = Pair::new(test, &TABLE, "'d'");
    pair.run(&["CREATE EXTENSION amcheck"]);
    pair
}

/// Asserts that both sides are equal, and that every index has exactly the rows that it should; gives their number.
fn rows(pair: &mut Pair) -> i64 {
    pair.run(&[
        "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
        WHERE c.relkind = 'i' AND i.indrelid IN (SELECT 'a'::regclass
            UNION ALL SELECT relid FROM pg_partition_tree('a_partitioned') WHERE isleaf)",
    ]);
    // What an index has too much shows when it is believed: its condition is not asked of the rows again.
    for side in SIDES {
        let count = format!("SELECT count(*) FROM {side} WHERE n % 2 = 0");
        pair.run(&["SET enable_seqscan = off", "SET enable_bitmapscan = off"]);
        let by_index: i64 = pair.one(&count);
        pair.run(&[
            "RESET ALL",
            "SET enable_indexscan = off",
            "SET enable_indexonlyscan = off",
            "SET enable_bitmapscan = off",
        ]);
        assert_eq!(by_index, pair.one::<i64>(&count));
        pair.run(&["RESET ALL"]);
    }
    pair.rows()
}

#[test]
fn every_index_of_the_other_side_has_the_rows_of_a_large_statement() {
    for side in SIDES {
        let mut pair = pair("large_indexes");
        pair.run(&[
            &format!(
                "INSERT INTO {side} (id, d, code, n, t)
                 SELECT 1000 + g, date '2026-01-01' + g % 45, -g, (g * 7919) % 1000, repeat(md5(g::text), 1 + 200 * (g % 50 / 49))
                 FROM generate_series(1, 12000) g WHERE (g * 7919) % 1000 <> 666"
            ),
            &format!("UPDATE {side} SET n = NULL, t = upper(t) WHERE id BETWEEN 2000 AND 4000"),
            &format!("UPDATE {side} SET n = n - 1 WHERE n <> 667"),
            &format!("UPDATE {side} SET t = 'same keys' WHERE id % 2 = 0"),
        ]);
        assert_eq!(rows(&mut pair), 12_000 - 12 + 301);
    }
}

#[test]
fn a_large_update_moves_rows_between_partitions_and_keys() {
    for side in SIDES {
        let mut pair = pair("large_moves");
        pair.run(&[
            // A third moves to another key, a third to another partition, a third stays.
            &format!(
                "UPDATE {side} SET id = CASE WHEN id % 3 = 0 THEN -id ELSE id END,
                        d = CASE WHEN id % 3 = 1 THEN d + 40 ELSE d END, n = n + 1000"
            ),
            // Each takes the key of the one before, which is free by then.
            &format!("UPDATE {side} SET code = code + 1 WHERE code > 1000"),
        ]);
        assert_eq!(rows(&mut pair), 301);
    }
}

#[test]
fn a_large_statement_that_the_other_side_refuses_fails() {
    let mut pair = pair("large_refused");
    // The twin has room for one id in two partitions, the legacy has not.
    let twice = "INSERT INTO a_partitioned (id, d, code, n)
        SELECT 6000 + g % 199, date '2026-01-01' + g / 199 * 40, -g, 1 FROM generate_series(1, 200) g";
    assert_eq!(sqlstate(&mut pair.client, twice), "23505");
    // Nothing is gathered past a constraint that only the other side has.
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "ALTER TABLE a_partitioned ADD CONSTRAINT only_here CHECK (n <> 777)",
        "RESET partition_router.carry_ddl",
    ]);
    let forbidden =
        "INSERT INTO a (id, d, n) SELECT 7000 + g, '2026-01-02', 700 + g FROM generate_series(1, 300) g";
    assert_eq!(sqlstate(&mut pair.client, forbidden), "23514");
    assert_eq!(rows(&mut pair), 301);
}

#[test]
fn rows_of_a_large_statement_may_break_a_deferrable_constraint_for_a_while() {
    for side in SIDES {
        let mut pair = Pair::new(
            "large_deferrable",
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, code int,
                    UNIQUE (code, d) DEFERRABLE INITIALLY DEFERRED)",
                "INSERT INTO a SELECT g, '2026-01-01', g FROM generate_series(1, 200) g",
            ],
            "'d'",
        );
        pair.run(&[
            "BEGIN",
            &format!("UPDATE {side} SET code = 1"),
            &format!("UPDATE {side} SET code = 201 - id"),
            "COMMIT",
        ]);
        let mut second = pair.database.connect();
        second
            .batch_execute(&format!("BEGIN; UPDATE {side} SET code = 1 WHERE id <= 100"))
            .expect("not checked yet");
        assert_eq!(sqlstate(&mut second, "COMMIT"), "23505");
        assert_eq!(pair.rows(), 200);
        assert_eq!(
            one::<i64>(&mut pair.client, "SELECT count(DISTINCT code) FROM a"),
            200
        );
    }
}

#[test]
fn a_large_statement_on_the_twin_is_checked_against_what_the_legacy_points_at() {
    let mut pair = Pair::new(
        "large_foreign",
        &[
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "INSERT INTO parent SELECT generate_series(1, 100)",
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO a SELECT g, '2026-01-01', g FROM generate_series(1, 100) g",
        ],
        "'d'",
    );
    for side in SIDES {
        pair.run(&[&format!(
            "INSERT INTO {side} SELECT (SELECT max(id) FROM a) + g, '2026-01-02', g FROM generate_series(1, 100) g"
        )]);
        assert_eq!(
            sqlstate(&mut pair.client, &format!("UPDATE {side} SET p = p + 1")),
            "23503"
        );
    }
    assert_eq!(pair.rows(), 300);
}

#[test]
fn a_large_statement_that_is_rolled_back_leaves_no_trace() {
    for side in SIDES {
        let mut pair = pair("large_undone");
        pair.run(&[
            "BEGIN",
            "SAVEPOINT s",
            &format!("INSERT INTO {side} (id, d, n) SELECT 8000 + g, '2026-01-02', 1 FROM generate_series(1, 500) g"),
            &format!("UPDATE {side} SET n = 2"),
            "ROLLBACK TO s",
            &format!("UPDATE {side} SET n = 3 WHERE id < 1000"),
            "COMMIT",
        ]);
        assert_eq!(rows(&mut pair), 301);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE n = 3"),
            300
        );
    }
}
