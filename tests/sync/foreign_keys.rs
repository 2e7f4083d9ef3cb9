//! Actions of foreign keys, out of the pair and into it.

use super::{Pair, SIDES};

fn pair(test: &str) -> Pair {
    Pair::new(
        test,
        &[
            "CREATE TABLE organizations (id int PRIMARY KEY, code int UNIQUE, region int UNIQUE)",
            "INSERT INTO organizations SELECT g, g, g FROM generate_series(1, 5) g",
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL,
                 org int NOT NULL REFERENCES organizations ON DELETE CASCADE ON UPDATE CASCADE,
                 code int REFERENCES organizations (code) ON UPDATE CASCADE,
                 region int REFERENCES organizations (region) ON DELETE SET NULL,
                 parent int REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE)",
            "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, 1 + g % 5, 1 + g % 5, 1 + (g + 1) % 5, NULL
             FROM generate_series(1, 100) g",
            "UPDATE a SET parent = id - 10 WHERE id > 10",
            "CREATE TABLE refunds (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE)",
            "INSERT INTO refunds SELECT g, g FROM generate_series(1, 100) g",
        ],
        "'d'",
    )
}

#[test]
fn cascades_from_a_referenced_table_reach_both_sides() {
    let mut pair = pair("cascade");
    pair.run(&[
        "UPDATE organizations SET id = id + 10",
        "UPDATE organizations SET code = code + 20",
    ]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE org > 10 AND code > 20"),
        100
    );
    pair.run(&["DELETE FROM organizations WHERE id IN (11, 12)"]);
    assert_eq!(pair.rows(), 60);
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE region IS NULL"),
        20
    );
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds"), 60);
}

#[test]
fn two_cascades_that_change_the_same_rows_in_one_statement_are_carried() {
    let mut pair = pair("two_cascades");
    pair.run(&["UPDATE organizations SET id = id + 10, code = code + 20"]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE org > 10 AND code > 20"),
        100
    );
}

#[test]
fn a_cascade_that_moves_rows_between_partitions_keeps_what_points_at_them() {
    let mut pair = Pair::new(
        "cascade_hash",
        &[
            "CREATE TABLE organizations (id int PRIMARY KEY, code int UNIQUE)",
            "INSERT INTO organizations SELECT g, g FROM generate_series(1, 5) g",
            "CREATE TABLE a (id int PRIMARY KEY, org int NOT NULL REFERENCES organizations ON UPDATE CASCADE,
                             code int REFERENCES organizations (code) ON UPDATE CASCADE)",
            "INSERT INTO a SELECT g, 1 + g % 5, 1 + g % 5 FROM generate_series(1, 100) g",
            "CREATE TABLE refunds (a int REFERENCES a ON DELETE CASCADE)",
            "INSERT INTO refunds SELECT g FROM generate_series(1, 100) g",
        ],
        "'org', 'hash', partitions => 4",
    );
    pair.run(&[
        "UPDATE organizations SET id = id + 10, code = code + 20",
        "UPDATE organizations SET id = id + 7",
    ]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds"), 100);
}

#[test]
fn what_points_at_the_legacy_follows_a_change_on_the_twin() {
    for side in SIDES {
        let mut pair = pair("children");
        pair.run(&[&format!("DELETE FROM {side} WHERE id = 50")]);
        assert_eq!(pair.rows(), 99);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds"), 99);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE id = 60 AND parent IS NULL"),
            1
        );
        pair.run(&[&format!("UPDATE {side} SET id = id + 1000 WHERE id IN (1, 2)")]);
        assert_eq!(pair.rows(), 99);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds WHERE a > 1000"), 2);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE parent > 1000"),
            2
        );
        // Every row at once: its own parents change under it.
        pair.run(&[&format!("UPDATE {side} SET id = id + 2000")]);
        assert_eq!(pair.rows(), 99);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds WHERE a > 2000"), 99);
        // A row that moves to another partition is the same row.
        pair.run(&[&format!("UPDATE {side} SET d = d + 60")]);
        assert_eq!(pair.rows(), 99);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds"), 99);
    }
}

#[test]
fn what_points_at_the_legacy_survives_a_move_that_a_trigger_interferes_with() {
    let mut pair = pair("children_nested");
    pair.run(&[
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             IF pg_trigger_depth() < 2 THEN UPDATE a_partitioned SET code = 1 WHERE id = 99; END IF; RETURN NULL; END$$",
        "CREATE TRIGGER touch AFTER INSERT OR UPDATE OR DELETE ON a_partitioned FOR EACH ROW EXECUTE FUNCTION touch()",
        "UPDATE a_partitioned SET d = d + 60 WHERE id <= 10",
        "UPDATE a_partitioned SET id = id + 1000 WHERE id BETWEEN 11 AND 20",
        "UPDATE a_partitioned SET id = id + 1000, d = d + 60 WHERE id BETWEEN 21 AND 30",
    ]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds"), 100);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM refunds WHERE a > 1000"), 20);
}

#[test]
fn a_foreign_key_that_refuses_refuses_on_either_side() {
    for side in SIDES {
        let mut pair = pair("refuse");
        let insert = format!("INSERT INTO {side} VALUES (500, '2026-01-01', 99, 1, 1, NULL)");
        assert_eq!(crate::common::sqlstate(&mut pair.client, &insert), "23503");
        pair.run(&["ALTER TABLE refunds DROP CONSTRAINT refunds_a_fkey, ADD FOREIGN KEY (a) REFERENCES a"]);
        let delete = format!("DELETE FROM {side} WHERE id = 50");
        assert_eq!(crate::common::sqlstate(&mut pair.client, &delete), "23503");
        assert_eq!(pair.rows(), 100);
    }
}
