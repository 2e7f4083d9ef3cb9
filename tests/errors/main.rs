//! Every bad input has its own SQLSTATE and a HINT, and changes nothing.

mod callers;
#[path = "../common/mod.rs"]
mod common;

use common::{Database, one, run};
use postgres::Client;
use postgres::error::DbError;

/// Everything that a failed call could have left behind, in one value.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(x, e'\\n' ORDER BY x)) FROM (
        SELECT (to_jsonb(c) - 'relpages' - 'reltuples' - 'relallvisible' - 'relfrozenxid' - 'relminmxid' - 'xmin')::text
        FROM pg_class c WHERE relnamespace::regnamespace::text !~ '^pg_'
        UNION ALL SELECT to_jsonb(a)::text FROM pg_attribute a WHERE attrelid >= 16384
        UNION ALL SELECT to_jsonb(t)::text FROM pg_trigger t
        UNION ALL SELECT to_jsonb(k)::text FROM pg_constraint k
        UNION ALL SELECT to_jsonb(i)::text FROM pg_index i WHERE indrelid >= 16384
        UNION ALL SELECT to_jsonb(d)::text FROM pg_depend d
        UNION ALL SELECT to_jsonb(d)::text FROM pg_description d
        UNION ALL SELECT to_jsonb(p)::text FROM partition_router.pair p
        UNION ALL SELECT to_jsonb(p)::text FROM partition_router.policy p
        UNION ALL SELECT to_jsonb(s)::text FROM partition_router.copy_state s
        UNION ALL SELECT to_jsonb(r)::text FROM partition_router.rollout r
        UNION ALL SELECT to_jsonb(e)::text FROM partition_router.run_event e
    ) f (x)";

/// The error of a statement, after the checks that hold for every error of the extension.
fn refused(client: &mut Client, statement: &str) -> DbError {
    let before: String = one(client, FINGERPRINT);
    let error = match client.batch_execute(statement) {
        Ok(()) => panic!("{statement} did not fail"),
        Err(error) => error,
    };
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{statement}: {error}"))
        .clone();
    assert_ne!(error.code().code(), "XX000", "{statement}: {error:?}");
    let message = error.message();
    assert!(message.chars().count() < 140, "{statement}: {message}");
    assert!(!message.ends_with('.'), "{statement}: {message}");
    assert!(
        !message.chars().next().is_some_and(char::is_uppercase),
        "{statement}: {message}"
    );
    let hint = error
        .hint()
        .unwrap_or_else(|| panic!("{statement}: no hint: {error:?}"));
    assert!(hint.ends_with('.'), "{statement}: {hint}");
    if let Some(detail) = error.detail() {
        assert!(detail.ends_with('.'), "{statement}: {detail}");
        assert!(
            !detail.contains("backtrace") && !detail.contains(".rs"),
            "{statement}: {detail}"
        );
    }
    let after: String = one(client, FINGERPRINT);
    assert_eq!(before, after, "{statement} left something behind");
    error
}

fn all_refused(client: &mut Client, expected: &[(&str, &str)]) {
    for (statement, sqlstate) in expected {
        let error = refused(client, statement);
        assert_eq!(error.code().code(), *sqlstate, "{statement}: {error:?}");
    }
}

const TABLES: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.t (id serial PRIMARY KEY, at timestamp NOT NULL, n int, empty timestamp, words text COLLATE \"und-x-icu\" NOT NULL DEFAULT 'x',
         twice int GENERATED ALWAYS AS (n * 2) STORED)",
    "INSERT INTO s.t (at, n) VALUES ('2025-01-05', 1), ('2025-01-06', 2)",
];

#[test]
fn what_is_no_ordinary_table_is_refused_for_what_it_is() {
    let database = Database::new("kinds");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "CREATE TABLE s.no_key (id int, at date)",
            "CREATE VIEW s.v AS SELECT * FROM s.t",
            "CREATE MATERIALIZED VIEW s.m AS SELECT * FROM s.t",
            "CREATE SEQUENCE s.q",
            "CREATE INDEX i ON s.t (at)",
            "CREATE TABLE s.p (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE s.p_default PARTITION OF s.p DEFAULT",
            "CREATE TEMP TABLE tmp (id int PRIMARY KEY, at date)",
            "CREATE UNLOGGED TABLE s.u (id int PRIMARY KEY, at date)",
            "CREATE TABLE s.parent (id int PRIMARY KEY, at date)",
            "CREATE TABLE s.child (PRIMARY KEY (id)) INHERITS (s.parent)",
            "CREATE TYPE s.shape AS (id int, at date)",
            "CREATE TABLE s.typed OF s.shape (PRIMARY KEY (id))",
            "CREATE FOREIGN DATA WRAPPER nowhere",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
            "CREATE FOREIGN TABLE s.f (id int, at date) SERVER nowhere",
            "CREATE TABLE s.x (id int PRIMARY KEY, at date NOT NULL, r int4range, EXCLUDE USING gist (r WITH &&))",
        ],
    );
    for (table, sqlstate, says) in [
        ("s.no_key", "PR004", "no primary key"),
        ("s.v", "42809", "It is a view."),
        ("s.m", "42809", "It is a materialized view."),
        ("s.q", "42809", "It is a sequence."),
        ("s.i", "42809", "It is an index."),
        ("s.p", "42809", "It is partitioned already."),
        ("s.p_default", "42809", "It is a partition."),
        ("tmp", "PR001", "temporary"),
        ("s.u", "PR002", "unlogged"),
        ("s.parent", "42809", "inheritance"),
        ("s.child", "42809", "inheritance"),
        ("s.typed", "42809", "composite type"),
        ("s.f", "42809", "It is a foreign table."),
        ("s.x", "0A000", "exclusion constraint"),
        ("pg_class", "PR003", "system table"),
        ("partition_router.pair", "PR003", "system table"),
        ("information_schema.sql_features", "PR003", "system table"),
    ] {
        for statement in [
            format!("CALL partition_router.migrate('{table}', 'at')"),
            format!("SELECT partition_router.create_twin('{table}', 'at', dry_run => true)"),
        ] {
            let error = refused(&mut client, &statement);
            assert_eq!(error.code().code(), sqlstate, "{statement}: {error:?}");
            let text = format!("{} {}", error.message(), error.detail().unwrap_or_default());
            assert!(text.contains(says), "{statement}: {text}");
        }
        let severity: String = one(
            &mut client,
            &format!("SELECT severity FROM partition_router.preflight('{table}', 'at') LIMIT 1"),
        );
        assert_eq!(severity, "error", "{table}");
    }
}

