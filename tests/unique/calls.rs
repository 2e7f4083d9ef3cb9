//! Who gets a guard, who is told that there can be none, and who may write to it.

use super::common::{Database, one, run, texts};
use super::{END, THERE, breaks, guarded, in_step, refused};
use postgres::Client;

const PLAIN: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.t (id int PRIMARY KEY, at timestamp NOT NULL)",
    "INSERT INTO s.t SELECT g, timestamp '2025-01-01' + g * interval '1 day' FROM generate_series(1, 90) g",
];

fn plain(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, PLAIN);
    (database, client)
}

fn has_guard(client: &mut Client) -> bool {
    one(client, "SELECT to_regclass('s.t_unique') IS NOT NULL")
}

#[test]
fn without_being_asked_for_there_is_no_guard() {
    let (_database, mut client) = plain("opt_in");
    run(
        &mut client,
        &["CALL partition_router.migrate('s.t', 'at')", THERE, END],
    );
    assert!(!has_guard(&mut client));
    run(&mut client, &["INSERT INTO s.t VALUES (1, '2025-05-05')"]);
}

#[test]
fn it_may_be_asked_for_until_the_end() {
    let (_database, mut client) = plain("late");
    run(
        &mut client,
        &["CALL partition_router.migrate('s.t', 'at')", THERE],
    );
    run(
        &mut client,
        &["CALL partition_router.cleanup('s.t', keep_unique => true)"],
    );
    breaks(&mut client, "INSERT INTO s.t VALUES (1, '2025-05-05')", "t_pkey");

    let (_database, mut client) = plain("on_the_way");
    run(
        &mut client,
        &[
            "SELECT partition_router.create_twin('s.t', 'at', keep_unique => false)",
            "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
            THERE,
            END,
        ],
    );
    breaks(&mut client, "INSERT INTO s.t VALUES (1, '2025-05-05')", "t_pkey");

    let (_database, mut client) = plain("declined");
    run(
        &mut client,
        &[
            "SELECT partition_router.create_twin('s.t', 'at', 'range', '1 month', 16, 3, NULL, false, true)",
            "CALL partition_router.migrate('s.t', 'at')",
            THERE,
        ],
    );
    let both = "CALL partition_router.cleanup('s.t', keep_legacy => true)";
    assert_eq!(refused(&mut client, both).code().code(), "22023");
    run(
        &mut client,
        &["CALL partition_router.cleanup('s.t', keep_legacy => true, keep_unique => false)"],
    );
    assert!(!has_guard(&mut client));
    assert!(one::<bool>(
        &mut client,
        "SELECT to_regclass('s.t_legacy') IS NOT NULL"
    ));
}

#[test]
fn a_table_whose_keys_have_the_partition_key_needs_none() {
    let database = Database::new("needless");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            "CREATE TABLE s.t (id int, at timestamp, PRIMARY KEY (at, id))",
            "INSERT INTO s.t VALUES (1, '2025-01-01')",
            "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
            THERE,
            END,
        ],
    );
    assert!(!has_guard(&mut client));
    assert!(one::<bool>(
        &mut client,
        "SELECT to_regclass('s.t_legacy') IS NULL"
    ));
}

#[test]
fn what_cannot_be_kept_is_told_before_anything_is_built() {
    let (_database, mut client) = plain("told");
    let calls = [
        "SELECT partition_router.create_twin('s.t', 'at', keep_unique => true)",
        "SELECT partition_router.create_twin('s.t', 'at', keep_unique => true, dry_run => true)",
        "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
    ];
    for (make, code, unmake) in [
        (
            "CREATE TABLE s.t_unique (x int)",
            "42P07",
            "DROP TABLE s.t_unique",
        ),
        (
            "CREATE TYPE s.t_unique AS (x int)",
            "42P07",
            "DROP TYPE s.t_unique",
        ),
        (
            "ALTER TABLE s.t ADD parent int, ADD CONSTRAINT own FOREIGN KEY (parent) REFERENCES s.t ON DELETE CASCADE",
            "PR021",
            "ALTER TABLE s.t DROP CONSTRAINT own",
        ),
    ] {
        run(&mut client, &[make]);
        for call in calls {
            assert_eq!(refused(&mut client, call).code().code(), code, "{make}: {call}");
        }
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
            0
        );
        run(&mut client, &[unmake]);
    }
    assert_eq!(
        refused(
            &mut client,
            "SELECT partition_router.create_twin('s.t', 'at', keep_unique => NULL)"
        )
        .code()
        .code(),
        "22004"
    );
    // A key of the table to itself that only checks goes on checking.
    run(
        &mut client,
        &[
            "ALTER TABLE s.t ADD CONSTRAINT own FOREIGN KEY (parent) REFERENCES s.t",
            "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
            THERE,
            "CREATE TABLE s.t_unique (x int)",
        ],
    );
    assert_eq!(refused(&mut client, END).code().code(), "42P07");
    run(
        &mut client,
        &[
            "DROP TABLE s.t_unique",
            END,
            "INSERT INTO s.t VALUES (500, '2025-05-05', 7)",
        ],
    );
    for statement in [
        "INSERT INTO s.t VALUES (501, '2025-05-05', 700)",
        "DELETE FROM s.t WHERE id = 7",
    ] {
        let error = refused(&mut client, statement);
        assert_eq!(
            (error.code().code(), error.constraint()),
            ("23503", Some("own")),
            "{statement}: {error:?}"
        );
    }
}

