//! Partitioned tables have statistics of their own, which autovacuum never makes.

use crate::common::{Cluster, Database};
use crate::events;
use crate::session::Session;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE t (id int, at date NOT NULL) PARTITION BY RANGE (at);
    CREATE TABLE t_a PARTITION OF t FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
    CREATE TABLE t_b PARTITION OF t FOR VALUES FROM ('2025-02-01') TO ('2025-03-01') PARTITION BY HASH (id);
    CREATE TABLE t_b_0 PARTITION OF t_b FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    SELECT partition_router.manage('t', '1 month', premake => 0)";

/// How many columns of the table as a whole the planner knows something about.
const KNOWN: &str = "SELECT count(*)::text FROM pg_stats WHERE tablename = 't' AND inherited";

fn analysed(s: &mut Session) -> usize {
    events(s, "action = 'analyze' AND status = 'done'").len()
}

#[test]
fn a_table_with_rows_and_no_statistics_of_its_own_is_analysed_once() {
    let mut s = Session::new("analyze");
    s.run(TABLE);
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(analysed(&mut s), 0, "an empty table needs none");
    s.run("INSERT INTO t SELECT g, '2025-02-03' FROM generate_series(1, 1000) g; ANALYZE t_b_0");
    assert_eq!(s.one(KNOWN), "0");
    s.notices();
    s.run("CALL partition_router.run_maintenance('t', dry_run => true)");
    assert!(
        s.notices()
            .iter()
            .any(|n| n.ends_with("ANALYZE \"public\".\"t\""))
    );
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(s.one(KNOWN), "2");
    s.run("CALL partition_router.run_maintenance(); CALL partition_router.run_maintenance('t')");
    assert_eq!(analysed(&mut s), 1);
}

#[test]
fn a_table_is_analysed_again_when_autovacuum_has_seen_enough_of_it_change() {
    let cluster = Arc::new(Cluster::start(&["autovacuum_naptime=1s"]));
    let mut s = Session::on(Arc::new(Database::on(cluster, "autoanalyze")));
    s.run(TABLE);
    s.run("INSERT INTO t SELECT g, '2025-01-03' FROM generate_series(1, 1000) g; ANALYZE t");
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(analysed(&mut s), 0, "the user has done it");
    s.run("UPDATE t SET id = id + 1");
    let deadline = Instant::now() + Duration::from_secs(120);
    let seen = "SELECT COALESCE(pg_stat_get_last_autoanalyze_time('t_a'::regclass) > pg_stat_get_last_analyze_time('t'::regclass), false)::text";
    while s.one(seen) != "true" {
        assert!(Instant::now() < deadline, "autovacuum analyses the partition");
        thread::sleep(Duration::from_millis(50));
    }
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(analysed(&mut s), 1);
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(analysed(&mut s), 1);
}

#[test]
fn a_table_that_cannot_be_analysed_now_stops_no_other() {
    let mut s = Session::new("analyze_locked");
    s.run(TABLE);
    s.run(
        "INSERT INTO t SELECT g, '2025-02-03' FROM generate_series(1, 1000) g; ANALYZE t_b_0;
         CREATE TABLE u (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE u_a PARTITION OF u FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
         INSERT INTO u VALUES ('2025-01-02'); ANALYZE u_a;
         SELECT partition_router.manage('u', '1 month', premake => 0)",
    );
    let mut other = s.another();
    other.run("BEGIN; LOCK TABLE ONLY t IN SHARE UPDATE EXCLUSIVE MODE");
    s.run("CALL partition_router.run_maintenance(part => 'cleanup')");
    other.run("ROLLBACK");
    let failed = s.column(
        "SELECT parent || ' ' || sqlstate FROM partition_router.maintenance_event WHERE status = 'failed'",
    );
    assert_eq!(failed, ["public.t 55P03"]);
    assert_eq!(
        s.column("SELECT parent FROM partition_router.maintenance_event WHERE action = 'analyze'"),
        ["public.u"]
    );
}
