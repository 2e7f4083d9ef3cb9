//! Writes straight into a partition, and rows that move between partitions.

use super::{PLAIN, Scene, compare, live, one, run, session, until};
use crate::common::Database;
use postgres::Client;
use std::io::Write;

fn live_pair(test: &str) -> (Database, Client) {
    let database = Database::new(test);
    let mut client = session(&database, "public");
    run(&mut client, &PLAIN);
    run(&mut client, &["CALL partition_router.migrate('a', 'd')"]);
    (database, client)
}

#[test]
fn every_kind_of_write_into_a_partition_reaches_the_legacy() {
    let (_database, mut client) = live_pair("leaf");
    run(
        &mut client,
        &[
            "INSERT INTO a_2026_02 VALUES (300, '2026-02-10', 300, 1, 'leaf'), (301, '2026-02-10', 301, 1, 'leaf')",
            "INSERT INTO a_2026_02 SELECT g, '2026-02-11', g, 2, 'many' FROM generate_series(310, 399) g",
            "UPDATE a_2026_02 SET n = 42, d = '2026-02-12' WHERE id = 300",
            "UPDATE a_2026_02 SET id = 3010 WHERE id = 301",
            "DELETE FROM a_2026_02 WHERE id BETWEEN 390 AND 394",
            "INSERT INTO a_2026_02 VALUES (300, '2026-02-12', 300, 0, 'upsert'), (302, '2026-02-12', 302, 0, 'upsert')
             ON CONFLICT (id, d) DO UPDATE SET n = EXCLUDED.n - 7, t = EXCLUDED.t",
            "INSERT INTO a_2026_02 VALUES (300, '2026-02-12', 300, 0, 'never'), (303, '2026-02-12', 303, 0, 'fresh') ON CONFLICT DO NOTHING",
            "MERGE INTO a_2026_02 t USING (VALUES (310), (311), (312), (900)) s (id) ON t.id = s.id
             WHEN MATCHED AND t.id = 310 THEN DELETE WHEN MATCHED THEN UPDATE SET n = -3
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, '2026-02-20', s.id, -3, 'merged')",
            "WITH gone AS (DELETE FROM a_2026_02 WHERE id = 313 RETURNING *) INSERT INTO a_2026_01 SELECT id, d - 31, u, n, 'cte' FROM gone",
            "BEGIN",
            "UPDATE a_2026_02 SET n = 0",
            "SAVEPOINT s",
            "DELETE FROM a_2026_02",
            "INSERT INTO a_2026_02 VALUES (999, '2026-02-01', 999, 9, 'undone')",
            "ROLLBACK TO s",
            "ROLLBACK",
            "SET session_replication_role = replica",
            "UPDATE a_2026_01 SET t = 'replica' WHERE id = 4",
            "DELETE FROM a_2026_01 WHERE id = 5",
            "INSERT INTO a_2026_01 VALUES (3000, '2026-01-10', 3000, 1, 'replica')",
            "RESET session_replication_role",
        ],
    );
    let mut copy = client.copy_in("COPY a_2026_02 FROM STDIN").expect("COPY starts");
    for id in 4000..4500 {
        writeln!(copy, "{id}\t2026-02-1{}\t{id}\t\\N\tcopied", id % 10).expect("COPY takes a row");
    }
    assert_eq!(copy.finish().expect("COPY ends"), 500);
    let copied = compare(&mut client, "a");
    let counted: String = one(
        &mut client,
        "SELECT concat_ws(' ', count(*) FILTER (WHERE t = 'copied'), count(*) FILTER (WHERE n = -3), count(*) FILTER (WHERE n = -7),
                          count(*) FILTER (WHERE t = 'cte'), count(*) FILTER (WHERE t IN ('never', 'undone'))) FROM a",
    );
    assert_eq!(counted, "500 3 1 1 0");
    let february: i64 = one(&mut client, "SELECT count(*) FROM a_2026_02");
    run(&mut client, &["TRUNCATE a_2026_02"]);
    assert_eq!(compare(&mut client, "a"), copied - february);
    // Several at once, with the changes of one transaction before and after.
    run(
        &mut client,
        &[
            "BEGIN",
            "INSERT INTO a_2026_01 VALUES (5000, '2026-01-10', 5000, 1, 'before')",
            "INSERT INTO a VALUES (5001, '2026-03-10', 5001, 1, 'before')",
            "TRUNCATE a_2026_01, a_2026_03",
            "INSERT INTO a_2026_01 VALUES (5000, '2026-01-10', 5000, 1, 'after')",
            "COMMIT",
            "BEGIN",
            "TRUNCATE a_2026_01",
            "ROLLBACK",
        ],
    );
    assert_eq!(compare(&mut client, "a"), 1);
    // What a partition does not take, neither side takes.
    let refused = crate::common::sqlstate(
        &mut client,
        "INSERT INTO a_2026_01 VALUES (1, '2026-02-10', 1, 1, 'x')",
    );
    assert_eq!(refused, "23514");
    assert_eq!(compare(&mut client, "a"), 1);
}