#[test]
fn the_dry_run_of_the_end_says_what_becomes_of_the_legacy_and_changes_nothing() {
    let (_database, mut client) = plain("dry");
    run(
        &mut client,
        &[
            "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
            THERE,
        ],
    );
    let plan = texts(
        &mut client,
        "SELECT statement FROM partition_router.plan('cleanup', 's.t') WHERE statement LIKE 'ALTER TABLE%' ORDER BY step",
    );
    assert_eq!(plan, ["ALTER TABLE \"s\".\"t_legacy\" RENAME TO \"t_unique\""]);
    run(
        &mut client,
        &["CALL partition_router.cleanup('s.t', dry_run => true)"],
    );
    assert!(!has_guard(&mut client));
    run(&mut client, &[END]);
    assert!(has_guard(&mut client));
}

#[test]
fn a_table_with_a_guard_is_made_plain_after_the_guard_is_gone() {
    let (_database, mut client) = guarded("plain_again");
    let unpartition = "CALL partition_router.unpartition('s.t')";
    let error = refused(&mut client, unpartition);
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("Drop \"s\".\"t_unique\"")),
        "{error:?}"
    );
    // What it keeps is still kept.
    in_step(&mut client);
    breaks(
        &mut client,
        "INSERT INTO s.t (at, org, code, note) VALUES ('2025-02-01', 1, 'c7', 'new')",
        "t_code_key",
    );
    run(
        &mut client,
        &[
            "DROP TABLE s.t_unique CASCADE",
            unpartition,
            "ALTER TABLE s.t ADD CONSTRAINT code_once UNIQUE (code)",
        ],
    );
    breaks(
        &mut client,
        "INSERT INTO s.t (at, org, code, note) VALUES ('2025-02-01', 1, 'c7', 'new')",
        "code_once",
    );
}

#[test]
fn nobody_writes_to_a_guard_but_through_its_table() {
    let (database, mut client) = guarded("closed");
    run(
        &mut client,
        &[
            "CREATE ROLE un_writer",
            "GRANT USAGE ON SCHEMA s TO un_writer",
            "GRANT ALL ON s.t, s.t_unique TO un_writer",
        ],
    );
    for statement in [
        "INSERT INTO s.t_unique (id, at) VALUES (5000, '2025-01-01')",
        "UPDATE s.t_unique SET id = id",
        "DELETE FROM s.t_unique WHERE false",
        "TRUNCATE s.t_unique CASCADE",
    ] {
        for role in ["RESET ROLE", "SET ROLE un_writer"] {
            let error = refused(&mut client, &format!("{role}; {statement}"));
            run(&mut client, &["RESET ROLE"]);
            let code = error.code().code();
            // TRUNCATE … CASCADE also needs the right to the table that points here.
            assert!(
                code == "PR022" || (code == "42501" && statement.contains("CASCADE")),
                "{statement}: {error:?}"
            );
        }
    }
    for call in [
        "SELECT partition_router.create_twin('s.t_unique', 'at')",
        "CALL partition_router.migrate('s.t_unique', 'at')",
    ] {
        assert_eq!(refused(&mut client, call).code().code(), "PR010", "{call}");
    }
    // Who may write to the table needs no right to its guard, and cannot change what it is written by.
    run(&mut client, &["REVOKE ALL ON s.t_unique FROM un_writer"]);
    let mut writer = database.connect();
    run(
        &mut writer,
        &[
            "SET ROLE un_writer",
            "INSERT INTO s.t (id, at) VALUES (5000, '2025-01-01')",
            "DELETE FROM s.t WHERE id = 9",
        ],
    );
    breaks(
        &mut writer,
        "INSERT INTO s.t (id, at) VALUES (5000, '2025-05-05')",
        "t_pkey",
    );
    super::in_step(&mut client);
    drop(writer);
    run(&mut client, &["DROP OWNED BY un_writer", "DROP ROLE un_writer"]);
}
