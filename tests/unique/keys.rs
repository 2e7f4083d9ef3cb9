//! Which rows are refused, whichever way they come, and what foreign keys do.

use super::common::{Database, one, run, texts};
use super::{END, TABLES, THERE, breaks, guarded, in_step, refused};
use postgres::Client;
use std::io::Write;

/// Rows that a table with these constraints refuses, in whatever phase.
fn refuses_what_the_table_refused(client: &mut Client) {
    breaks(
        client,
        "INSERT INTO s.t (id, at) VALUES (7, '2025-05-05')",
        "t_pkey",
    );
    breaks(
        client,
        "INSERT INTO s.t (at, code) VALUES ('2025-05-05', 'c9')",
        "t_code_key",
    );
    breaks(client, "UPDATE s.t SET id = 9 WHERE id = 700", "t_pkey");
    breaks(client, "UPDATE s.t SET code = 'c1' WHERE id = 700", "t_code_key");
    run(
        client,
        &["INSERT INTO s.t (at, note, amount) VALUES ('2025-05-05', 'Open', 6000)"],
    );
    breaks(
        client,
        "INSERT INTO s.t (at, note, amount) VALUES ('2025-02-02', 'oPEN', 7000)",
        "one_open",
    );
    breaks(
        client,
        "UPDATE s.t SET amount = 9999, note = 'open' WHERE id = 3",
        "one_open",
    );
    run(
        client,
        &[
            "INSERT INTO s.t (at, note, amount) VALUES ('2025-02-02', 'open', 2)", // the index is a partial one
            "INSERT INTO s.t (at) VALUES ('2025-02-02'), ('2025-03-03')", // NULL is not equal to NULL
            "DELETE FROM s.t WHERE id = 7",
            "INSERT INTO s.t (id, at, code) VALUES (7, '2025-04-04', 'c7')",
            "DELETE FROM s.t WHERE note ILIKE 'open'",
        ],
    );
}

#[test]
fn what_was_unique_stays_unique_with_the_names_that_it_had() {
    let database = Database::new("names");
    let mut client = database.connect();
    run(&mut client, TABLES);
    refuses_what_the_table_refused(&mut client);
    run(&mut client, &[THERE]);
    refuses_what_the_table_refused(&mut client);
    run(&mut client, &[END]);
    refuses_what_the_table_refused(&mut client);
    in_step(&mut client);
    assert_eq!(
        texts(
            &mut client,
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 's.t_unique'::regclass AND attnum > 0 AND NOT attisdropped"
        ),
        ["id", "at", "code", "note", "amount"],
        "the guard has what is unique, what that depends on, and the partition key"
    );
    assert_eq!(
        texts(&mut client, "SELECT guard::text FROM partition_router.status"),
        ["s.t_unique"]
    );
}

