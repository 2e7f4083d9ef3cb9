//! Each kind of statement, on either side.

use super::{Pair, on_each_side};

#[test]
fn inserts_updates_and_deletes_reach_the_other_side() {
    on_each_side("dml", |pair, side| {
        pair.run(&[
            &format!("INSERT INTO {side} VALUES (101, '2026-01-05', 101, 1, 'new'), (102, '2029-01-01', 102, 2, NULL)"),
            &format!("INSERT INTO {side} SELECT g, date '2026-02-01' + g % 20, g, g, 'many' FROM generate_series(200, 299) g"),
            &format!("UPDATE {side} SET n = n + 1000, t = 'changed' WHERE id <= 10"),
            &format!("DELETE FROM {side} WHERE id BETWEEN 11 AND 20"),
        ]);
        assert_eq!(pair.rows(), 192);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE t = 'changed' AND n > 1000"),
            10
        );
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE t = 'changed' AND n > 1000"),
            10
        );
    });
}

#[test]
fn truncate_of_either_side_empties_both() {
    on_each_side("truncate", |pair, side| {
        pair.run(&[
            &format!("TRUNCATE {side}"),
            "INSERT INTO a VALUES (1, '2026-01-01', 1, 1, 'after')",
        ]);
        assert_eq!(pair.rows(), 1);
    });
}

#[test]
fn truncate_that_is_rolled_back_leaves_both_sides_as_they_were() {
    on_each_side("truncate_undone", |pair, side| {
        pair.run(&["BEGIN", &format!("TRUNCATE {side}"), "ROLLBACK"]);
        assert_eq!(pair.rows(), 100);
        pair.run(&[
            "BEGIN",
            "SAVEPOINT s",
            &format!("TRUNCATE {side}"),
            "ROLLBACK TO s",
            &format!("UPDATE {side} SET n = -1 WHERE id = 1"),
            "COMMIT",
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 1"), -1);
        assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 1"), -1);
    });
}

#[test]
fn truncate_of_a_partition_deletes_its_rows_from_the_legacy() {
    let mut pair = Pair::plain("truncate_partition");
    let january: i64 = pair.one("SELECT count(*) FROM a_2026_01");
    assert!(january > 0);
    pair.run(&["TRUNCATE a_2026_01"]);
    assert_eq!(pair.rows(), 100 - january);
}

#[test]
fn copy_in_reaches_the_other_side() {
    on_each_side("copy_in", |pair, side| {
        use std::io::Write;
        let mut copy = pair
            .client
            .copy_in(&format!("COPY {side} (id, d, u, n, t) FROM STDIN"))
            .expect("COPY starts");
        for id in 1000..3000 {
            writeln!(copy, "{id}\t2026-0{}-11\t{id}\t\\N\tcopied {id}", 1 + id % 4)
                .expect("COPY takes a row");
        }
        assert_eq!(copy.finish().expect("COPY ends"), 2000);
        assert_eq!(pair.rows(), 2100);
    });
}

#[test]
fn merge_inserts_updates_and_deletes_in_one_statement() {
    on_each_side("merge", |pair, side| {
        pair.run(&[&format!(
            "MERGE INTO {side} t USING (SELECT g AS id, date '2026-03-03' AS d FROM generate_series(91, 110) g) s ON t.id = s.id
             WHEN MATCHED AND t.id % 2 = 0 THEN DELETE
             WHEN MATCHED THEN UPDATE SET d = s.d, n = 0
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.d, s.id, 1, 'merged')"
        )]);
        assert_eq!(pair.rows(), 105);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE d = '2026-03-03' AND n = 0"),
            5
        );
    });
}

#[test]
fn merge_may_reuse_a_key_that_it_deletes() {
    on_each_side("merge_reuse", |pair, side| {
        // 1 goes, and comes again from a source row that matches nothing.
        pair.run(&[&format!(
            "MERGE INTO {side} t USING (VALUES (1, 1, 1), (2, 500, 1), (3, 3, 2)) s (ord, match, id) ON t.id = s.match
             WHEN MATCHED AND s.ord = 1 THEN DELETE
             WHEN MATCHED THEN UPDATE SET n = -3
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, (SELECT date '2026-01-02'), 1, 77, 'again')"
        )]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 1"), 77);
        assert_eq!(pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 3"), -3);
    });
}

#[test]
fn upserts_reach_the_other_side() {
    on_each_side("upsert", |pair, side| {
        let target = if side == "a" { "(id)" } else { "(id, d)" };
        pair.run(&[
            &format!(
                "INSERT INTO {side} SELECT id, d, u, 0, 'again' FROM a WHERE id <= 10
                 UNION ALL SELECT 500, '2026-02-02', 500, 0, 'fresh'
                 ON CONFLICT {target} DO UPDATE SET n = EXCLUDED.n - 5, t = EXCLUDED.t"
            ),
            &format!(
                "INSERT INTO {side} SELECT id, d, u, 12345, 'never' FROM a WHERE id <= 10
                 UNION ALL SELECT 501, '2026-02-02', 501, 0, 'fresh' ON CONFLICT DO NOTHING"
            ),
        ]);
        assert_eq!(pair.rows(), 102);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE n = -5 AND t = 'again'"),
            10
        );
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE t = 'fresh'"),
            2
        );
    });
}

#[test]
fn rows_that_one_statement_deletes_and_inserts_again_stay() {
    on_each_side("cte", |pair, side| {
        pair.run(&[
            &format!("WITH gone AS (DELETE FROM {side} WHERE id <= 20 RETURNING *)
                      INSERT INTO {side} SELECT id, d + 60, u, n, 'moved' FROM gone"),
            &format!("WITH changed AS (UPDATE {side} SET n = -1 WHERE id BETWEEN 31 AND 40 RETURNING id),
                           added AS (INSERT INTO {side} SELECT id + 1000, '2026-01-01', id + 1000, 0, 'cte' FROM changed RETURNING id)
                      DELETE FROM {side} WHERE id BETWEEN 41 AND 50"),
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE t = 'moved'"),
            20
        );
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE n = -1"), 10);
    });
}

#[test]
fn writes_straight_into_a_partition_reach_the_legacy() {
    let mut pair = Pair::plain("leaf");
    pair.run(&[
        "INSERT INTO a_2026_02 VALUES (300, '2026-02-10', 300, 1, 'leaf')",
        "UPDATE a_2026_02 SET n = 42 WHERE id = 300",
        "UPDATE a_2026_02 SET id = 301 WHERE id = 300",
        "DELETE FROM a_2026_01 WHERE id = 3",
    ]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(pair.one::<i32>("SELECT n FROM a WHERE id = 301"), 42);
    pair.run(&[
        "SET session_replication_role = replica",
        "UPDATE a_2026_01 SET t = 'replica' WHERE id = 4",
        "DELETE FROM a_2026_01 WHERE id = 5",
        "RESET session_replication_role",
    ]);
    assert_eq!(pair.rows(), 99);
    assert_eq!(pair.one::<String>("SELECT t FROM a WHERE id = 4"), "replica");
}

#[test]
fn replica_role_does_not_switch_the_sync_off() {
    on_each_side("replica", |pair, side| {
        pair.run(&[
            "SET session_replication_role = replica",
            &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 500, 1, 'replica')"),
            &format!("UPDATE {side} SET d = d + 31 WHERE id = 1"),
            &format!("DELETE FROM {side} WHERE id = 2"),
        ]);
        assert_eq!(pair.rows(), 100);
        pair.run(&[&format!("TRUNCATE {side}")]);
        assert_eq!(pair.rows(), 0);
    });
}
