//! The lock budget against those who hold locks for long.

mod common;

use common::{Cluster, Database, one, run, sqlstate};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Polls until `query` gives true.
fn wait_for(client: &mut postgres::Client, query: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !one::<bool>(client, query) {
        assert!(Instant::now() < deadline, "never true: {query}");
        std::thread::yield_now();
        one::<String>(client, "SELECT pg_sleep(0.02)::text");
    }
}

#[test]
fn an_endless_autovacuum_steps_aside() {
    let settings = [
        "autovacuum_naptime=1",
        "autovacuum_vacuum_cost_delay=100",
        "autovacuum_vacuum_cost_limit=1",
        "vacuum_cost_page_miss=10000",
        "vacuum_cost_page_hit=10000",
        "vacuum_cost_page_dirty=10000",
    ];
    let database = Database::on(Arc::new(Cluster::start(&settings)), "autovacuum");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL, v text)
             WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)",
            "INSERT INTO t SELECT g, '2026-01-01', repeat('x', 1000) FROM generate_series(1, 20000) g",
            "UPDATE t SET v = repeat('y', 1000)",
        ],
    );
    let vacuuming = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.relation = 't'::regclass AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted
           AND a.backend_type = 'autovacuum worker')";
    wait_for(&mut client, vacuuming);
    run(&mut client, &["CALL partition_router.migrate('t', 'at')"]);
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "live"
    );
}

#[test]
fn who_blocks_is_named_when_the_budget_is_spent() {
    let database = Database::new("blocked");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL)",
            "INSERT INTO t VALUES (1, '2026-01-01')",
            "SELECT partition_router.create_twin('t', 'at')",
            "SET partition_router.lock_timeout = '1ms'",
        ],
    );
    let mut writer = database.connect();
    let pid: i32 = one(&mut writer, "SELECT pg_backend_pid()");
    run(&mut writer, &["BEGIN", "UPDATE t SET at = '2026-01-02'"]);
    let error = client
        .batch_execute("SELECT partition_router.start_sync('t')")
        .expect_err("a writer is open");
    let error = error.as_db_error().expect("the server says no");
    assert_eq!(error.code().code(), "55P03");
    assert!(
        error.detail().is_some_and(|d| d.contains(&format!("pid {pid} "))),
        "{error:?}"
    );
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "prepared"
    );
    run(&mut writer, &["COMMIT"]);
    run(&mut client, &["SELECT partition_router.start_sync('t')"]);
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "copying"
    );
}

#[test]
fn taking_in_the_foreign_keys_never_deadlocks_with_a_writer() {
    let database = Database::new("foreign_keys");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE organizations (id int PRIMARY KEY)",
            "INSERT INTO organizations VALUES (1)",
            "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL, org int REFERENCES organizations)",
            "INSERT INTO t SELECT g, '2026-01-01', 1 FROM generate_series(1, 100) g",
            "SELECT partition_router.create_twin('t', 'at')",
            "SELECT partition_router.start_sync('t')",
        ],
    );
    // Up to the step in which the root takes the keys in: every partition has its own, valid.
    let leaves_done = "SELECT (SELECT stage FROM partition_router.copy_state) = 'finish'
        AND NOT EXISTS (SELECT FROM pg_partition_tree('t_partitioned') p WHERE p.isleaf AND NOT EXISTS (
            SELECT FROM pg_constraint k WHERE k.conrelid = p.relid AND k.contype = 'f' AND k.convalidated))
        AND (SELECT next_block FROM partition_router.copy_state)
            > (SELECT count(*) FROM pg_partition_tree('t_partitioned') p WHERE p.isleaf)";
    while !one::<bool>(&mut client, leaves_done) {
        assert!(one::<bool>(
            &mut client,
            "SELECT partition_router.backfill_step('t', 1000)"
        ));
    }
    let mut writer = database.connect();
    run(
        &mut writer,
        &["BEGIN", "SELECT FROM organizations WHERE id = 1 FOR KEY SHARE"],
    );
    std::thread::scope(|scope| {
        let backfill = scope.spawn(|| {
            let mut client = database.connect();
            client.batch_execute("CALL partition_router.backfill('t')")
        });
        wait_for(
            &mut client,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'organizations'::regclass AND NOT granted)",
        );
        writer
            .batch_execute("INSERT INTO t VALUES (1000, '2026-01-01', 1)")
            .expect("the writer meets no deadlock");
        run(&mut writer, &["COMMIT"]);
        backfill
            .join()
            .expect("no panic")
            .expect("the backfill goes on when the writer is done");
    });
    assert_eq!(
        one::<String>(&mut client, "SELECT stage FROM partition_router.copy_state"),
        "done"
    );
}

fn signal(signal: &str, pid: i32) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{signal} to {pid}");
}

/// The session is stopped while it waits for a lock until its lock timeout has come, and something else that ends statements: it hears
/// of both at once. The server alone reports the lock timeout, after which the call would go on.
#[test]
fn a_cancel_and_a_statement_timeout_that_come_with_a_lock_timeout_end_the_call() {
    let database = Database::new("cancel_and_timeout");
    let mut holder = database.connect();
    run(
        &mut holder,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL)",
            "SELECT partition_router.create_twin('t', 'at')",
            "CREATE TABLE m (at date NOT NULL) PARTITION BY RANGE (at)",
            "SELECT partition_router.manage('m', '1 month')",
        ],
    );
    for (call, lock) in [
        (
            "SELECT partition_router.start_sync('t')",
            "t IN ROW EXCLUSIVE MODE",
        ),
        (
            "SELECT partition_router.create_range_partition('m', 'm_old', '2001-01-01', '2001-02-01')",
            "m IN SHARE UPDATE EXCLUSIVE MODE",
        ),
    ] {
        for timeout in ["0", "2s"] {
            run(&mut holder, &["BEGIN", &format!("LOCK TABLE {lock}")]);
            let mut client = database.connect();
            let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
            run(
                &mut client,
                &[
                    "SET partition_router.lock_timeout = '300ms'",
                    &format!("SET statement_timeout = '{timeout}'"),
                ],
            );
            let begun = Instant::now();
            let ended = std::thread::spawn(move || sqlstate(&mut client, call));
            // Read without a lock that who is stopped might have.
            let waits = format!(
                "SELECT wait_event_type IS NOT DISTINCT FROM 'Lock' FROM pg_stat_activity WHERE pid = {pid}"
            );
            loop {
                wait_for(&mut holder, &waits);
                signal("-STOP", pid);
                if one::<bool>(&mut holder, &waits) {
                    break;
                }
                signal("-CONT", pid);
            }
            if timeout == "0" {
                std::thread::sleep(Duration::from_millis(400));
                run(&mut holder, &[&format!("SELECT pg_cancel_backend({pid})")]);
            } else {
                std::thread::sleep(Duration::from_millis(2400).saturating_sub(begun.elapsed()));
            }
            signal("-CONT", pid);
            assert_eq!(
                ended.join().expect("the session lives"),
                "57014",
                "{call} {timeout}"
            );
            run(&mut holder, &["COMMIT"]);
        }
    }
}