#[test]
fn a_partition_of_partitions_carries_writes_at_every_level() {
    let (_database, mut client) = live_pair("subpartition");
    run(
        &mut client,
        &[
            "CREATE TABLE sub (LIKE a_2026_02 INCLUDING ALL) PARTITION BY RANGE (d)",
            "CREATE TABLE sub_0 PARTITION OF sub FOR VALUES FROM ('2026-02-01') TO ('2026-02-15')",
            "CREATE TABLE sub_1 PARTITION OF sub FOR VALUES FROM ('2026-02-15') TO ('2026-03-01')",
            "DELETE FROM a_2026_02",
            "ALTER TABLE a_partitioned DETACH PARTITION a_2026_02",
            "ALTER TABLE a_partitioned ATTACH PARTITION sub FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
            "SELECT partition_router.repair('a')",
            "INSERT INTO a SELECT g, '2026-02-10', g, 1, 'legacy' FROM generate_series(300, 319) g",
            "INSERT INTO a_partitioned SELECT g, '2026-02-10', g, 1, 'root' FROM generate_series(320, 339) g",
            "INSERT INTO sub SELECT g, '2026-02-10', g, 1, 'middle' FROM generate_series(340, 359) g",
            "UPDATE sub SET id = id + 101, d = d + 7 WHERE id BETWEEN 310 AND 345",
            "UPDATE sub_0 SET n = 2",
            "UPDATE sub_1 SET n = 1, d = d - 1 WHERE id % 2 = 0",
            "UPDATE a SET d = '2026-03-01' WHERE id = 300",
            "DELETE FROM sub_1 WHERE n = 1 AND id < 420",
        ],
    );
    compare(&mut client, "a");
    run(&mut client, &["TRUNCATE sub_0"]);
    compare(&mut client, "a");
    run(&mut client, &["TRUNCATE sub"]);
    compare(&mut client, "a");
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM a WHERE d BETWEEN '2026-02-01' AND '2026-02-28'"
        ),
        0
    );
}

#[test]
fn an_update_that_moves_a_row_between_partitions_is_one_update_of_the_legacy() {
    let setup = [
        PLAIN[0],
        PLAIN[1],
        "CREATE TABLE children (id int PRIMARY KEY, a int NOT NULL REFERENCES a ON DELETE CASCADE)",
        "INSERT INTO children SELECT g, g FROM generate_series(1, 100) g",
        "CREATE TABLE deleted (id int)",
        "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO deleted VALUES (OLD.id); RETURN OLD; END$$",
    ];
    live("one_update", &setup, "'d'", |scene| {
        scene.run(&["CREATE TRIGGER gone BEFORE DELETE ON children FOR EACH ROW EXECUTE FUNCTION gone()"]);
        let mut other = scene.session();
        // What the versions of the row before and after have to do with each other.
        run(
            &mut other,
            &["CREATE EXTENSION IF NOT EXISTS pageinspect SCHEMA public"],
        );
        let ctid: String = scene.one("SELECT ctid::text FROM a WHERE id = 7");
        let counters = "SELECT concat_ws(' ', n_tup_ins, n_tup_upd, n_tup_del) FROM pg_stat_user_tables WHERE relid = 'a'::regclass";
        scene.run(&["SELECT pg_stat_force_next_flush()"]);
        scene.keeper_run(&["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_reset()"]);
        scene.run(&["UPDATE {} SET d = d + 31 WHERE id = 7"]);
        let (block, item) = split(&ctid);
        let link: String = one(
            &mut other,
            &format!(
                "SELECT h.t_ctid::text || ' ' || (h.t_xmax = a.xmin::text::xid) || ' ' || (h.t_ctid = a.ctid)
                 FROM public.heap_page_items(public.get_raw_page('{}.a', {block})) h, a WHERE h.lp = {item} AND a.id = 7",
                scene.schema
            ),
        );
        assert!(link.ends_with(" true true"), "on {:?}: {link}", scene.at);
        scene.run(&[
            "UPDATE {} SET d = d + 31, n = -1 WHERE id BETWEEN 8 AND 17",
            "UPDATE {} SET id = id + 1000, d = d + 31 WHERE id = -1",
            "BEGIN",
            "UPDATE {} SET d = d - 31 WHERE id BETWEEN 8 AND 10",
            "UPDATE {} SET d = d + 62 WHERE id BETWEEN 8 AND 10",
            "COMMIT",
            "MERGE INTO {} t USING (VALUES (20), (21)) s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET d = d + 31",
            "SELECT pg_stat_force_next_flush()",
            "SELECT 1",
        ]);
        until(
            &mut other,
            "SELECT n_tup_upd >= 19 FROM pg_stat_user_tables WHERE relid = 'a'::regclass",
        );
        assert_eq!(one::<String>(&mut other, counters), "0 19 0", "on {:?}", scene.at);
        |scene: &mut Scene| {
            assert_eq!(scene.one::<i64>("SELECT count(*) FROM children"), 100);
            assert_eq!(scene.one::<i64>("SELECT count(*) FROM deleted"), 0);
        }
    });
}

