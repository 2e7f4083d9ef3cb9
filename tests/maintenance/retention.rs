//! Retention: what goes, where to, and what never goes.

use crate::session::Session;
use crate::{events, managed, month, partitions};

#[test]
fn retention_drops_detaches_or_archives() {
    let mut s = Session::new("retention");
    s.run("CREATE SCHEMA attic");
    for (table, rules) in [
        ("a", "retention => '2 months'"),
        ("b", "retention => '2 months', retention_action => 'detach'"),
        (
            "c",
            "retention => '2 months', retention_action => 'archive', archive_schema => 'attic'",
        ),
    ] {
        managed(&mut s, table, 0);
        s.run(&format!(
            "INSERT INTO {table} SELECT n, timezone('UTC', now()) - n * interval '1 month' FROM generate_series(0, 5) n;
             CALL partition_router.run_maintenance('{table}');
             SELECT partition_router.set_policy('{table}', {rules});
             CALL partition_router.run_maintenance('{table}')"
        ));
        assert_eq!(s.one(&format!("SELECT count(*)::text FROM {table}")), "3");
        assert_eq!(partitions(&mut s, table).len(), 4);
    }
    let old = month(&mut s, -5);
    let find = |s: &mut Session, name: String| s.one(&format!("SELECT count(*)::text FROM {name}"));
    assert_eq!(
        s.one(&format!("SELECT COALESCE(to_regclass('a{old}')::text, 'gone')")),
        "gone"
    );
    assert_eq!(find(&mut s, format!("b{old}")), "1");
    assert_eq!(find(&mut s, format!("attic.c{old}")), "1");
}

#[test]
fn retention_never_takes_the_newest_partition() {
    let mut s = Session::new("newest");
    s.run(
        "CREATE TABLE t (at date) PARTITION BY RANGE (at);
         CREATE TABLE t_1990 PARTITION OF t FOR VALUES FROM ('1990-01-01') TO ('1991-01-01');
         CREATE TABLE t_1991 PARTITION OF t FOR VALUES FROM ('1991-01-01') TO ('1992-01-01');
         INSERT INTO t VALUES ('1990-05-05'), ('1991-05-05');
         INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention)
             VALUES ('t', 't', '1 year', 0, '1 day');
         CALL partition_router.run_maintenance('t')",
    );
    let found = partitions(&mut s, "t");
    assert!(!found.contains(&"t_1990=1".into()), "{found:?}");
    s.run(
        "CREATE TABLE x (at date) PARTITION BY RANGE (at);
         CREATE TABLE x_p PARTITION OF x FOR VALUES FROM ('1990-01-01') TO (MAXVALUE);
         INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention)
             VALUES ('x', 'x', '1 year', 0, '1 day');
         CALL partition_router.run_maintenance('x')",
    );
    assert_eq!(partitions(&mut s, "x"), ["x_p=0"]);
}

#[test]
fn retention_is_frozen_while_copying() {
    let mut s = Session::new("frozen");
    managed(&mut s, "t", 0);
    s.run(
        "INSERT INTO t VALUES (1, now() - interval '3 months');
         CALL partition_router.run_maintenance('t');
         SELECT partition_router.set_policy('t', retention => '1 month');
         CREATE TABLE legacy (id int PRIMARY KEY, at timestamp);
         INSERT INTO partition_router.pair (legacy, twin, base_name, strategy, partition_key, phase)
             VALUES ('legacy', 't', 't', 'range', 'at', 'copying')",
    );
    let before = partitions(&mut s, "t");
    for phase in ["copying", "prepared"] {
        s.run(&format!("UPDATE partition_router.pair SET phase = '{phase}'; CALL partition_router.run_maintenance('legacy')"));
        assert_eq!(partitions(&mut s, "t"), before);
    }
    let reasons = s.column("SELECT message FROM partition_router.maintenance_event WHERE status = 'skipped'");
    assert!(
        reasons.iter().any(|r| r.contains("copying")) && reasons.iter().any(|r| r.contains("prepared")),
        "{reasons:?}"
    );
    assert_eq!(s.sqlstate("SELECT partition_router.create_partitions('t')"), "");
    s.run("UPDATE partition_router.pair SET phase = 'copying'");
    assert_eq!(
        s.sqlstate("SELECT partition_router.create_partitions('t')"),
        "PR012"
    );
}

#[test]
fn a_partition_that_others_point_at_is_kept_with_a_clear_error() {
    let mut s = Session::new("referenced");
    s.run(
        "CREATE TABLE t (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE t_default PARTITION OF t DEFAULT;
         INSERT INTO t SELECT n, current_date - n * 31 FROM generate_series(0, 4) n;
         SELECT partition_router.manage('t', '1 month', premake => 0);
         CALL partition_router.run_maintenance('t');
         CREATE TABLE child (id int, at date, FOREIGN KEY (id, at) REFERENCES t);
         INSERT INTO child SELECT id, at FROM t WHERE id = 4;
         SELECT partition_router.set_policy('t', retention => '1 month');
         CALL partition_router.run_maintenance('t')",
    );
    let failed = events(&mut s, "status = 'failed'");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].ends_with("23503"), "{failed:?}");
    assert_eq!(s.one("SELECT count(*)::text FROM t WHERE id = 4"), "1");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t WHERE id = 3"),
        "0",
        "the next one is retired all the same"
    );
}