#[test]
fn no_way_to_write_goes_past_the_guard() {
    let (_database, mut client) = guarded("ways");
    breaks(
        &mut client,
        "INSERT INTO s.t_2025_05 (id, at) VALUES (1, '2025-05-05')",
        "t_pkey",
    );
    breaks(
        &mut client,
        "INSERT INTO s.t (id, at) SELECT g, timestamp '2025-05-05' FROM generate_series(1000, 1200) g",
        "t_pkey",
    );
    breaks(
        &mut client,
        "MERGE INTO s.t USING (VALUES (2)) v (id) ON t.id = -1 WHEN NOT MATCHED THEN INSERT (id, at) VALUES (v.id, '2025-05-05')",
        "t_pkey",
    );
    breaks(
        &mut client,
        "SET session_replication_role = replica; INSERT INTO s.t (id, at) VALUES (4, '2025-05-05')",
        "t_pkey",
    );
    run(&mut client, &["RESET session_replication_role"]);
    let mut copy = client
        .copy_in("COPY s.t (id, at) FROM STDIN")
        .expect("COPY begins");
    copy.write_all(b"8\t2025-05-05\n").expect("a row is sent");
    let error = copy.finish().expect_err("the row is there");
    assert_eq!(error.as_db_error().and_then(|e| e.constraint()), Some("t_pkey"));
    run(
        &mut client,
        &[
            // Moves, by the root, by a leaf and by an upsert of the very row.
            "UPDATE s.t SET at = at + interval '3 months' WHERE id <= 60",
            "UPDATE s.t SET id = id + 10000 WHERE id BETWEEN 200 AND 300",
            "WITH gone AS (DELETE FROM s.t_2025_01 RETURNING *)
                INSERT INTO s.t SELECT id, at + interval '1 month', org, code, note, amount FROM gone",
            "INSERT INTO s.t (id, at) VALUES (5000, '2025-01-01')",
            "INSERT INTO s.t (id, at) VALUES (5000, '2025-01-01') ON CONFLICT (id, at) DO UPDATE SET code = 'upserted'",
            "BEGIN",
            "INSERT INTO s.t (id, at) VALUES (5001, '2025-01-01')",
            "SAVEPOINT a",
            "INSERT INTO s.t (id, at) VALUES (5002, '2025-01-01')",
            "ROLLBACK TO a",
            "COMMIT",
        ],
    );
    in_step(&mut client);
    // The server tells such a MERGE as DELETE and INSERT: each key is looked for again, wherever its row is now.
    let merge = "MERGE INTO s.t USING (SELECT g FROM generate_series(400, 460) g) v ON t.id = v.g WHEN MATCHED THEN UPDATE SET";
    run(
        &mut client,
        &[
            "INSERT INTO s.child SELECT 1000 + g, g FROM generate_series(400, 440) g",
            &format!("{merge} at = at + interval '2 months'"),
        ],
    );
    in_step(&mut client);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM s.child WHERE id > 1000"),
        41,
        "a row that moves is not deleted"
    );
    breaks(
        &mut client,
        &format!("{merge} id = id + 300, at = at + interval '1 month'"),
        "t_pkey",
    );
    // A trigger that writes to the same rows: what a statement did is not what there is when it ends.
    run(
        &mut client,
        &[
            "CREATE FUNCTION s.again() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 UPDATE s.t SET code = 'again ' || NEW.id, at = at + interval '1 month' WHERE id = NEW.id AND code IS DISTINCT FROM 'again ' || NEW.id;
                 RETURN NULL;
             END $$",
            "CREATE TRIGGER again AFTER INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.again()",
            "INSERT INTO s.t (id, at) VALUES (8000, '2025-01-15'), (8001, '2025-02-15')",
            "UPDATE s.t SET amount = 1, at = at + interval '40 days' WHERE id IN (500, 501)",
        ],
    );
    in_step(&mut client);
    breaks(
        &mut client,
        "INSERT INTO s.t (id, at) VALUES (8000, '2025-06-15')",
        "t_pkey",
    );
    breaks(&mut client, "UPDATE s.t SET id = 502 WHERE id = 501", "t_pkey");
    run(&mut client, &["DROP TRIGGER again ON s.t"]);
    in_step(&mut client);
    run(&mut client, &["DROP TABLE s.child", "TRUNCATE s.t_2025_02"]);
    in_step(&mut client);
    run(&mut client, &["TRUNCATE s.t"]);
    in_step(&mut client);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.t_unique"), 0);
    run(
        &mut client,
        &["INSERT INTO s.t (id, at) VALUES (1, '2025-01-01')"],
    );
    in_step(&mut client);
}

#[test]
fn an_update_of_other_columns_leaves_the_guard_alone() {
    let (_database, mut client) = guarded("others");
    let row = "SELECT ctid::text FROM s.t_unique WHERE id = 50";
    let before: String = one(&mut client, row);
    run(
        &mut client,
        &[
            "UPDATE s.t SET org = 2 WHERE id = 50",
            "UPDATE s.t SET org = 3 WHERE id < 500",
        ],
    );
    assert_eq!(one::<String>(&mut client, row), before);
    run(&mut client, &["UPDATE s.t SET code = 'other' WHERE id = 50"]);
    assert_ne!(one::<String>(&mut client, row), before);
    in_step(&mut client);
}

