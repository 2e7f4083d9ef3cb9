//! CHECK constraints, foreign keys, and what is said of a table as a whole.

use super::{Pair, SIDES, carried_from_each_side};

#[test]
fn checks_are_added_renamed_validated_and_dropped_on_both_sides() {
    carried_from_each_side(
        "checks",
        &[
            "ALTER TABLE {} ADD CHECK (n > 0)",
            "ALTER TABLE {} ADD CONSTRAINT \"C c\" CHECK (length(t) < 100 AND t <> 'it''s') NOT VALID",
            "ALTER TABLE {} VALIDATE CONSTRAINT \"C c\"",
            "ALTER TABLE {} RENAME CONSTRAINT \"C c\" TO c",
            "ALTER TABLE {} DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (n < 100000)",
            "ALTER TABLE {} ALTER n TYPE bigint",
            "ALTER TABLE {} DROP CONSTRAINT IF EXISTS c",
            "ALTER TABLE {} ADD CONSTRAINT two CHECK (n + u > 0)",
            "ALTER TABLE {} DROP COLUMN n",
        ],
    );
}

#[test]
fn a_check_that_does_not_come_to_children_is_carried_without_that() {
    let mut pair = Pair::live("no_inherit");
    pair.run(&["ALTER TABLE a ADD CONSTRAINT c CHECK (n > 0) NO INHERIT"]);
    pair.in_step();
    assert_eq!(
        pair.error("INSERT INTO a_partitioned VALUES (500, '2026-02-01', 1, -1)")
            .code()
            .code(),
        "23514"
    );
}

#[test]
fn foreign_keys_out_are_carried_once_they_are_proven() {
    for side in SIDES {
        let mut pair = Pair::live("foreign_keys");
        pair.run(&[&format!(
            "ALTER TABLE {side} ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents ON DELETE SET NULL"
        )]);
        pair.in_step();
        for table in SIDES {
            let insert = format!("INSERT INTO {table} VALUES (500, '2026-02-01', 1, 12345)");
            assert_eq!(pair.error(&insert).code().code(), "23503");
        }
        pair.run(&["DELETE FROM parents WHERE id = 50"]);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE n IS NULL"),
            1
        );
        pair.rows();
        pair.refuses(
            &format!("ALTER TABLE {side} ALTER CONSTRAINT fk DEFERRABLE"),
            "would behave otherwise",
        );
        pair.run(&[&format!("ALTER TABLE {side} RENAME CONSTRAINT fk TO \"F k\"")]);
        pair.in_step();
        pair.run(&[&format!("ALTER TABLE {side} DROP CONSTRAINT \"F k\"")]);
        pair.in_step();
        pair.run(&["INSERT INTO a VALUES (500, '2026-02-01', 1, 12345)"]);
    }
}

#[test]
fn a_foreign_key_that_is_not_proven_yet_guards_both_sides_from_the_legacy() {
    let mut pair = Pair::live("not_valid");
    pair.run(&[
        "UPDATE a SET n = 1000 WHERE id = 1",
        "ALTER TABLE a ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents NOT VALID",
    ]);
    for table in SIDES {
        let insert = format!("INSERT INTO {table} VALUES (500, '2026-02-01', 1, 12345)");
        assert_eq!(pair.error(&insert).code().code(), "23503");
    }
    pair.run(&["UPDATE a SET n = 1 WHERE id = 1"]);
    pair.refuses("ALTER TABLE a VALIDATE CONSTRAINT fk", "while writers wait");
    let partitions = super::texts(
        &mut pair.client,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'a_partitioned'::regclass",
    );
    for partition in partitions {
        pair.run(&[
            &format!(
                "ALTER TABLE {partition} ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents NOT VALID"
            ),
            &format!("ALTER TABLE {partition} VALIDATE CONSTRAINT fk"),
        ]);
    }
    pair.run(&["ALTER TABLE a VALIDATE CONSTRAINT fk"]);
    pair.in_step();
}

#[test]
fn the_owner_row_security_and_replica_identity_follow() {
    carried_from_each_side(
        "table",
        &[
            "ALTER TABLE {} OWNER TO pg_monitor",
            "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "ALTER TABLE {} NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE {} DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE {} REPLICA IDENTITY FULL",
            "ALTER TABLE {} REPLICA IDENTITY DEFAULT",
            "ALTER TABLE {} OWNER TO postgres",
        ],
    );
}

#[test]
fn a_trigger_of_the_user_is_switched_on_both_sides() {
    for side in SIDES {
        let mut pair = Pair::unpaired("triggers");
        pair.run(&[
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.t := ''seen''; RETURN NEW; END'",
            "CREATE TRIGGER mine BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()",
            "CALL partition_router.migrate('a', 'd')",
            &format!("ALTER TABLE {side} DISABLE TRIGGER mine"),
            "INSERT INTO a VALUES (500, '2026-02-01', 500, 1, 'x')",
            "INSERT INTO a_partitioned VALUES (501, '2026-02-01', 501, 1, 'x')",
        ]);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE t = 'seen'"), 0);
        pair.run(&[
            &format!("ALTER TABLE {side} ENABLE TRIGGER mine"),
            "INSERT INTO a VALUES (502, '2026-02-01', 502, 1, 'x')",
            "INSERT INTO a_partitioned VALUES (503, '2026-02-01', 503, 1, 'x')",
        ]);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE t = 'seen'"), 2);
        pair.rows();
    }
}

#[test]
fn what_concerns_one_table_only_is_left_to_it() {
    let mut pair = Pair::live("local");
    pair.run(&[
        "ALTER TABLE a SET (fillfactor = 70, autovacuum_enabled = off)",
        "ALTER TABLE a RESET (fillfactor)",
        "ALTER TABLE a CLUSTER ON a_pkey",
        "ALTER TABLE a SET WITHOUT CLUSTER",
        "ALTER TABLE a RENAME TO b",
        "ALTER TABLE a_partitioned RENAME TO b_twin",
        "CREATE SCHEMA other",
        "ALTER TABLE b SET SCHEMA other",
        "ALTER TABLE other.b ADD COLUMN x int DEFAULT 3",
        "ALTER TABLE other.b SET SCHEMA public",
        "ALTER TABLE b RENAME TO a",
        "ALTER TABLE b_twin RENAME TO a_partitioned",
        "CREATE TABLE c (LIKE a INCLUDING ALL)",
        "ALTER TABLE c DROP COLUMN n",
        "DROP TABLE c",
        "CREATE VIEW v AS SELECT * FROM a",
        "ALTER TABLE v RENAME TO w",
    ]);
    pair.in_step();
}
