//! What is told of which statement.

use super::common::{Database, one, run, texts};
use super::{live, taken, told};
use postgres::fallible_iterator::FallibleIterator;

#[test]
fn each_changed_key_is_told_once_whichever_side_is_written() {
    let (_database, mut client) = live("sides");
    let c = &mut client;
    for side in ["revenues", "revenues_partitioned"] {
        let s = |statement: &str| statement.replace("$T", side);
        let insert = s("INSERT INTO $T VALUES (201, '2026-02-03'), (202, '2026-03-03')");
        assert_eq!(told(c, &[&insert]), ["r 201", "r 202"], "{side}");
        let update = s("UPDATE $T SET cents = cents + 1 WHERE id IN (7, 8, 201)");
        assert_eq!(told(c, &[&update]), ["r 7", "r 8", "r 201"], "{side}");
        let moved = s("UPDATE $T SET at = at + 31 WHERE id = 201");
        assert_eq!(told(c, &[&moved]), ["r 201"], "{side}: to another partition");
        let upsert = match side {
            "revenues" => {
                s("INSERT INTO $T VALUES (201, '2026-02-03') ON CONFLICT (id) DO UPDATE SET cents = 5")
            }
            _ => s(
                "INSERT INTO $T SELECT * FROM $T WHERE id = 201 ON CONFLICT (id, at) DO UPDATE SET cents = 5",
            ),
        };
        assert_eq!(told(c, &[&upsert]), ["r 201"], "{side}");
        let merge = s("MERGE INTO $T t USING (VALUES (201), (202)) v (id) ON t.id = v.id
            WHEN MATCHED AND t.id = 201 THEN UPDATE SET at = at + 31 WHEN MATCHED THEN DELETE");
        assert_eq!(told(c, &[&merge]), ["r 201", "r 202"], "{side}");
        let nothing = s("UPDATE $T SET cents = 0 WHERE id = 0");
        assert_eq!(told(c, &[&nothing]), [] as [&str; 0], "{side}");
        let delete = s("DELETE FROM $T WHERE id = 201");
        assert_eq!(told(c, &[&delete]), ["r 201"], "{side}");
        let copy = s("COPY $T FROM PROGRAM 'printf \"301\\t2026-04-04\\t1\\n302\\t2026-05-05\\t1\\n\"'");
        assert_eq!(told(c, &[&copy]), ["r 301", "r 302"], "{side}");
        run(c, &[&s("DELETE FROM $T WHERE id > 300")]);
        taken(c);
    }
    assert_eq!(
        told(c, &["UPDATE revenues_2026_02 SET cents = 1 WHERE id = 40"]),
        ["r 40"]
    );
}

#[test]
fn a_statement_of_many_rows_tells_each_of_them() {
    let (_database, mut client) = live("many");
    let c = &mut client;
    run(
        c,
        &["INSERT INTO revenues SELECT g, date '2026-03-01', 0 FROM generate_series(1001, 51000) g"],
    );
    let (rows, keys): (i64, i64) = {
        let row = c
            .query_one(
                "SELECT count(*), count(DISTINCT key) FROM partition_router.take_changes(1000000)",
                &[],
            )
            .expect("changes");
        (row.get(0), row.get(1))
    };
    assert_eq!((rows, keys), (50_000, 50_000));
}

#[test]
fn an_update_of_the_key_tells_the_old_and_the_new() {
    let (_database, mut client) = live("rekeyed");
    let c = &mut client;
    assert_eq!(
        told(c, &["UPDATE revenues SET id = 900 WHERE id = 9"]),
        ["r 9", "r 900"]
    );
    let swap = "UPDATE revenues_partitioned SET id = 901 WHERE id = 900";
    assert_eq!(told(c, &[swap]), ["r 900", "r 901"]);
}

#[test]
fn truncate_tells_of_every_key_once() {
    let (_database, mut client) = live("truncate");
    let c = &mut client;
    for table in ["revenues_2026_02", "revenues", "revenues_partitioned"] {
        run(c, &["INSERT INTO revenues VALUES (5001, '2026-02-02')"]);
        taken(c);
        assert_eq!(told(c, &[&format!("TRUNCATE {table}")]), ["r *"], "{table}");
    }
}

#[test]
fn what_is_rolled_back_is_not_told_and_what_is_written_again_is() {
    let (_database, mut client) = live("rolled_back");
    let c = &mut client;
    assert_eq!(
        told(
            c,
            &["BEGIN", "UPDATE revenues SET cents = 1 WHERE id = 1", "ROLLBACK"]
        ),
        [] as [&str; 0]
    );
    let statements = [
        "BEGIN",
        "UPDATE revenues SET cents = 1 WHERE id = 1",
        "SAVEPOINT a",
        "UPDATE revenues SET cents = 1 WHERE id IN (1, 2, 3)",
        "SAVEPOINT b",
        "UPDATE revenues SET cents = cents + 1 WHERE id <= 100", // enough to be written at once
        "INSERT INTO revenues SELECT g, date '2026-02-02' FROM generate_series(2001, 5000) g",
        "ROLLBACK TO b",
        "RELEASE a",
        "SAVEPOINT c",
        "UPDATE revenues SET cents = 2 WHERE id IN (3, 4)",
        "RELEASE c",
        "COMMIT",
    ];
    assert_eq!(told(c, &statements), ["r 1", "r 2", "r 3", "r 4"]);
    // The outer transaction's change is not lost with the inner one that happened to write it.
    let inner = [
        "BEGIN",
        "UPDATE revenues SET cents = 1 WHERE id = 1",
        "SAVEPOINT a",
        "INSERT INTO revenues SELECT g, date '2026-02-02' FROM generate_series(2001, 5000) g",
        "ROLLBACK TO a",
        "COMMIT",
    ];
    assert_eq!(told(c, &inner), ["r 1"]);
    let block = "DO $$ BEGIN
        FOR i IN 1 .. 50 LOOP
            BEGIN
                UPDATE revenues SET cents = cents + 1 WHERE id = i;
                IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        END LOOP; END $$";
    let odd: Vec<String> = (1..=50).step_by(2).map(|i| format!("r {i}")).collect();
    assert_eq!(told(c, &[block]), odd);
}

#[test]
fn a_prepared_transaction_is_told_when_it_commits() {
    let (_database, mut client) = live("prepared");
    let c = &mut client;
    run(
        c,
        &[
            "BEGIN",
            "UPDATE revenues SET cents = 1 WHERE id = 5",
            "PREPARE TRANSACTION 'feed'",
        ],
    );
    assert_eq!(taken(c), [] as [&str; 0]);
    assert_eq!(told(c, &["COMMIT PREPARED 'feed'"]), ["r 5"]);
}

#[test]
fn a_transaction_that_commits_late_is_not_passed_over() {
    let (database, mut client) = live("late");
    let c = &mut client;
    let mut late = database.connect();
    run(
        &mut late,
        &["BEGIN", "UPDATE revenues SET cents = 1 WHERE id = 1"],
    );
    assert_eq!(told(c, &["UPDATE revenues SET cents = 1 WHERE id = 2"]), ["r 2"]);
    run(&mut late, &["COMMIT"]);
    assert_eq!(taken(c), ["r 1"]);
}

#[test]
fn a_consumer_that_dies_gives_its_changes_back_and_two_share_them() {
    let (database, mut client) = live("consumers");
    let c = &mut client;
    run(c, &["UPDATE revenues SET cents = 1 WHERE id <= 3"]);
    let mut other = database.connect();
    run(&mut other, &["BEGIN"]);
    let mine: i64 = one(
        &mut other,
        "SELECT count(*) FROM partition_router.take_changes(2)",
    );
    assert_eq!(mine, 2);
    assert_eq!(
        taken(c).len(),
        1,
        "those that another one takes are not waited for"
    );
    let pid: i32 = one(&mut other, "SELECT pg_backend_pid()");
    run(c, &[&format!("SELECT pg_terminate_backend({pid}, 60000)")]);
    assert_eq!(taken(c).len(), 2);
    let of = "SELECT count(*) FROM partition_router.take_changes(feed => 'another')";
    run(c, &["UPDATE revenues SET cents = 1 WHERE id <= 3"]);
    assert_eq!(one::<i64>(c, of), 0);
    assert_eq!(taken(c).len(), 3);
}

#[test]
fn a_transaction_wakes_the_consumer_once() {
    let (database, mut client) = live("notify");
    let c = &mut client;
    let mut consumer = database.connect();
    run(&mut consumer, &["LISTEN partition_router_changes"]);
    let mut heard = |client: &mut postgres::Client, statements: &[&str]| {
        run(client, statements);
        run(&mut consumer, &["SELECT"]); // an idle session hears when it is asked something
        consumer.notifications().iter().count().expect("notifications")
    };
    let all = "UPDATE revenues SET cents = cents + 1";
    assert_eq!(heard(c, &[all]), 1);
    assert_eq!(
        heard(c, &["BEGIN", all, "SAVEPOINT a", all, "RELEASE a", all, "COMMIT"]),
        1
    );
    assert_eq!(heard(c, &["BEGIN", all, "ROLLBACK"]), 0);
    assert_eq!(
        heard(c, &["BEGIN", "SAVEPOINT a", all, "ROLLBACK TO a", "COMMIT"]),
        0
    );
    assert_eq!(heard(c, &["UPDATE revenues SET cents = 1 WHERE id = 0"]), 0);
    let quiet = "SELECT partition_router.enable_change_feed('revenues', ARRAY['id'], notify => false)";
    assert_eq!(heard(c, &[quiet, all]), 0);
    assert_eq!(taken(c).len(), 100 + 100 + 1 + 100);
}

#[test]
fn keys_are_the_same_text_whatever_the_settings() {
    let database = Database::new("texts");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TYPE colour AS ENUM ('red', 'a,b')",
            "CREATE TABLE t (at timestamptz, d date, u uuid, f float8, b bytea, c colour, n numeric, s smallint, l bigint, x text)",
            "SELECT partition_router.enable_change_feed('t', ARRAY['at', 'd', 'u', 'f', 'b', 'c', 'n', 's', 'l', 'x'])",
        ],
    );
    taken(c);
    let insert = "INSERT INTO t VALUES (timestamptz '2026-02-03 04:05:06.7+00', date '2026-02-03', 'a0eebc999c0b4ef8bb6d6bb9bd380a11',
        0.1::float8 + 0.2, '\\x00ff', 'a,b', 1.50, -2, -9007199254740993, repeat('ä', 3000))";
    let mut seen = Vec::new();
    for settings in [
        &["SET DateStyle = 'ISO'"][..],
        &[
            "SET DateStyle = 'German, DMY'",
            "SET TimeZone = 'Asia/Kathmandu'",
            "SET extra_float_digits = 0",
            "SET bytea_output = 'escape'",
        ],
    ] {
        run(c, settings);
        run(c, &[insert]);
        let keys = texts(
            c,
            "SELECT to_jsonb(key)::text FROM partition_router.take_changes()",
        );
        assert_eq!(keys.len(), 1);
        seen.extend(keys);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].starts_with(
        "[\"2026-02-03 04:05:06.7+00\", \"2026-02-03\", \"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\", \"0.30000000000000004\", \
         \"\\\\x00ff\", \"a,b\", \"1.50\", \"-2\", \"-9007199254740993\", \"ää"
    ));
    run(c, &["INSERT INTO t DEFAULT VALUES"]);
    assert_eq!(
        taken(c),
        ["public.t NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL"]
    );
}