#[test]
fn what_is_kept_does_not_hold_on_to_the_parents_sequence() {
    let mut s = Session::new("sequences");
    s.run(
        "CREATE TABLE t (id serial, at date) PARTITION BY RANGE (at);
         CREATE TABLE t_1990 PARTITION OF t FOR VALUES FROM ('1990-01-01') TO ('1991-01-01');
         CREATE TABLE t_1991 PARTITION OF t FOR VALUES FROM ('1991-01-01') TO ('1992-01-01');
         SELECT partition_router.manage('t', '1 year', retention => '1 year', retention_action => 'detach');
         CALL partition_router.run_maintenance('t');
         DROP TABLE t",
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t_1990"), "0");
}

#[test]
fn a_held_partition_stays_until_it_is_released() {
    let mut s = Session::new("held");
    managed(&mut s, "t", 0);
    s.run(
        "INSERT INTO t SELECT n, timezone('UTC', now()) - n * interval '1 month' FROM generate_series(0, 5) n;
         CALL partition_router.run_maintenance('t')",
    );
    let (oldest, older) = (month(&mut s, -5), month(&mut s, -4));
    s.run(&format!(
        "SELECT partition_router.hold('t{oldest}', 'case 7');
         SELECT partition_router.set_policy('t', retention => '2 months');
         CALL partition_router.run_maintenance('t');
         CALL partition_router.run_maintenance('t')"
    ));
    let found = partitions(&mut s, "t");
    assert!(found.contains(&format!("t{oldest}=1")), "{found:?}");
    assert!(!found.contains(&format!("t{older}=1")), "{found:?}");
    assert_eq!(found.len(), 5, "the gap after it is not filled: {found:?}");
    let drop = format!("SELECT partition_router.drop_partition('t{oldest}')");
    assert_eq!(s.sqlstate(&drop), "55000");
    assert_eq!(
        s.column("SELECT DISTINCT message FROM partition_router.maintenance_event WHERE status = 'skipped'"),
        ["it is held: case 7"]
    );
    assert_eq!(
        s.column("SELECT partition::text FROM partition_router.partitions WHERE is_held"),
        [format!("t{oldest}")]
    );
    for (call, state) in [
        ("hold('t')", "42809"),
        ("hold('pg_class')", "42809"),
        ("hold(NULL)", "22004"),
    ] {
        assert_eq!(
            s.sqlstate(&format!("SELECT partition_router.{call}")),
            state,
            "{call}"
        );
    }
    let release = format!("SELECT partition_router.release('t{oldest}')::text");
    assert_eq!(s.one(&release), "true");
    assert_eq!(s.one(&release), "false");
    s.run("CALL partition_router.run_maintenance('t')");
    assert!(!partitions(&mut s, "t").contains(&format!("t{oldest}=1")));
}

#[test]
fn partitions_are_kept_by_number_and_never_fewer_than_the_minimum() {
    let mut s = Session::new("number");
    s.run(
        "CREATE TABLE i (id int) PARTITION BY RANGE (id);
         CREATE TABLE i_default PARTITION OF i DEFAULT;
         INSERT INTO i SELECT generate_series(0, 59);
         SELECT partition_router.manage('i', '10', premake => 2);
         CALL partition_router.run_maintenance('i');
         SELECT partition_router.set_policy('i', retention_count => 3);
         CALL partition_router.run_maintenance('i')",
    );
    assert_eq!(
        partitions(&mut s, "i"),
        [
            "i_default=0",
            "i_p30=10",
            "i_p40=10",
            "i_p50=10",
            "i_p60=0",
            "i_p70=0"
        ]
    );
    managed(&mut s, "t", 1);
    s.run(
        "INSERT INTO t SELECT n, timezone('UTC', now()) - n * interval '1 month' FROM generate_series(0, 5) n;
         CALL partition_router.run_maintenance('t');
         SELECT partition_router.set_policy('t', retention => '1 month', min_partitions => 4);
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "4");
    for rule in ["retention_count => 0", "min_partitions => 0"] {
        assert_eq!(
            s.sqlstate(&format!("SELECT partition_router.set_policy('t', {rule})")),
            "22023",
            "{rule}"
        );
    }
}

#[test]
fn a_detach_that_was_left_half_way_is_finished() {
    let mut s = Session::new("finalize");
    managed(&mut s, "t", 0);
    s.run(
        "CREATE TABLE x (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE x_old PARTITION OF x FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
         INSERT INTO x VALUES ('2020-05-05');
         SELECT partition_router.manage('x', '1 year', premake => 0)",
    );
    let (mut reader, mut other) = (s.another(), s.another());
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM x");
    other.run("SET lock_timeout = '50ms'");
    assert_eq!(
        other.sqlstate("ALTER TABLE x DETACH PARTITION x_old CONCURRENTLY"),
        "55P03"
    );
    let pending = "SELECT count(*)::text FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(s.one(pending), "1");
    reader.run("COMMIT");
    s.run("CALL partition_router.run_maintenance('x')");
    assert_eq!(s.one(pending), "0");
    assert_eq!(s.one("SELECT count(*)::text FROM x_old"), "1");
    assert_eq!(events(&mut s, "partition = 'x_old'"), ["detach x_old done"]);
}