#[test]
fn a_bad_partition_key_is_refused() {
    let database = Database::new("keys");
    let mut client = database.connect();
    run(&mut client, TABLES);
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate('s.t', 'empty')", "PR005"),
            ("CALL partition_router.migrate('s.t', 'empty', 'hash')", "PR005"),
            ("CALL partition_router.migrate('s.t', 'nope')", "42703"),
            ("CALL partition_router.migrate('s.t', 'xmin')", "42703"),
            ("CALL partition_router.migrate('s.t', 'At')", "42703"),
            ("CALL partition_router.migrate('s.t', 'twice')", "PR006"),
            ("CALL partition_router.migrate('s.t', 'twice', 'hash')", "PR006"),
            ("CALL partition_router.migrate('s.t', 'words')", "PR006"),
            ("CALL partition_router.migrate('s.t', 'at', 'ranges')", "PR007"),
            ("CALL partition_router.migrate('s.t', 'at', '')", "PR007"),
        ],
    );
    let error = refused(&mut client, "CALL partition_router.migrate('s.t', 'empty')");
    assert_eq!(error.detail(), Some("Rows with a null key: 2."));
}

#[test]
fn a_key_without_the_operator_class_of_its_strategy_is_refused() {
    let database = Database::new("opclass");
    let mut client = database.connect();
    run(
        &mut client,
        &["CREATE TABLE g (id int PRIMARY KEY, p point NOT NULL, j json NOT NULL)"],
    );
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate('g', 'p', 'hash')", "PR006"),
            ("CALL partition_router.migrate('g', 'p', 'list')", "PR006"),
            ("CALL partition_router.migrate('g', 'j', 'hash')", "PR006"),
        ],
    );
}

#[test]
fn a_bad_interval_is_refused() {
    let database = Database::new("intervals");
    let mut client = database.connect();
    run(&mut client, TABLES);
    for (key, interval) in [
        ("at", "banana"),
        ("at", ""),
        ("at", "0 days"),
        ("at", "-1 month"),
        ("at", "1 month 3 days"),
        ("at", "1 month -1 day"),
        ("at", "10 minutes"),
        ("at", "1.5 hours"),
        ("at", "99999999999999 years"),
        ("at", "178000000 years"),
        ("at", "infinity"),
        ("at", "1000"),
        ("id", "1 month"),
        ("id", "0"),
        ("id", "-5"),
        ("id", "1.5"),
        ("id", "99999999999999999999999"),
    ] {
        let statement =
            format!("CALL partition_router.migrate('s.t', '{key}', partition_interval => '{interval}')");
        let error = refused(&mut client, &statement);
        assert_eq!(error.code().code(), "PR008", "{statement}: {error:?}");
        assert!(error.detail().is_some(), "{statement}");
    }
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    let database = Database::new("numbers");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "CREATE TABLE c (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO c VALUES (1, '2025-01-01')",
            "SELECT partition_router.create_twin('c', 'at')",
            "SELECT partition_router.start_sync('c')",
            "CREATE TABLE l (id int PRIMARY KEY, at date NOT NULL)",
            "CALL partition_router.migrate('l', 'at')",
        ],
    );
    all_refused(
        &mut client,
        &[
            (
                "CALL partition_router.migrate('s.t', 'id', 'hash', partitions => 0)",
                "22023",
            ),
            (
                "CALL partition_router.migrate('s.t', 'id', 'hash', partitions => -1)",
                "22023",
            ),
            (
                "CALL partition_router.migrate('s.t', 'id', 'hash', partitions => 1000000)",
                "22023",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', premake => -1)",
                "22023",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', premake => 100000)",
                "22023",
            ),
            ("CALL partition_router.backfill('c', 0)", "22023"),
            ("CALL partition_router.backfill('c', -5)", "22023"),
            ("SELECT partition_router.verify('l', 'nope')", "22023"),
            ("SELECT partition_router.mismatches('l', -1)", "22023"),
            ("SELECT partition_router.set_rollout('l', 101)", "22023"),
            ("SELECT partition_router.set_rollout('l', -1)", "22023"),
            ("SELECT partition_router.plan('dance', 'l')", "22023"),
        ],
    );
}

