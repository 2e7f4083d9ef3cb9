//! Two years of monthly maintenance, on a server whose clock is moved. A test process of its own: the server inherits its
//! environment.
#![allow(unsafe_code)]

mod common;

use common::{Cluster, Database, one, run, texts};
use std::path::PathBuf;
use std::sync::Arc;

/// The library that gives a process another time (Debian package faketime).
fn library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|path| path.exists());
    found.expect("libfaketime is installed: make setup")
}

#[test]
fn two_years_of_monthly_maintenance_leave_no_gap_and_lose_no_row() {
    let directory = std::env::temp_dir().join(format!("partition_router_clock_{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let clock = directory.join("clock");
    // At once: a process that reads an empty file ends.
    let days = |days: i32| {
        let next = directory.join("next");
        std::fs::write(&next, format!("+{days}d")).expect("the clock can be set");
        std::fs::rename(&next, &clock).expect("the clock can be set");
    };
    days(0);
    // SAFETY: no other thread reads the environment: this process has one test.
    unsafe {
        std::env::set_var("LD_PRELOAD", library());
        std::env::set_var("FAKETIME_TIMESTAMP_FILE", &clock);
        std::env::set_var("FAKETIME_NO_CACHE", "1");
        std::env::set_var("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=64MB"]));
    let database = Database::on(cluster, "clock");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA vault",
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE t_default PARTITION OF t DEFAULT",
            "SELECT partition_router.manage('t', '1 month', premake => 2, retention => '6 months', retention_action => 'archive',
                 archive_schema => 'vault', timezone => 'America/Sao_Paulo')",
            "CALL partition_router.run_maintenance()",
        ],
    );
    let started: String = one(&mut client, "SELECT to_char(now(), 'YYYY-MM')");
    let mut rows = 0;
    for month in 1..=24 {
        days(month * 61 / 2);
        // A month's rows, the newest a month ahead.
        run(
            &mut client,
            &["INSERT INTO t (at) SELECT now() + n * interval '12 hours' FROM generate_series(0, 60) n"],
        );
        rows += 61;
        let strays: i64 = one(&mut client, "SELECT count(*) FROM t_default");
        assert_eq!(
            strays, 0,
            "month {month}: partitions were there before their rows"
        );
        run(&mut client, &["CALL partition_router.run_maintenance()"]);
        let failed = texts(
            &mut client,
            "SELECT message FROM partition_router.maintenance_log WHERE status <> 'done'",
        );
        assert!(failed.is_empty(), "month {month}: {failed:?}");
        let kept: i64 = one(
            &mut client,
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 't'::regclass",
        );
        assert!(kept <= 6 + 1 + 1 + 4 + 1, "month {month}: {kept} partitions");
    }
    let ended: String = one(
        &mut client,
        "SELECT to_char(now() - interval '23 months', 'YYYY-MM')",
    );
    assert!(ended > started, "the server's clock moved: {started}, {ended}");
    // Each begins where the one before ends, over both changes of a clock in the zone, if it has any.
    let gaps = texts(
        &mut client,
        "SELECT lower || ' ' || before FROM (
             SELECT lower, lag(upper) OVER (ORDER BY lower::timestamptz) AS before FROM (
                 SELECT substring(b FROM 'FROM \\(''([^'']*)''') AS lower, substring(b FROM 'TO \\(''([^'']*)''') AS upper
                 FROM (SELECT pg_get_expr(relpartbound, oid) AS b FROM pg_class WHERE relispartition AND relkind = 'r') x
                 WHERE b <> 'DEFAULT') y) z
         WHERE before IS NOT NULL AND before::timestamptz <> lower::timestamptz",
    );
    assert!(gaps.is_empty(), "{gaps:?}");
    let left: i64 = one(&mut client, "SELECT count(*) FROM t");
    run(
        &mut client,
        &[
            "SELECT partition_router.restore_archive(id) FROM partition_router.archives WHERE state = 'archived'",
        ],
    );
    assert!(left < rows);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM t"), rows);
    std::fs::remove_dir_all(&directory).expect("the directory goes");
}
