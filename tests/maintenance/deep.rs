//! Partitions of partitions: ranges whose partitions are cut by hash, and hash partitions that have ranges.

use super::archives::Directory;
use super::session::Session;
use super::{events, month};

/// Every leaf with its rows: `name=rows`.
fn leaves(s: &mut Session, table: &str) -> Vec<String> {
    let names = s.column(&format!(
        "SELECT relid::text FROM pg_partition_tree('{table}') WHERE isleaf ORDER BY 1"
    ));
    let count = |name: String| {
        let rows = s.one(&format!("SELECT count(*)::text FROM {name}"));
        format!("{name}={rows}")
    };
    names.into_iter().map(count).collect()
}

/// By month, each month by hash of the tenant. The partition of 2020 is the model of the next.
const MONTHS_BY_TENANT: &str =
    "CREATE TABLE t (tenant int NOT NULL, at date NOT NULL, note text, PRIMARY KEY (tenant, at)) PARTITION BY RANGE (at);
     CREATE TABLE t_default PARTITION OF t DEFAULT;
     CREATE TABLE t_2020_01 PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2020-02-01') PARTITION BY HASH (tenant);
     CREATE TABLE t_2020_01_0 PARTITION OF t_2020_01 FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (fillfactor = 60);
     CREATE TABLE t_2020_01_1 PARTITION OF t_2020_01 FOR VALUES WITH (MODULUS 2, REMAINDER 1)";

#[test]
fn new_months_are_cut_by_tenant_as_the_last_one_is() {
    let mut s = Session::new("deep");
    s.run(MONTHS_BY_TENANT);
    s.run(
        "INSERT INTO t SELECT n, date '2020-01-05' FROM generate_series(1, 100) n;
         INSERT INTO t SELECT n, date '2020-02-05' FROM generate_series(1, 100) n;
         SELECT partition_router.manage('t', '1 month', premake => 0);
         CALL partition_router.run_maintenance('t'); CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    let now = month(&mut s, 0);
    let found = leaves(&mut s, "t");
    for name in [format!("t{now}_0=0"), format!("t{now}_1=0"), "t_default=0".into()] {
        assert!(found.contains(&name), "{name} in {found:?}");
    }
    let rows = s.column(
        "SELECT count(*)::text FROM t_2020_02 UNION ALL SELECT (count(*) > 20)::text FROM t_2020_02_0",
    );
    assert_eq!(rows, ["100", "true"]);
    assert_eq!(
        s.one("SELECT reloptions::text FROM pg_class WHERE relname = 't_2020_02_0'"),
        "{fillfactor=60}"
    );
    // The view has every leaf.
    let listed = s.one("SELECT count(*)::text FROM partition_router.partitions WHERE parent = 't'::regclass");
    assert_eq!(listed, leaves(&mut s, "t").len().to_string());
}

#[test]
fn a_template_with_partitions_of_its_own_is_followed_from_the_first_partition_on() {
    let mut s = Session::new("deep_template");
    s.run(
        "CREATE TABLE t (tenant int NOT NULL, at date NOT NULL, kind text) PARTITION BY RANGE (at);
         CREATE TABLE model (LIKE t) PARTITION BY LIST (kind);
         CREATE TABLE model_a PARTITION OF model FOR VALUES IN ('a', 'it''s') PARTITION BY HASH (tenant);
         CREATE TABLE model_a_0 PARTITION OF model_a FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE model_rest PARTITION OF model DEFAULT;
         SELECT partition_router.manage('t', '1 month', premake => 0, template => 'model');
         CALL partition_router.run_maintenance('t');
         INSERT INTO t SELECT 1, timezone('UTC', now())::date, unnest(ARRAY['a', 'it''s', 'x'])",
    );
    let now = month(&mut s, 0);
    assert_eq!(
        leaves(&mut s, "t"),
        [format!("t{now}_a_0=2"), format!("t{now}_rest=1")]
    );
}

#[test]
fn deep_partitions_are_dropped_detached_archived_restored_and_held_whole() {
    let mut s = Session::new("deep_retention");
    let directory = Directory::new("deep");
    s.run(MONTHS_BY_TENANT);
    s.run(&format!(
        "LOAD 'partition_router'; SET partition_router.archive_directory = '{}';
         CREATE SCHEMA kept;
         INSERT INTO t SELECT n, date '2020-01-05' FROM generate_series(1, 100) n;
         SELECT partition_router.manage('t', '1 month', premake => 0, retention => '24 months', retention_action => 'archive', archive_schema => 'kept');
         SELECT partition_router.hold('t_2020_01_1', 'case 7');
         CALL partition_router.run_maintenance('t')",
        directory.path()
    ));
    // One leaf is held: so is the month, also when it is not the newest any more.
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t WHERE at < '2020-02-01'"),
        "100"
    );
    s.run("SELECT partition_router.release('t_2020_01_1'); CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "0");
    assert_eq!(
        s.one("SELECT count(*)::text FROM kept.t_2020_01_0"),
        s.one("SELECT count(*)::text FROM ONLY kept.t_2020_01_0")
    );
    assert_eq!(s.one("SELECT count(*)::text FROM kept.t_2020_01"), "100");
    assert_eq!(s.one("SELECT count(*)::text FROM pg_class WHERE relname LIKE 't\\_2020%' AND relnamespace = 'public'::regnamespace"), "0");
    s.run("SELECT partition_router.restore_archive((SELECT max(id) FROM partition_router.archives))");
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "100");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t_2020_01_0 WHERE tenant > 0"),
        s.one("SELECT count(*)::text FROM ONLY t_2020_01_0")
    );
    // To a file, and back: as one table.
    s.run(
        "SELECT partition_router.release('t_2020_01');
         SELECT partition_router.set_policy('t', archive_format => 'csv');
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "0");
    s.run("SELECT partition_router.restore_archive((SELECT max(id) FROM partition_router.archives WHERE state = 'archived'))");
    assert_eq!(s.one("SELECT count(DISTINCT tenant)::text FROM t_2020_01"), "100");
    s.run(
        "SELECT partition_router.release('t_2020_01');
         SELECT partition_router.set_policy('t', retention_action => 'drop');
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "0");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

