//! Statements of so many rows that they are written many at a time: the heap first, each index afterwards.

use super::common::memory::peak_kb;
use super::common::{one, sqlstate};
use super::sessions::{meet, outcome, pid, until_blocked};
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
    assert_eq!(sqlstate(&mut pair.client, "UPDATE a SET n = n + 700"), "23514");
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

/// Runs `ddl` on one side alone.
fn alone(pair: &mut Pair, ddl: &str) {
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        ddl,
        "RESET partition_router.carry_ddl",
    ]);
}

#[test]
fn what_only_the_legacy_excludes_is_refused_in_a_large_statement() {
    let mut pair = pair("large_excluded");
    alone(
        &mut pair,
        "ALTER TABLE a ADD CONSTRAINT apart EXCLUDE USING btree (n WITH =)",
    );
    let insert = |from: i32, values: i32| {
        format!(
            "INSERT INTO a_partitioned (id, d, n)
             SELECT {from} + g, '2026-01-02', 1000 + g % {values} FROM generate_series(1, 100) g"
        )
    };
    assert_eq!(sqlstate(&mut pair.client, &insert(6000, 99)), "23P01");
    pair.run(&[&insert(6000, 100)]);
    let update = "UPDATE a_partitioned SET n = 5000 + id % 250 WHERE id <= 300";
    assert_eq!(sqlstate(&mut pair.client, update), "23P01");
    assert_eq!(rows(&mut pair), 401);
}

#[test]
fn nulls_that_are_not_distinct_are_refused_in_a_large_statement() {
    let mut pair = pair("large_nulls");
    alone(
        &mut pair,
        "CREATE UNIQUE INDEX only_one ON a (code) NULLS NOT DISTINCT",
    );
    let insert = |from: i32, code: &str| {
        format!(
            "INSERT INTO a_partitioned (id, d, code)
             SELECT {from} + g, date '2026-01-01' + g % 45, {code} FROM generate_series(1, 100) g"
        )
    };
    let second_null = insert(6000, "nullif(6000 + g, 6050)");
    assert_eq!(sqlstate(&mut pair.client, &second_null), "23505");
    pair.run(&[&insert(6000, "6000 + g")]);
    assert_eq!(rows(&mut pair), 401);
}

#[test]
fn indexes_of_all_methods_have_the_rows_of_a_large_statement() {
    for side in SIDES {
        let mut pair = Pair::new(
            "large_methods",
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int, label name, words text[], spot point)",
                "CREATE INDEX ON a USING hash (n)",
                "CREATE INDEX ON a USING gin (words)",
                "CREATE INDEX ON a USING gist (spot)",
                "CREATE INDEX ON a USING brin (id)",
                "CREATE INDEX ON a (label)",
                // A table whose rows can be gathered beside those whose cannot.
                "INSERT INTO a SELECT g, '2026-01-01', g, 'l' || g, ARRAY['w' || g % 7], point(g, g) FROM generate_series(1, 100) g",
            ],
            "'d'",
        );
        pair.run(&[
            &format!(
                "INSERT INTO {side} SELECT g, date '2026-01-01' + g % 60, g, 'l' || g, ARRAY['w' || g % 7], point(g, g)
                 FROM generate_series(101, 400) g"
            ),
            &format!(
                "UPDATE {side} SET n = n + 1000, label = label || 'x', words = words || 'new'::text, spot = point(n + 1000, 1)
                 WHERE id % 2 = 0"
            ),
            "SET enable_seqscan = off",
        ]);
        for other in SIDES {
            for (condition, expected) in [
                ("n = 1002", 1),
                ("n = 2", 0),
                ("label = 'l2x'", 1),
                ("label = 'l2'", 0),
                ("words @> ARRAY['new']", 200),
                ("spot <@ box(point(1000, 0), point(2000, 2))", 200),
                ("id BETWEEN 301 AND 400", 100),
            ] {
                assert_eq!(
                    pair.one::<i64>(&format!("SELECT count(*) FROM {other} WHERE {condition}")),
                    expected,
                    "{other}: {condition}"
                );
            }
        }
        pair.run(&["RESET enable_seqscan"]);
        assert_eq!(pair.rows(), 400);
    }
}

#[test]
fn what_only_the_legacy_points_at_is_checked_for_a_large_statement() {
    let mut pair = Pair::new(
        "large_points",
        &[
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "INSERT INTO parent SELECT generate_series(1, 100)",
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, p int REFERENCES parent)",
        ],
        "'d'",
    );
    alone(&mut pair, "ALTER TABLE a_partitioned DROP CONSTRAINT a_p_fkey");
    let insert = |from: i32| {
        format!(
            "INSERT INTO a_partitioned SELECT {from} + g, '2026-01-02', g + {from} FROM generate_series(1, 100) g"
        )
    };
    assert_eq!(sqlstate(&mut pair.client, &insert(1)), "23503");
    pair.run(&[&insert(0)]);
    assert_eq!(
        sqlstate(&mut pair.client, "UPDATE a_partitioned SET p = p + 1"),
        "23503"
    );
    assert_eq!(pair.rows(), 100);
}

