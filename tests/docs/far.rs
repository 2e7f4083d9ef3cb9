//! Partitions on another server, as docs/scaling.md has it.

use crate::common::{Cluster, Database, one, run, sqlstate, texts};
use crate::statements;

/// Runs the page on two servers.
pub fn run_page() {
    let far = Cluster::start(&[]);
    run(&mut far.connect("postgres"), &["CREATE DATABASE cold"]);
    let mut there = far.connect("cold");
    let database = Database::new("far");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE visits (id bigint NOT NULL, at date NOT NULL, note text) PARTITION BY RANGE (at)",
            "CREATE TABLE visits_2025_01 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "SELECT partition_router.manage('visits', '1 month')",
            "CALL partition_router.run_maintenance('visits')",
            "INSERT INTO visits SELECT g, date '2025-01-01' + g % 60, 'visit ' || g FROM generate_series(1, 1000) g",
        ],
    );
    let sum = "SELECT format('%s %s', count(*), sum(hashtextextended(v::text, 0))) FROM visits v";
    let before: String = one(c, sum);
    let (on_the_other, here): (Vec<_>, Vec<_>) = statements("docs/scaling.md")
        .into_iter()
        .partition(|statement| statement.text.starts_with("CREATE TABLE visits_"));
    crate::run_statements(&mut there, "docs/scaling.md", on_the_other);
    let here = here.into_iter().map(|mut statement| {
        statement.text = statement.text.replace("cold.internal", far.socket());
        statement
    });
    crate::run_statements(c, "docs/scaling.md", here);
    assert_eq!(one::<String>(c, sum), before);
    let moved: i64 = one(&mut there, "SELECT count(*) FROM visits_2025_01");
    assert_eq!(
        moved,
        one::<i64>(c, "SELECT count(*) FROM visits WHERE at < '2025-02-01'")
    );
    let plan = |c: &mut postgres::Client, condition: &str| {
        texts(
            c,
            &format!("EXPLAIN (COSTS off) SELECT * FROM visits WHERE {condition}"),
        )
        .join("\n")
    };
    assert!(plan(c, "at = '2025-01-05'").contains("Foreign Scan"));
    assert!(!plan(c, "at = '2025-02-05'").contains("Foreign Scan"));
    run(
        c,
        &[
            "INSERT INTO visits VALUES (5000, '2025-01-31', 'late')",
            "UPDATE visits SET note = 'later' WHERE id = 5000 AND at = '2025-01-31'",
        ],
    );
    assert_eq!(
        one::<String>(&mut there, "SELECT note FROM visits_2025_01 WHERE id = 5000"),
        "later"
    );
    // Without the CHECK over there the row would stay in the wrong partition.
    assert_eq!(
        sqlstate(
            c,
            "UPDATE visits SET at = '2025-02-01' WHERE id = 5000 AND at = '2025-01-31'"
        ),
        "23514"
    );
    run(c, &["DELETE FROM visits WHERE id = 5000 AND at = '2025-01-31'"]);
    assert_eq!(one::<String>(c, sum), before);
    run(
        c,
        &[
            "CALL partition_router.run_maintenance('visits')",
            "SELECT partition_router.create_partitions('visits', 5)",
        ],
    );
    let failed = texts(
        c,
        "SELECT message FROM partition_router.maintenance_log WHERE status = 'failed'",
    );
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_foreign_partition_has_no_place_under_a_unique_index_or_in_a_pair() {
    let database = Database::new("far_refused");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE EXTENSION postgres_fdw",
            "CREATE SERVER cold FOREIGN DATA WRAPPER postgres_fdw",
            "CREATE FOREIGN TABLE f (id int NOT NULL, at date NOT NULL) SERVER cold",
            "CREATE TABLE p (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO t VALUES (1, '2026-01-01')",
            "CALL partition_router.migrate('t', 'at')",
        ],
    );
    let attach = |parent: &str| {
        format!("ALTER TABLE {parent} ATTACH PARTITION f FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')")
    };
    assert_eq!(sqlstate(c, &attach("p")), "42809");
    assert_eq!(sqlstate(c, &attach("t_partitioned")), "42809");
    let make = "CREATE FOREIGN TABLE g PARTITION OF t_partitioned FOR VALUES FROM ('2020-01-01') TO ('2020-02-01') SERVER cold";
    assert_eq!(sqlstate(c, make), "PR019");
}
