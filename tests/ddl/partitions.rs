//! Partitions that come and go by hand.

use super::{Pair, one, sqlstate_of};

const BARE: &str = "SELECT count(*) FROM partition_router.health WHERE \"check\" = 'sync' AND status <> 'ok'";

#[test]
fn partitions_made_or_attached_by_hand_are_in_sync_at_once() {
    let mut pair = Pair::live("by_hand");
    pair.run(&[
        "CREATE TABLE made PARTITION OF a_partitioned FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')",
        "CREATE TABLE attached (LIKE a_partitioned INCLUDING ALL)",
        "ALTER TABLE a_partitioned ATTACH PARTITION attached FOR VALUES FROM ('2091-01-01') TO ('2091-02-01')",
        "CREATE TABLE divided PARTITION OF a_partitioned FOR VALUES FROM ('2092-01-01') TO ('2093-01-01') PARTITION BY RANGE (d)",
        "CREATE TABLE divided_1 PARTITION OF divided FOR VALUES FROM ('2092-01-01') TO ('2092-07-01')",
        "CREATE TABLE divided_2 (LIKE a_partitioned INCLUDING ALL)",
        "ALTER TABLE divided ATTACH PARTITION divided_2 FOR VALUES FROM ('2092-07-01') TO ('2093-01-01')",
        "INSERT INTO made VALUES (1001, '2090-01-05', 1, 1)",
        "INSERT INTO attached VALUES (1002, '2091-01-05', 1, 1)",
        "INSERT INTO divided VALUES (1003, '2092-01-05', 1, 1)",
        "INSERT INTO divided_1 VALUES (1004, '2092-01-06', 1, 1)",
        "INSERT INTO divided_2 VALUES (1005, '2092-08-06', 1, 1)",
        "UPDATE made SET n = 2",
        "DELETE FROM divided_1 WHERE id = 1003",
        "INSERT INTO a VALUES (1006, '2092-08-07', 1, 1)",
    ]);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE id > 1000"), 5);
    assert_eq!(pair.one::<i64>(BARE), 0);
    pair.in_step();
}

#[test]
fn a_partition_with_rows_or_far_away_is_not_attached() {
    let mut pair = Pair::live("with_rows");
    pair.run(&[
        "CREATE TABLE p (LIKE a_partitioned INCLUDING ALL)",
        "INSERT INTO p VALUES (500, '2090-01-05', 1, 1)",
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
    ]);
    let attach =
        "ALTER TABLE a_partitioned ATTACH PARTITION p FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')";
    pair.refuses(attach, "rows that the legacy does not have");
    pair.run(&["DELETE FROM p", attach]);
    pair.refuses(
        "CREATE FOREIGN TABLE f PARTITION OF a_partitioned FOR VALUES FROM ('2091-01-01') TO ('2091-02-01')
         SERVER files OPTIONS (filename '/dev/null')",
        "cannot write it",
    );
    pair.in_step();
}

#[test]
fn partitions_are_neither_detached_nor_dropped_by_hand() {
    let mut pair = Pair::live("go");
    for statement in [
        "DROP TABLE a_2026_02",
        "DROP TABLE parents, a_2026_02 CASCADE",
        "ALTER TABLE a_partitioned DETACH PARTITION a_2026_02",
        "ALTER TABLE a_partitioned DETACH PARTITION a_2026_02 FINALIZE",
    ] {
        pair.refuses(statement, "stay on the other side");
    }
    pair.run(&["CREATE SCHEMA app", "ALTER TABLE a_2026_02 SET SCHEMA app"]);
    pair.refuses("DROP SCHEMA app CASCADE", "stay on the other side");
    // The extension itself may.
    pair.run(&[
        "SELECT partition_router.create_range_partition('a', 'empty', '2095-01-01', '2095-02-01')",
        "SELECT partition_router.drop_partition('empty')",
    ]);
    pair.in_step();
    pair.run(&[
        "SELECT partition_router.set_policy('a', retention => '1 month')",
        "CALL partition_router.run_maintenance('a')",
    ]);
    assert_eq!(
        sqlstate_of(&mut pair, "SELECT count(*) FROM app.a_2026_02"),
        "42P01"
    );
    pair.in_step();
}

#[test]
fn a_partition_alone_gets_nothing_that_refuses_rows_of_the_legacy() {
    let mut pair = Pair::live("alone");
    pair.refuses(
        "ALTER TABLE a_2026_02 ADD CHECK (n > 5)",
        "rows that the legacy takes",
    );
    pair.refuses(
        "ALTER TABLE a_2026_02 ALTER n SET NOT NULL",
        "which the legacy takes",
    );
    pair.refuses(
        "ALTER TABLE a_2026_02 ADD FOREIGN KEY (n) REFERENCES parents",
        "rows that the legacy takes",
    );
    pair.run(&[
        "CREATE INDEX ON a_2026_02 (n)",
        "ALTER TABLE a_2026_02 SET (fillfactor = 80)",
        "ALTER TABLE a_2026_02 ALTER n SET DEFAULT 9",
    ]);
    assert_eq!(one::<i64>(&mut pair.client, BARE), 0);
    pair.rows();
}
