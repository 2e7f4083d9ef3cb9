//! Changes of the keys by which sync finds rows.

use super::{Pair, SIDES, on_each_side};
use crate::common::sqlstate;

#[test]
fn a_changed_partition_key_moves_the_row() {
    on_each_side("partition_key", |pair, side| {
        pair.run(&[
            &format!("UPDATE {side} SET d = d + 1 WHERE id <= 10"),
            &format!("UPDATE {side} SET d = '2026-03-31', n = -1 WHERE id BETWEEN 1 AND 50"),
            &format!("UPDATE {side} SET d = 'infinity' WHERE id = 51"),
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a_2026_03 WHERE n = -1"), 50);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a_default WHERE id = 51"), 1);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE n = -1 AND d = '2026-03-31'"),
            50
        );
    });
}

#[test]
fn a_changed_primary_key_names_the_same_row() {
    on_each_side("primary_key", |pair, side| {
        pair.run(&[
            &format!("UPDATE {side} SET id = id + 1000"),
            &format!("UPDATE {side} SET id = id - 999, d = d + 40, n = 0 WHERE id > 1090"),
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(pair.one::<i32>("SELECT max(n) FROM a WHERE id = 101"), 0);
    });
}

#[test]
fn keys_that_shift_by_one_do_not_collide() {
    for side in SIDES {
        // In descending order, so that the legacy itself takes it.
        let mut pair = Pair::new(
            "shift",
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int)",
                "INSERT INTO a SELECT 101 - g, date '2026-01-01' + g % 80, 101 - g FROM generate_series(1, 100) g",
            ],
            "'d'",
        );
        let order = "SET enable_indexscan = off; SET enable_bitmapscan = off";
        if side == "a" {
            pair.run(&[order, "UPDATE a SET id = id + 1"]);
            assert_eq!(pair.rows(), 100);
            assert_eq!(
                pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE id = n + 1"),
                100
            );
        }
        pair.run(&[&format!(
            "UPDATE {side} SET id = id + 1 WHERE id = (SELECT max(id) FROM a)"
        )]);
        pair.rows();
    }
}

#[test]
fn deferrable_keys_may_be_swapped() {
    for side in SIDES {
        let mut pair = Pair::new(
            "swap",
            &[
                "CREATE TABLE a (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, d date NOT NULL, u int,
                                 n int, UNIQUE (u, d) DEFERRABLE INITIALLY DEFERRED)",
                "INSERT INTO a SELECT g, '2026-01-01', g, g FROM generate_series(1, 20) g",
            ],
            "'d'",
        );
        pair.run(&[
            &format!("UPDATE {side} SET id = 21 - id"),
            &format!("UPDATE {side} SET u = 21 - u"),
            &format!("UPDATE {side} SET id = id % 20 + 1, d = d + 40 WHERE id <= 20"),
            "BEGIN",
            &format!("UPDATE {side} SET u = 20 WHERE n = 20"), // as n = 1
            &format!("UPDATE {side} SET u = 1, d = '2026-01-01' WHERE n = 1"),
            &format!("UPDATE {side} SET d = '2026-01-01' WHERE n = 20"),
            "COMMIT",
        ]);
        assert_eq!(pair.rows(), 20);
        assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 1"), 1);
        // What is left double at the end is refused as ever.
        pair.run(&[
            "BEGIN",
            &format!("UPDATE {side} SET u = (SELECT u FROM a WHERE n = 6) WHERE n = 5"),
        ]);
        assert_eq!(sqlstate(&mut pair.client, "COMMIT"), "23505");
        pair.rows();
    }
}

#[test]
fn unique_values_may_be_passed_on_within_a_transaction() {
    on_each_side("unique", |pair, side| {
        pair.run(&[
            "UPDATE a SET d = '2026-01-01' WHERE id <= 3",
            "BEGIN",
            &format!("UPDATE {side} SET u = -1 WHERE id = 1"),
            &format!("UPDATE {side} SET u = 1 WHERE id = 2"),
            &format!("UPDATE {side} SET u = 2 WHERE id = 1"),
            &format!("DELETE FROM {side} WHERE id = 3"),
            &format!("INSERT INTO {side} VALUES (300, '2026-01-01', 3, 3, 'took it')"),
            "COMMIT",
        ]);
        assert_eq!(pair.rows(), 100);
    });
}

#[test]
fn a_key_of_several_columns_with_text_works() {
    for side in SIDES {
        let mut pair = Pair::new(
            "composite",
            &[
                "CREATE TABLE a (n int, code text COLLATE \"C\", at timestamptz NOT NULL, v numeric, PRIMARY KEY (code, n))",
                "INSERT INTO a SELECT g, 'k' || g % 7, timestamptz '2026-01-01 UTC' + g * interval '1 day', g / 3.0 FROM generate_series(1, 100) g",
            ],
            "'at', partition_interval => '1 week'",
        );
        pair.run(&[
            &format!("UPDATE {side} SET code = upper(code) WHERE n % 2 = 0"),
            &format!("UPDATE {side} SET at = at + interval '3 weeks', v = v + 0.10 WHERE n < 50"),
            &format!("UPDATE {side} SET v = round(v, 5) WHERE n = 60"),
            &format!("DELETE FROM {side} WHERE code = 'k3'"),
        ]);
        assert!(pair.rows() < 100);
    }
}
