//! Foreign keys, into the pair and out of it, with every action.

use super::{Scene, compare, everywhere, nothing_more, one, run};
use crate::common::Database;

/// `a` points at parents with every action, at itself, and is pointed at.
const FAMILY: [&str; 9] = [
    "CREATE TABLE parents (id int PRIMARY KEY, code int UNIQUE, region int UNIQUE)",
    "INSERT INTO parents SELECT g, g, g FROM generate_series(0, 9) g",
    "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL,
         cascading int REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE,
         nulled int REFERENCES parents (code) ON DELETE SET NULL ON UPDATE SET NULL,
         defaulted int DEFAULT 0 REFERENCES parents (region) ON DELETE SET DEFAULT ON UPDATE SET DEFAULT,
         parent int REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE)",
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g % 10, g % 10, g % 10, NULL FROM generate_series(1, 100) g",
    "UPDATE a SET parent = id - 10 WHERE id > 10",
    "CREATE TABLE children (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE strays (id int PRIMARY KEY, a int DEFAULT 100 REFERENCES a ON DELETE SET DEFAULT ON UPDATE SET NULL)",
    "INSERT INTO children SELECT g, g FROM generate_series(1, 100) g",
    "INSERT INTO strays SELECT g, g FROM generate_series(1, 100) g",
];

#[test]
fn every_action_of_a_foreign_key_out_of_the_pair_is_carried() {
    everywhere("actions_out", &FAMILY, "'d'", |scene| {
        scene.run(&[
            "UPDATE parents SET id = id + 100 WHERE id = 1",
            "UPDATE parents SET code = code + 100 WHERE id = 2",
            "UPDATE parents SET region = region + 100 WHERE id = 3",
            "UPDATE parents SET id = id + 100, code = code + 100, region = region + 100 WHERE id = 4",
            "DELETE FROM parents WHERE id = 5",
            "BEGIN",
            "DELETE FROM parents WHERE id = 6",
            "UPDATE parents SET id = id + 200 WHERE id IN (7, 8)",
            "SAVEPOINT s",
            "DELETE FROM parents WHERE id > 0",
            "ROLLBACK TO s",
            "COMMIT",
            "SET session_replication_role = replica",
            "UPDATE {} SET d = d + 31 WHERE id BETWEEN 1 AND 9",
            "RESET session_replication_role",
        ]);
        |scene: &mut Scene| {
            let counted: String = scene.one(
                "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE cascading > 100), count(*) FILTER (WHERE nulled IS NULL),
                                  count(*) FILTER (WHERE defaulted = 0)) FROM a_partitioned",
            );
            assert_eq!(counted, "80 40 20 30", "at {:?}", scene.at);
        }
    });
}

#[test]
fn what_points_at_the_legacy_follows_every_change_of_either_side() {
    everywhere("actions_in", &FAMILY, "'d'", |scene| {
        scene.run(&[
            "DELETE FROM {} WHERE id IN (1, 2)",
            "UPDATE {} SET id = id + 1000 WHERE id BETWEEN 3 AND 6",
            "UPDATE {} SET d = d + 31 WHERE id BETWEEN 7 AND 12",
            "UPDATE {} SET id = id + 1000, d = d - 31 WHERE id BETWEEN 13 AND 16",
            "UPDATE {} SET parent = 20 WHERE id = 30",
            "UPDATE {} SET id = 2020 WHERE id = 20",
        ]);
        |scene: &mut Scene| {
            let counted: String = scene.one(
                "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE a > 1000), count(*) FILTER (WHERE a IN (13, 3))) FROM children",
            );
            assert_eq!(counted, "98 9 0", "at {:?}", scene.at);
            let counted: String =
                scene.one("SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE a IS NULL), count(*) FILTER (WHERE a = 100)) FROM strays");
            assert_eq!(counted, "100 9 3", "at {:?}", scene.at);
            assert_eq!(
                scene.one::<i32>("SELECT parent FROM a_partitioned WHERE id = 30"),
                2020
            );
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM a_partitioned WHERE parent IS NULL"),
                8 + 2
            );
        }
    });
}

#[test]
fn a_chain_of_rows_that_point_at_each_other_goes_as_a_whole() {
    let setup = [
        "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, parent int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, nullif((g - 1) / 2, 0) FROM generate_series(1, 100) g",
    ];
    everywhere("chain", &setup, "'d'", |scene| {
        scene.run(&[
            "UPDATE {} SET id = id + 1000 WHERE id IN (3, 4)",
            "DELETE FROM {} WHERE id = 5",
            "UPDATE {} SET d = d + 31 WHERE id < 50",
            "DELETE FROM {} WHERE id = 1003",
        ]);
        |scene: &mut Scene| {
            let orphans = "SELECT count(*) FROM {} c WHERE parent IS NOT NULL AND NOT EXISTS (SELECT FROM {} p WHERE p.id = c.parent)";
            assert_eq!(scene.one::<i64>(orphans), 0);
            assert!(scene.one::<i64>("SELECT count(*) FROM a_partitioned") < 70);
        }
    });
}

/// Two pairs: `orgs` and `a`, which points at it.
fn two_pairs(test: &str, key: &str) -> Database {
    let database = Database::new(test);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE orgs (id int PRIMARY KEY, n int)",
            "INSERT INTO orgs SELECT g, 0 FROM generate_series(0, 9) g",
            &format!(
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, org int DEFAULT 0 REFERENCES orgs {key})"
            ),
            "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g % 10 FROM generate_series(1, 100) g",
            "CREATE TABLE fired (what text, id int)",
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO fired VALUES (TG_OP, COALESCE(OLD.id, NEW.id)); RETURN NULL; END$$",
            "CREATE TRIGGER note AFTER UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION note()",
            "CALL partition_router.migrate('orgs', 'id', 'hash', partitions => 4)",
            "CALL partition_router.migrate('a', 'd')",
        ],
    );
    database
}