/// Block and item of a `(block,item)`.
fn split(ctid: &str) -> (String, String) {
    let (block, item) = ctid
        .trim_matches(['(', ')'])
        .split_once(',')
        .expect("a ctid has two numbers");
    (block.into(), item.into())
}

#[test]
fn a_merge_that_moves_rows_is_carried_whatever_its_actions_are() {
    let setup = [
        PLAIN[0],
        PLAIN[1],
        "CREATE TABLE children (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE)",
        "INSERT INTO children SELECT g, g FROM generate_series(1, 60) g",
        "CREATE TABLE fired (what text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NULL; END$$",
        "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION note()",
    ];
    let (update, delete, insert) = (
        "WHEN MATCHED THEN UPDATE SET d = d + 31, n = -1",
        "WHEN MATCHED AND t.id % 10 = 0 THEN DELETE",
        "WHEN NOT MATCHED THEN INSERT VALUES (s.id, '2026-02-02', s.id, -1, 'merge')",
    );
    for (actions, fires) in [
        (update.to_string(), "UPDATE"),
        (format!("{delete} {update}"), "DELETE UPDATE"),
        (format!("{update} {insert}"), "INSERT UPDATE"),
        (format!("{delete} {update} {insert}"), "DELETE INSERT UPDATE"),
    ] {
        live("merge_moves", &setup, "'d'", |scene| {
            scene.run(&[
                "TRUNCATE fired",
                &format!("MERGE INTO {{}} t USING (SELECT generate_series(41, 60) UNION ALL SELECT generate_series(501, 505)) s (id) ON t.id = s.id {actions}"),
            ]);
            let fired = "SELECT string_agg(what, ' ' ORDER BY what) FROM fired";
            assert_eq!(scene.one::<String>(fired), fires, "on {:?}: {actions}", scene.at);
            let (deleted, inserted) = (
                fires.contains("DELETE") as i64 * 2,
                fires.contains("INSERT") as i64 * 5,
            );
            // The rows that moved were never deleted.
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM children"),
                60 - deleted,
                "on {:?}: {actions}",
                scene.at
            );
            compare(&mut scene.keeper, "a");
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM a WHERE n = -1"),
                20 - deleted + inserted
            );
            // Its primary key, too; and within one partition beside others that move.
            scene.run(&[
                "DELETE FROM children",
                "MERGE INTO {} t USING (SELECT generate_series(1, 20)) s (id) ON t.id = s.id
                 WHEN MATCHED AND t.id < 5 THEN UPDATE SET n = -2
                 WHEN MATCHED AND t.id < 10 THEN UPDATE SET id = t.id + 2000
                 WHEN MATCHED THEN UPDATE SET d = d + 31, id = t.id + 1000",
                "MERGE INTO {} t USING (SELECT generate_series(21, 30)) s (id) ON t.id = s.id
                 WHEN MATCHED AND t.id % 2 = 0 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET d = d + 62, id = t.id + 1000",
                "BEGIN",
                "SAVEPOINT s",
                "MERGE INTO {} t USING (SELECT generate_series(31, 40)) s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET d = d + 31",
                "ROLLBACK TO s",
                "MERGE INTO {} t USING (SELECT generate_series(36, 40)) s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET d = d + 31",
                "COMMIT",
                "DO $$BEGIN MERGE INTO {} t USING (SELECT 41) s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET d = d - 31; END$$",
            ]);
            super::nothing_more
        });
    }
}