#[test]
fn every_hash_partition_with_ranges_is_kept_ahead() {
    let mut s = Session::new("deep_hash");
    s.run(
        "CREATE TABLE h (tenant int NOT NULL, at date NOT NULL, PRIMARY KEY (tenant, at)) PARTITION BY HASH (tenant);
         CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY RANGE (at);
         CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY RANGE (at);
         CREATE TABLE h_0_default PARTITION OF h_0 DEFAULT;
         CREATE TABLE h_1_default PARTITION OF h_1 DEFAULT;
         CREATE TABLE child (tenant int, at date, FOREIGN KEY (tenant, at) REFERENCES h);
         INSERT INTO h SELECT n, timezone('UTC', now())::date FROM generate_series(1, 100) n;
         INSERT INTO h SELECT n, date '2020-01-05' FROM generate_series(1, 100) n;
         SELECT partition_router.manage('h', '1 month', premake => 1);
         CALL partition_router.run_maintenance('h')",
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    let (now, next) = (month(&mut s, 0), month(&mut s, 1));
    let found = leaves(&mut s, "h");
    for name in [
        "h_0_default=0".into(),
        "h_1_default=0".into(),
        format!("h_0{next}=0"),
        format!("h_1{next}=0"),
    ] {
        assert!(found.contains(&name), "{name} in {found:?}");
    }
    assert_eq!(
        s.one(&format!(
            "SELECT (SELECT count(*) FROM h_0{now}) + (SELECT count(*) FROM h_1{now}) || ''"
        )),
        "100"
    );
    assert_eq!(
        s.sqlstate("SELECT partition_router.manage('h', '1 month')"),
        "PR017"
    );
    // One call sets the rules of all, and health tells of each.
    s.run(
        "SELECT partition_router.set_policy('h', retention => '24 months', retention_action => 'drop');
         INSERT INTO child SELECT tenant, at FROM h WHERE tenant = 1 AND at < '2020-02-01';
         CALL partition_router.run_maintenance('h')",
    );
    // A key that points at the whole keeps the one month that it points at.
    let kept =
        s.one("SELECT string_agg(DISTINCT tableoid::regclass::text, ' ') FROM h WHERE at < '2020-02-01'");
    assert!(kept == "h_0_2020_01" || kept == "h_1_2020_01", "{kept}");
    let failed = events(&mut s, "status = 'failed'");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let checked = s.one(
        "SELECT count(DISTINCT relation)::text FROM partition_router.health WHERE \"check\" = 'maintenance'",
    );
    assert_eq!(checked, "2");
    s.run("TRUNCATE child; CALL partition_router.run_maintenance()");
    assert_eq!(s.one("SELECT count(*)::text FROM h WHERE at < '2020-02-01'"), "0");
    // By hash without ranges there is nothing to keep ahead.
    s.run(
        "CREATE TABLE flat (tenant int) PARTITION BY HASH (tenant);
         CREATE TABLE flat_0 PARTITION OF flat FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    );
    let refused = s.sqlstate("SELECT partition_router.manage('flat', '1 month')");
    assert_eq!(
        refused,
        s.sqlstate("SELECT partition_router.manage('child', '1 month')")
    );
}
