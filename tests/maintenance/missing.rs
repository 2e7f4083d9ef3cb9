//! Partitions that are not there: rows wait in the default or are refused, until maintenance makes them, whatever the key is.

use crate::session::Session;
use crate::{events, month, partitions};

#[test]
fn without_a_default_a_row_is_refused_clearly_until_maintenance_has_made_its_partition() {
    let mut s = Session::new("no_default");
    s.run(
        "CREATE TABLE t (id int, at timestamp NOT NULL) PARTITION BY RANGE (at);
         SELECT partition_router.manage('t', '1 month', premake => 1)",
    );
    let insert = "INSERT INTO t VALUES (1, timezone('UTC', now()))";
    assert_eq!(s.sqlstate(insert), "23514");
    s.run("CALL partition_router.run_maintenance('t')");
    s.run(insert);
    let (now, next) = (month(&mut s, 0), month(&mut s, 1));
    assert_eq!(
        partitions(&mut s, "t"),
        [format!("t{now}=1"), format!("t{next}=0")]
    );
    // One that was lost between two others is made again, and no default comes by the way.
    let after = month(&mut s, 2);
    s.run(
        "SELECT partition_router.set_policy('t', premake => 2); CALL partition_router.run_maintenance('t')",
    );
    s.run(&format!("DROP TABLE t{next}"));
    assert_eq!(
        s.sqlstate("INSERT INTO t VALUES (2, timezone('UTC', now()) + interval '1 month')"),
        "23514"
    );
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(
        partitions(&mut s, "t"),
        [format!("t{now}=1"), format!("t{next}=0"), format!("t{after}=0")]
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

/// Key, interval, values far apart, and the names of their partitions after the table's.
const KEYS: [(&str, &str, &str, [&str; 2]); 9] = [
    ("smallint", "1000", "(1500), (2500)", ["_p1000", "_p2000"]),
    (
        "int",
        "1000000",
        "(1500000), (2500000)",
        ["_p1000000", "_p2000000"],
    ),
    (
        "bigint",
        "10000000000",
        "(15000000000), (25000000000)",
        ["_p10000000000", "_p20000000000"],
    ),
    (
        "int",
        "1 month",
        "(1738324800), (1738368000)",
        ["_2025_01", "_2025_02"],
    ),
    (
        "bigint",
        "1 month",
        "(1738367999), (1738368000)",
        ["_2025_01", "_2025_02"],
    ),
    (
        "bigint",
        "1 month",
        "(1738367999999), (1738368000000)",
        ["_2025_01", "_2025_02"],
    ),
    (
        "bigint",
        "1 month",
        "(1738367999999999), (1738368000000000)",
        ["_2025_01", "_2025_02"],
    ),
    (
        "date",
        "1 week",
        "('2024-12-29'), ('2024-12-30')",
        ["_2024_w52", "_2025_w01"],
    ),
    (
        "timestamptz",
        "6 hours",
        "('2025-01-31 17:59Z'), ('2025-01-31 18:00Z')",
        ["_2025_01_31_12", "_2025_01_31_18"],
    ),
];

#[test]
fn every_key_has_its_partitions_made_where_its_rows_wait() {
    let mut s = Session::new("every_key");
    for (n, (key, interval, rows, names)) in KEYS.into_iter().enumerate() {
        s.run(&format!(
            "CREATE TABLE k{n} (at {key} NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE k{n}_default PARTITION OF k{n} DEFAULT;
             INSERT INTO k{n} SELECT x.at FROM (VALUES {rows}) x (at), generate_series(1, 200)",
            rows = rows.replace("('", &format!("({key} '")),
        ));
        s.run(&format!(
            "SELECT partition_router.manage('k{n}', '{interval}', premake => 0);
             CALL partition_router.run_maintenance('k{n}')"
        ));
        let found = partitions(&mut s, &format!("k{n}"));
        for name in names {
            assert!(
                found.contains(&format!("k{n}{name}=200")),
                "{key} by {interval}: {name} in {found:?}"
            );
        }
        assert!(found.contains(&format!("k{n}_default=0")), "{found:?}");
    }
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

#[test]
fn new_partitions_lie_in_the_tablespace_of_the_template_or_else_of_the_parent() {
    let mut s = Session::new("tablespace");
    if s.one("SELECT count(*)::text FROM pg_tablespace WHERE spcname = 'model_space'") == "0" {
        s.run("SET allow_in_place_tablespaces = on; CREATE TABLESPACE model_space LOCATION ''");
    }
    s.run(
        "CREATE TABLE parents (at date NOT NULL) PARTITION BY RANGE (at) TABLESPACE model_space;
         CREATE TABLE models (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE model (LIKE models) TABLESPACE model_space;
         SELECT partition_router.manage('parents', '1 month', premake => 1);
         SELECT partition_router.manage('models', '1 month', premake => 1, template => 'model');
         CALL partition_router.run_maintenance()",
    );
    for table in ["parents", "models"] {
        assert_eq!(
            s.column(&format!(
                "SELECT COALESCE(t.spcname::text, 'usual') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE i.inhparent = '{table}'::regclass"
            )),
            ["model_space", "model_space"],
            "{table}"
        );
    }
    // Their files are found there: with nothing to do they are passed over, and with a row ahead they are not.
    let to_do = "SELECT COALESCE(string_agg(x.t::text, ' '), '') FROM unnest(partition_router.maintenance_targets(NULL, 'all')) x (t)";
    assert_eq!(s.one(to_do), "");
    s.run("INSERT INTO parents SELECT timezone('UTC', now())::date + interval '1 month'");
    assert_eq!(s.one(to_do), "parents");
}
