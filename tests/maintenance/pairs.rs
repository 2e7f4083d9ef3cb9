//! Maintenance of pairs, whose rows live on both sides.

use crate::session::Session;
use crate::{events, partitions};

/// A live pair with a row a day from 2025-01-01 on, 150 of them; premake 0.
fn live_pair(test: &str) -> Session {
    let mut s = Session::new(test);
    s.run(
        "CREATE TABLE t (id serial PRIMARY KEY, at timestamp NOT NULL, note text);
         INSERT INTO t (at, note) SELECT timestamp '2025-01-01' + n * interval '1 day', repeat('x', n)
             FROM generate_series(0, 149) n;
         CALL partition_router.migrate('t', 'at', premake => 0)",
    );
    s
}

fn assert_in_step(s: &mut Session) {
    assert_eq!(
        s.one("SELECT bool_and(matches)::text FROM partition_router.verify('t', 'rows')"),
        "true"
    );
}

/// A retention that reaches back to 2025-03-15.
fn retention(s: &mut Session) -> String {
    s.one("SELECT format('retention => %L', now() - timestamptz '2025-03-15 00:00Z')")
}

#[test]
fn new_partitions_of_a_live_pair_carry_writes_to_the_legacy() {
    let mut s = live_pair("pair_new");
    s.run(
        "SELECT partition_router.set_policy('t', premake => 2);
         CALL partition_router.run_maintenance('t')",
    );
    let newest = s.one(
        "SELECT t.relid::text FROM pg_partition_tree('t_partitioned') t JOIN pg_class c ON c.oid = t.relid
         WHERE t.isleaf AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT' ORDER BY c.relname DESC LIMIT 1",
    );
    s.run(&format!(
        "INSERT INTO t (at) VALUES (timezone('UTC', now()) + interval '2 months');
         INSERT INTO {newest} SELECT 100000, at, 'straight into the leaf' FROM {newest}"
    ));
    assert_eq!(s.one("SELECT count(*)::text FROM t WHERE id = 100000"), "1");
    s.run(&format!(
        "UPDATE {newest} SET note = 'changed'; DELETE FROM {newest} WHERE id < 100000"
    ));
    assert_eq!(s.one("SELECT note FROM t WHERE id = 100000"), "changed");
    assert_in_step(&mut s);
}

#[test]
fn rows_of_a_live_pair_move_out_of_the_default_and_stay_on_the_legacy() {
    let mut s = live_pair("pair_drain");
    s.run("INSERT INTO t (at) SELECT timestamp '2024-11-01' + n * interval '1 day' FROM generate_series(0, 59) n");
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "60");
    s.run("CALL partition_router.run_maintenance('t_partitioned')");
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "210");
    assert!(partitions(&mut s, "t_partitioned").contains(&"t_2024_11=30".to_string()));
    assert_in_step(&mut s);
    s.run("DELETE FROM t WHERE at < '2024-12-01'; UPDATE t_2024_12 SET note = 'x'");
    assert_in_step(&mut s);
}

#[test]
fn rows_of_a_live_pair_leave_both_sides() {
    for (action, kept) in [
        ("drop", None),
        ("detach", Some("t_2025_01")),
        ("archive", Some("attic.t_2025_01")),
    ] {
        let mut s = live_pair(&format!("pair_{action}"));
        let retention = retention(&mut s);
        s.run(&format!(
            "CREATE SCHEMA attic;
             SELECT partition_router.set_policy('t', {retention}, retention_action => '{action}', archive_schema => 'attic');
             CALL partition_router.run_maintenance('t')"
        ));
        assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
        assert_eq!(s.one("SELECT count(*)::text FROM t"), "91", "{action}");
        assert_eq!(
            s.one("SELECT count(*)::text FROM t_partitioned"),
            "91",
            "{action}"
        );
        assert_in_step(&mut s);
        let left = partitions(&mut s, "t_partitioned");
        assert!(
            !left
                .iter()
                .any(|p| p.starts_with("t_2025_01") || p.starts_with("t_2025_02")),
            "{left:?}"
        );
        if let Some(kept) = kept {
            assert_eq!(s.one(&format!("SELECT count(*)::text FROM {kept}")), "31");
            s.run(&format!("DELETE FROM {kept}"));
            assert_in_step(&mut s);
        }
        assert_eq!(
            s.one("SELECT count(*)::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'partition_router_retired%'"),
            "0"
        );
    }
}