#[test]
fn a_null_argument_is_refused_and_never_means_yes() {
    let database = Database::new("nulls");
    let mut client = database.connect();
    run(&mut client, TABLES);
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate(NULL, 'at')", "22004"),
            ("CALL partition_router.migrate('s.t', NULL)", "22004"),
            ("CALL partition_router.migrate('s.t', 'at', NULL)", "22004"),
            (
                "CALL partition_router.migrate('s.t', 'at', partition_interval => NULL)",
                "22004",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', partitions => NULL)",
                "22004",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', premake => NULL)",
                "22004",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', dry_run => NULL)",
                "22004",
            ),
            ("SELECT partition_router.create_twin('s.t', NULL)", "22004"),
            (
                "SELECT partition_router.create_twin('s.t', 'at', dry_run => NULL)",
                "22004",
            ),
            ("CALL partition_router.backfill(NULL)", "22004"),
            ("CALL partition_router.backfill('s.t', NULL)", "22004"),
            ("SELECT partition_router.set_rollout(NULL, 10)", "22004"),
            ("SELECT partition_router.manage(NULL, '1 month')", "22004"),
            ("SELECT partition_router.manage('s.t', NULL)", "22004"),
            ("SELECT partition_router.set_policy(NULL, 1)", "22004"),
            ("SELECT partition_router.create_partitions(NULL)", "22004"),
        ],
    );
}

#[test]
fn names_that_would_pass_63_bytes_are_refused() {
    let database = Database::new("long");
    let mut client = database.connect();
    let long = "ü".repeat(27); // 54 bytes: the twin's name would have 66
    let at_limit = "b".repeat(63);
    run(
        &mut client,
        &[
            &format!("CREATE TABLE \"{long}\" (id int PRIMARY KEY, at date NOT NULL)"),
            &format!("CREATE TABLE \"{at_limit}\" (id int PRIMARY KEY, at date NOT NULL)"),
        ],
    );
    for table in [&long, &at_limit] {
        for rest in ["", ", twin => 'short'"] {
            let statement = format!("CALL partition_router.migrate('\"{table}\"', 'at'{rest})");
            let error = refused(&mut client, &statement);
            assert_eq!(error.code().code(), "42622", "{statement}: {error:?}");
        }
    }
}

#[test]
fn taken_names_are_refused() {
    let database = Database::new("taken");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "CREATE TABLE a (id int PRIMARY KEY, at date NOT NULL)",
            "CREATE TABLE a_partitioned (id int)",
            "CREATE TABLE b (id int PRIMARY KEY, at date NOT NULL)",
            "CREATE VIEW b_default AS SELECT 1",
            "CREATE TABLE h (id int PRIMARY KEY, at date NOT NULL)",
            "CREATE INDEX h_7 ON h (at)",
        ],
    );
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate('a', 'at')", "42P07"),
            ("CALL partition_router.migrate('b', 'at')", "42P07"),
            ("CALL partition_router.migrate('h', 'id', 'hash')", "42P07"),
            ("CALL partition_router.migrate('s.t', 'at', twin => 't')", "42P07"),
            (
                "CALL partition_router.migrate('s.t', 'at', twin => 't_default')",
                "42P07",
            ),
            (
                "CALL partition_router.migrate('s.t', 'at', twin => 't_2025_01')",
                "42P07",
            ),
        ],
    );
    // A name in another schema is free.
    run(
        &mut client,
        &[
            "CREATE TABLE t_partitioned ()",
            "CALL partition_router.migrate('s.t', 'at')",
        ],
    );
}

#[test]
fn one_bad_date_does_not_make_thousands_of_partitions() {
    let database = Database::new("dates");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO t VALUES (1, '2025-01-01'), (2, '0025-01-01')",
        ],
    );
    let error = refused(&mut client, "CALL partition_router.migrate('t', 'at')");
    assert_eq!(error.code().code(), "PR009");
    assert!(
        error.detail().is_some_and(|d| d.contains("0025-01-01")),
        "{error:?}"
    );
    for outlier in ["9025-01-01", "5000000-01-01", "0044-03-15 BC"] {
        run(
            &mut client,
            &[&format!("UPDATE t SET at = '{outlier}' WHERE id = 2")],
        );
        let error = refused(&mut client, "CALL partition_router.migrate('t', 'at')");
        assert_eq!(error.code().code(), "PR009", "{error:?}");
    }
    // Infinity needs no partition of its own.
    run(
        &mut client,
        &[
            "UPDATE t SET at = 'infinity' WHERE id = 2",
            "CALL partition_router.migrate('t', 'at')",
        ],
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM t_default"), 1);
}