#[test]
fn values_swap_where_the_constraint_can_wait_and_nowhere_else() {
    for (kind, swaps) in [
        ("", false),
        (" DEFERRABLE INITIALLY IMMEDIATE", true),
        (" DEFERRABLE INITIALLY DEFERRED", true),
    ] {
        let database = Database::new("swap");
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "CREATE SCHEMA s",
                &format!(
                    "CREATE TABLE s.t (id int PRIMARY KEY, at timestamp NOT NULL, code int CONSTRAINT t_code UNIQUE{kind})"
                ),
                "INSERT INTO s.t SELECT g, timestamp '2025-01-01' + g * interval '1 day', g FROM generate_series(1, 90) g",
                "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
                THERE,
                END,
            ],
        );
        let swap = "UPDATE s.t SET code = CASE code WHEN 1 THEN 80 WHEN 80 THEN 1 END WHERE code IN (1, 80)";
        if swaps {
            run(&mut client, &[swap]);
            assert_eq!(
                one::<i32>(&mut client, "SELECT code FROM s.t WHERE id = 80"),
                1,
                "{kind}"
            );
            assert_eq!(
                refused(&mut client, "UPDATE s.t SET code = 5 WHERE id = 80")
                    .code()
                    .code(),
                "23505"
            );
        } else {
            breaks(&mut client, swap, "t_code");
        }
        let differ: i64 = one(
            &mut client,
            "SELECT count(*) FROM s.t FULL JOIN s.t_unique g USING (id, at, code) WHERE t.id IS NULL OR g.id IS NULL",
        );
        assert_eq!(differ, 0, "{kind}");
    }
}

#[test]
fn foreign_keys_that_point_in_act_and_check_as_before() {
    let (_database, mut client) = guarded("point");
    run(
        &mut client,
        &[
            "CREATE TABLE s.held (id int PRIMARY KEY, parent int CONSTRAINT holds REFERENCES s.t_unique)",
            "CREATE TABLE s.loose (id int PRIMARY KEY, code text REFERENCES s.t_unique (code) ON DELETE SET NULL ON UPDATE CASCADE)",
            "INSERT INTO s.held VALUES (1, 90)",
            "INSERT INTO s.loose VALUES (1, 'c80'), (2, 'c81')",
            "UPDATE s.t SET id = 7777, at = at + interval '4 months' WHERE id = 5",
            "UPDATE s.t SET code = 'renamed' WHERE id = 81",
            "DELETE FROM s.t WHERE id IN (6, 80)",
            "UPDATE s.t SET at = at + interval '2 months' WHERE id = 90",
        ],
    );
    assert_eq!(
        texts(&mut client, "SELECT parent::text FROM s.child WHERE id IN (5, 6)"),
        ["7777"]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT coalesce(code, 'none') FROM s.loose ORDER BY id"
        ),
        ["none", "renamed"]
    );
    for (statement, constraint) in [
        ("INSERT INTO s.child VALUES (7000, 123456)", "points"),
        ("DELETE FROM s.t WHERE id = 90", "holds"),
        ("UPDATE s.t SET id = 123456 WHERE id = 90", "holds"),
        ("DELETE FROM s.t_2025_03 WHERE id = 90", "holds"),
        ("TRUNCATE s.t_2025_03", "holds"),
    ] {
        let error = refused(&mut client, statement);
        assert_eq!(error.code().code(), "23503", "{statement}: {error:?}");
        assert_eq!(error.constraint(), Some(constraint), "{statement}: {error:?}");
    }
    assert_eq!(refused(&mut client, "TRUNCATE s.t").code().code(), "0A000");
    run(
        &mut client,
        &["DELETE FROM s.orgs WHERE id = 2", "TRUNCATE s.t_2025_06"],
    );
    let dangling: i64 = one(
        &mut client,
        "SELECT count(*) FROM s.child WHERE NOT EXISTS (SELECT FROM s.t WHERE t.id = child.parent)",
    );
    assert_eq!(dangling, 0);
    in_step(&mut client);
}

#[test]
fn a_truncated_partition_leaves_no_key_that_points_nowhere() {
    let database = Database::new("dangling");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &["TRUNCATE s.t_2025_01"]);
    let dangling: i64 = one(
        &mut client,
        "SELECT count(*) FROM s.child WHERE NOT EXISTS (SELECT FROM s.t WHERE t.id = child.parent)",
    );
    assert_eq!(dangling, 0);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM s.child"),
        0,
        "they go as with any DELETE"
    );
}