#[test]
fn retirement_goes_on_where_it_was_stopped() {
    let mut s = live_pair("pair_resume");
    let retention = retention(&mut s);
    s.run(&format!(
        "INSERT INTO t (at) SELECT timestamp '2025-01-10' FROM generate_series(1, 12000);
         SELECT partition_router.set_policy('t', {retention}, retention_action => 'detach')"
    ));
    let task = s.one("SELECT cleaning[1] FROM partition_router.maintenance_tasks('t_partitioned')");
    assert_eq!(
        s.one(&format!(
            "SELECT partition_router.maintenance_task('t_partitioned', '{task}')::text"
        )),
        "true"
    );
    assert_in_step(&mut s);
    assert_eq!(s.one("SELECT count(*)::text FROM t_2025_01"), "7031");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(s.one("SELECT count(*)::text FROM t_2025_01"), "12031");
    assert_eq!(s.one("SELECT count(*)::text FROM t"), "91");
    assert_in_step(&mut s);
}

#[test]
fn a_partition_with_rows_of_a_live_pair_is_not_dropped_by_hand() {
    let mut s = live_pair("pair_drop");
    assert_eq!(
        s.sqlstate("SELECT partition_router.drop_partition('t_2025_01')"),
        "55000"
    );
    s.run("DELETE FROM t WHERE at < '2025-02-01'; SELECT partition_router.drop_partition('t_2025_01')");
    assert_eq!(
        s.one("SELECT COALESCE(to_regclass('t_2025_01')::text, 'gone')"),
        "gone"
    );
    s.run("INSERT INTO t (at) VALUES ('2025-01-05'); SELECT partition_router.create_range_partition('t', 't_2025_01', '2025-01-01', '2025-02-01')");
    assert!(partitions(&mut s, "t_partitioned").contains(&"t_2025_01=1".to_string()));
    assert_in_step(&mut s);
}

#[test]
fn maintenance_of_a_live_pair_goes_on_under_writes() {
    let mut s = live_pair("pair_writes");
    s.run("INSERT INTO t (at) SELECT timestamp '2024-06-01' + n * interval '1 minute' FROM generate_series(0, 20000) n");
    let mut writer = s.another();
    let writes = std::thread::spawn(move || {
        for n in 1..=300 {
            writer.run(&format!(
                "INSERT INTO t (at, note) VALUES (timestamp '2024-06-01' + {n} * interval '1 hour', 'new');
                 UPDATE t SET note = 'changed' WHERE id = 200 + {n};
                 DELETE FROM t_partitioned WHERE id = 1000 + {n}"
            ));
        }
    });
    while !writes.is_finished() {
        s.run("CALL partition_router.run_maintenance('t')");
    }
    writes.join().unwrap();
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t"),
        (150 + 20001 + 300 - 300).to_string()
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
    assert_in_step(&mut s);
}

#[test]
fn the_plan_of_maintenance_comes_as_rows() {
    let mut s = live_pair("pair_plan");
    s.run("INSERT INTO t (at) VALUES ('2024-12-31')");
    let actions = s.column("SELECT action FROM partition_router.plan('run_maintenance', 't') ORDER BY step");
    assert!(actions.contains(&"attach partition".to_string()), "{actions:?}");
    assert!(
        actions.iter().any(|a| a.contains("sync_to_legacy_t")),
        "{actions:?}"
    );
}

#[test]
fn a_killed_maintenance_is_simply_called_again() {
    let mut s = live_pair("pair_killed");
    let retention = retention(&mut s);
    s.run(&format!(
        "INSERT INTO t (at) SELECT timestamp '2025-01-10' + n * interval '1 minute' FROM generate_series(1, 30000) n;
         INSERT INTO t (at) SELECT timestamp '2026-01-10' + n * interval '1 hour' FROM generate_series(1, 1000) n;
         SELECT partition_router.set_policy('t', {retention}, retention_action => 'detach')"
    ));
    let kept = s.one("SELECT count(*)::text FROM t WHERE at >= '2025-03-01'");
    for pause in [3, 7, 15, 20, 30, 40, 60, 80, 110, 150] {
        let mut worker = s.another();
        let pid = worker.one("SELECT pg_backend_pid()::text");
        let run = std::thread::spawn(move || worker.sqlstate("CALL partition_router.run_maintenance('t')"));
        std::thread::sleep(std::time::Duration::from_millis(pause));
        s.column(&format!("SELECT pg_terminate_backend({pid})::text"));
        run.join().unwrap();
        assert_in_step(&mut s);
    }
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(s.one("SELECT count(*)::text FROM t"), kept);
    assert_eq!(
        s.one("SELECT ((SELECT count(*) FROM t_2025_01) + (SELECT count(*) FROM t_2025_02))::text"),
        "30059"
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
    assert_in_step(&mut s);
}