#[test]
fn what_points_at_a_unique_value_follows_a_large_update_of_the_twin() {
    let mut pair = Pair::new(
        "large_cascade",
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, code int UNIQUE)",
            "INSERT INTO a SELECT g, '2026-01-01', g FROM generate_series(1, 100) g",
            "CREATE TABLE child (id int PRIMARY KEY, a int REFERENCES a (code) ON UPDATE CASCADE)",
            "INSERT INTO child SELECT g, g FROM generate_series(1, 100) g",
        ],
        "'d'",
    );
    pair.run(&["UPDATE a_partitioned SET code = code + 1000"]);
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM child WHERE a = id + 1000"),
        100
    );
    assert_eq!(pair.rows(), 100);
}

#[test]
fn rows_of_a_large_update_of_the_twin_may_take_the_key_of_the_next_one() {
    let mut pair = pair("large_shift");
    // For the twin (id, d) is the key: an id may be in two partitions until the next row is changed.
    pair.run(&["UPDATE a_partitioned SET id = id + 1 WHERE id <= 300"]);
    assert_eq!(rows(&mut pair), 301);
    // Those that stay take what those leave that move.
    pair.run(&["UPDATE a SET d = d + CASE WHEN id % 2 = 0 THEN 40 ELSE 1 END WHERE id <= 301"]);
    assert_eq!(rows(&mut pair), 301);
}

#[test]
fn a_large_statement_waits_for_whoever_has_written_one_of_its_keys() {
    let mut pair = pair("large_meets");
    let first = "INSERT INTO a (id, d, n) VALUES (5050, '2026-02-14', 1)";
    let second = "INSERT INTO a_partitioned (id, d, n)
        SELECT 5000 + g, '2026-01-02', 1 FROM generate_series(1, 100) g";
    assert_eq!(meet(&mut pair, first, second, "ROLLBACK"), "");
    assert_eq!(rows(&mut pair), 401);
    pair.run(&["DELETE FROM a WHERE id > 5000 AND id < 6000"]);
    assert_eq!(meet(&mut pair, first, second, "COMMIT"), "23505");
    assert_eq!(rows(&mut pair), 302);
}

#[test]
fn an_index_that_is_being_built_gets_no_rows_of_a_large_statement_too_early() {
    let mut pair = pair("large_index");
    let (mut writer, mut builder) = (pair.database.connect(), pair.database.connect());
    let builder_pid = pid(&mut builder);
    writer
        .batch_execute("BEGIN; INSERT INTO a (id, d, n) VALUES (6000, '2026-01-02', 1)")
        .expect("nobody is in the way");
    let building = std::thread::spawn(move || {
        outcome(&mut builder, "SET partition_router.carry_ddl = off");
        outcome(&mut builder, "CREATE INDEX CONCURRENTLY late ON a (n, id)")
    });
    until_blocked(&mut pair.client, builder_pid);
    pair.run(&["INSERT INTO a_partitioned (id, d, n) SELECT 7000 + g, '2026-01-02', g FROM generate_series(1, 100) g"]);
    writer.batch_execute("COMMIT").expect("the row was taken");
    assert_eq!(building.join().expect("the session ends"), "");
    assert_eq!(rows(&mut pair), 402);
}

/// What five times the rows may take more: less than a quarter of what they hold more, and more
/// than what a busy machine leaves unseen between two looks at the smaller statement.
const SLACK_KB: u64 = 12_000;

#[test]
fn a_large_statement_takes_no_more_memory_for_more_rows() {
    let mut pair = Pair::new(
        "large_memory",
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int, t text)",
            "ALTER TABLE a ALTER t SET STORAGE EXTERNAL",
            "CREATE INDEX ON a (d, (n + 1))",
            "INSERT INTO a SELECT -g, date '2026-01-01' + g FROM generate_series(1, 59) g",
        ],
        "'d', partition_interval => '1 day'",
    );
    // The smaller statement, too, fills what is gathered before it is written.
    for (shape, day, text, few) in [
        ("scattered", "g % 60", "repeat('x', 500)", 25_000),
        ("toasted", "g % 60", "repeat('x', 20000)", 1_000),
    ] {
        for side in SIDES {
            let [less, more] = [few, 5 * few].map(|rows| {
                let mut client = pair.database.connect();
                let backend = pid(&mut client);
                let peak = peak_kb(backend, || {
                    let statements = [
                        format!(
                            "INSERT INTO {side} SELECT g, date '2026-01-01' + {day}, g, {text} FROM generate_series(1, {rows}) g"
                        ),
                        format!("UPDATE {side} SET n = -n WHERE id > 0"),
                        format!("DELETE FROM {side} WHERE id > 0"),
                    ];
                    for statement in &statements {
                        assert_eq!(outcome(&mut client, statement), "");
                    }
                });
                pair.run(&["VACUUM a", "VACUUM a_partitioned"]);
                peak
            });
            assert!(
                more <= less + SLACK_KB,
                "{shape}, {side}: {less} kB, {more} kB with five times the rows"
            );
        }
    }
}