#[test]
fn writers_need_no_right_on_the_outbox_and_replicas_are_heard() {
    let (database, mut client) = live("writers");
    let c = &mut client;
    run(
        c,
        &[
            "DROP ROLE IF EXISTS feed_writer",
            "CREATE ROLE feed_writer LOGIN",
            "GRANT SELECT, INSERT, UPDATE ON revenues TO feed_writer",
        ],
    );
    let mut writer = database.connect_as("feed_writer");
    assert_eq!(
        super::common::sqlstate(&mut writer, "SELECT * FROM partition_router.take_changes()"),
        "42501"
    );
    run(&mut writer, &["UPDATE revenues SET cents = 3 WHERE id = 3"]);
    assert_eq!(taken(c), ["r 3"]);
    let replica = [
        "SET session_replication_role = replica",
        "UPDATE revenues SET cents = 4 WHERE id = 4",
        "RESET session_replication_role",
    ];
    assert_eq!(told(c, &replica), ["r 4"]);
    drop(writer);
    run(c, &["DROP OWNED BY feed_writer", "DROP ROLE feed_writer"]);
}

#[test]
fn rows_that_a_cascade_changes_are_told() {
    let (_database, mut client) = live("cascade");
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE notes (id int PRIMARY KEY, revenue int REFERENCES revenues ON DELETE CASCADE)",
            "INSERT INTO notes SELECT g, g FROM generate_series(1, 100) g",
            "SELECT partition_router.enable_change_feed('notes', ARRAY['id'], name => 'n')",
        ],
    );
    taken(c);
    assert_eq!(told(c, &["DELETE FROM revenues WHERE id = 6"]), ["n 6", "r 6"]);
    assert_eq!(
        told(c, &["DELETE FROM revenues_partitioned WHERE id = 7"]),
        ["n 7", "r 7"]
    );
    // The legacy's rows are deleted for the partition that is emptied, and theirs with them.
    let emptied = told(c, &["TRUNCATE revenues_2026_04"]);
    assert!(emptied.contains(&"r *".to_string()), "{emptied:?}");
    assert!(emptied.contains(&"n 95".to_string()), "{emptied:?}");
}