#[test]
fn a_cascade_from_either_side_of_one_pair_reaches_both_sides_of_another() {
    for (key, left, changed) in [
        ("ON DELETE CASCADE ON UPDATE CASCADE", 80, 20),
        ("ON DELETE SET NULL ON UPDATE SET NULL", 100, 40),
        ("ON DELETE SET DEFAULT ON UPDATE SET DEFAULT", 100, 40),
    ] {
        for side in ["orgs", "orgs_partitioned"] {
            let database = two_pairs("two_pairs", key);
            let mut client = database.connect();
            run(
                &mut client,
                &[
                    &format!("DELETE FROM {side} WHERE id IN (1, 2)"),
                    &format!("UPDATE {side} SET id = 33 WHERE id = 3"),
                    &format!("UPDATE {side} SET n = 1"),
                    "BEGIN",
                    &format!("DELETE FROM {side} WHERE id = 4"),
                    "ROLLBACK",
                ],
            );
            assert_eq!(compare(&mut client, "orgs"), 8);
            assert_eq!(compare(&mut client, "a"), left, "{key} on {side}");
            let query = "SELECT count(*) FROM a_partitioned WHERE org IS NULL OR org IN (0, 33)";
            assert_eq!(one::<i64>(&mut client, query), changed, "{key} on {side}");
        }
    }
}

#[test]
fn a_trigger_of_the_user_fires_once_for_a_row_that_a_cascade_changes() {
    for key in [
        "ON DELETE CASCADE ON UPDATE CASCADE",
        "ON DELETE SET NULL ON UPDATE SET NULL",
    ] {
        for side in ["orgs", "orgs_partitioned"] {
            let database = two_pairs("cascade_once", key);
            let mut client = database.connect();
            run(
                &mut client,
                &[
                    &format!("DELETE FROM {side} WHERE id = 1"),
                    &format!("UPDATE {side} SET id = 33 WHERE id = 3"),
                ],
            );
            compare(&mut client, "a");
            assert_eq!(
                one::<String>(
                    &mut client,
                    "SELECT count(*) || ' ' || count(DISTINCT id) FROM fired"
                ),
                "20 20",
                "{key} on {side}"
            );
        }
    }
}

#[test]
fn a_move_between_partitions_deletes_nothing_that_points_at_the_row() {
    // Hash partitions, so that any change of `org` moves the row; and a key that a cascade changes.
    let setup = [
        "CREATE TABLE orgs (id int PRIMARY KEY)",
        "INSERT INTO orgs SELECT generate_series(0, 9)",
        "CREATE TABLE a (id int PRIMARY KEY, org int NOT NULL REFERENCES orgs ON UPDATE CASCADE)",
        "INSERT INTO a SELECT g, g % 10 FROM generate_series(1, 100) g",
        "CREATE TABLE children (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE)",
        "INSERT INTO children SELECT g, g FROM generate_series(1, 100) g",
    ];
    everywhere("move_in", &setup, "'org', 'hash', partitions => 4", |scene| {
        scene.run(&[
            "UPDATE orgs SET id = id + 100",
            "UPDATE {} SET org = 100 + (org + 1) % 10",
            "BEGIN",
            "UPDATE {} SET org = 100 + (org + 1) % 10",
            "UPDATE {} SET org = 100 + (org + 3) % 10 WHERE id < 50",
            "COMMIT",
        ]);
        |scene: &mut Scene| assert_eq!(scene.one::<i64>("SELECT count(*) FROM children"), 100)
    });
}

#[test]
fn a_foreign_key_checked_at_the_end_may_be_broken_in_between() {
    let setup = [
        "CREATE TABLE orgs (id int PRIMARY KEY)",
        "INSERT INTO orgs SELECT generate_series(0, 9)",
        "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, org int REFERENCES orgs DEFERRABLE INITIALLY DEFERRED,
                         next int REFERENCES a DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g % 10, g % 100 + 1 FROM generate_series(1, 100) g",
        "CREATE TABLE children (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO children SELECT g, g FROM generate_series(1, 100) g",
    ];
    everywhere("deferred_key", &setup, "'d'", |scene| {
        scene.run(&[
            "BEGIN",
            "INSERT INTO {} VALUES (500, '2026-02-02', 50, 501)",
            "DELETE FROM {} WHERE id = 1",
            "UPDATE {} SET d = d + 31 WHERE id = 2",
            "INSERT INTO {} VALUES (501, '2026-02-02', 51, 500), (1, '2026-03-03', 1, 2)",
            "INSERT INTO orgs VALUES (50), (51)",
            "COMMIT",
        ]);
        for broken in [
            "INSERT INTO {} VALUES (600, '2026-02-02', 99, 1)",
            "INSERT INTO {} VALUES (600, '2026-02-02', 1, 601)",
            "DELETE FROM {} WHERE id = 3",
            "UPDATE {} SET org = 99 WHERE id = 4",
            "DELETE FROM orgs WHERE id = 5",
        ] {
            scene.run(&["BEGIN", broken]);
            assert_eq!(scene.sqlstate("COMMIT"), "23503", "at {:?}: {broken}", scene.at);
        }
        nothing_more
    });
}
