//! The lock budget against those who hold locks for long.

mod common;

use common::{Cluster, Database, one, run};
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
