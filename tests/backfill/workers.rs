//! Several processes at one backfill: the calling session leads, background workers help.

use super::{finish, one, pid, run, stage, steps_until, until};
use crate::common::{Cluster, Database, assert_equal_sides, sqlstate};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Enough blocks for more than twenty tasks of the copy.
const MANY: i64 = 20_000;
const WORKERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'partition_router backfill'";
const NO_WORKER: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'partition_router backfill')";
/// Each worker is in the middle of a batch and waits for a lock.
const WORKER_HELD: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND backend_type = 'partition_router backfill' AND wait_event_type = 'Lock')";

/// A server of its own: tests beside this one would take its workers away.
fn database_with_workers(test: &str) -> Database {
    Database::on(Arc::new(Cluster::start(&["shared_buffers=64MB"])), test)
}

/// A table with [`MANY`] rows, captured.
fn capture_many(client: &mut Client) {
    run(
        client,
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, u int, n int DEFAULT 0, t text, UNIQUE (u, d))
             WITH (autovacuum_enabled = off)",
            &format!(
                "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, g, repeat('x', 900) FROM generate_series(1, {MANY}) g"
            ),
            "SELECT partition_router.create_twin('a', 'd')",
            "SELECT partition_router.start_sync('a')",
        ],
    );
}

/// Keeps every process out of a partition that all of them need; rows of it lie in every block.
fn hold_a_partition(database: &Database) -> Client {
    let mut holder = database.connect();
    steps_until(&mut holder, "a", "copy");
    run(
        &mut holder,
        &["BEGIN", "LOCK TABLE a_2026_02 IN ACCESS EXCLUSIVE MODE"],
    );
    holder
}

fn call_with_workers(
    mut client: Client,
    arguments: &str,
) -> std::thread::JoinHandle<(Client, Result<(), String>)> {
    let call = format!("CALL partition_router.backfill('a', {arguments})");
    std::thread::spawn(move || {
        run(&mut client, &["SET partition_router.backfill_workers = 3"]);
        let result = client.batch_execute(&call).map_err(|error| {
            error
                .as_db_error()
                .map_or_else(|| "08006".to_string(), |e| e.code().code().to_string())
        });
        (client, result)
    })
}

#[test]
fn workers_share_the_copy_under_writers_and_end_equal() {
    let database = database_with_workers("workers");
    let (mut backfill, mut watcher, mut writer) =
        (database.connect(), database.connect(), database.connect());
    capture_many(&mut backfill);
    let mut holder = hold_a_partition(&database);
    let stop = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = 1 + i * 37 % MANY;
                run(
                    &mut writer,
                    &[
                        &format!(
                            "UPDATE a SET n = n + 1, d = date '2026-01-01' + {} WHERE id = {id}",
                            i % 80
                        ),
                        &format!("DELETE FROM a WHERE id = {}", 1 + i * 53 % MANY),
                        &format!("INSERT INTO a VALUES ({}, '2026-02-02')", MANY + 1 + i),
                    ],
                );
            }
        }
    });
    let call = call_with_workers(backfill, "100, '20ms'");
    until(
        &mut watcher,
        "SELECT EXISTS (SELECT FROM partition_router.progress WHERE workers = 2)",
    );
    let names: String = one(
        &mut watcher,
        "SELECT string_agg(DISTINCT usename, ',') FROM pg_stat_activity WHERE datname = current_database()
         AND backend_type = 'partition_router backfill'",
    );
    assert_eq!(names, "postgres", "workers are who called them");
    // Three batches at the same time.
    until(
        &mut watcher,
        "SELECT count(*) = 3 FROM pg_locks WHERE relation = 'a_2026_02'::regclass AND NOT granted",
    );
    run(&mut holder, &["COMMIT"]);
    let (mut backfill, result) = call.join().expect("the session lives");
    stop.store(true, Ordering::Relaxed);
    load.join().expect("no write failed");
    assert_eq!(result, Ok(()));
    assert_eq!(one::<i64>(&mut watcher, WORKERS), 0, "a worker outlives the call");
    finish(&mut backfill, "a");
    assert_eq!(
        one::<i64>(&mut backfill, "SELECT count(*) FROM partition_router.copy_task"),
        0
    );
}

#[test]
fn migrate_uses_workers_too() {
    let database = database_with_workers("migrate");
    let (mut client, mut watcher) = (database.connect(), database.connect());
    super::create(&mut client, "a");
    run(&mut client, &["SET partition_router.backfill_workers = 2"]);
    run(
        &mut client,
        &[
            "SELECT partition_router.create_twin('a', 'd')",
            "SELECT partition_router.start_sync('a')",
        ],
    );
    let mut holder = hold_a_partition(&database);
    let call = std::thread::spawn(move || {
        run(&mut client, &["CALL partition_router.migrate('a', 'd')"]);
        client
    });
    until(&mut watcher, WORKER_HELD);
    run(&mut holder, &["COMMIT"]);
    let mut client = call.join().expect("the call ends");
    assert_eq!(one::<i64>(&mut watcher, WORKERS), 0);
    assert_equal_sides(&mut client, "a", "a_partitioned", super::COLUMNS);
}

#[test]
fn the_leader_waits_for_a_task_that_another_is_at_and_does_it_when_it_is_given_back() {
    let database = database_with_workers("takes_over");
    let (mut backfill, mut worker) = (database.connect(), database.connect());
    super::capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "copy");
    // What a worker does at the begin of its batch.
    run(
        &mut worker,
        &[
            "BEGIN",
            "SELECT pg_advisory_xact_lock_shared('partition_router.copy_task'::regclass::oid::int, id) FROM partition_router.pair",
            "DELETE FROM partition_router.copy_task WHERE first_block = 128",
        ],
    );
    let leader = pid(&mut backfill);
    let call = std::thread::spawn(move || {
        run(&mut backfill, &["CALL partition_router.backfill('a', 100)"]);
        backfill
    });
    let mut watcher = database.connect();
    until(
        &mut watcher,
        &format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {leader} AND locktype = 'advisory' AND NOT granted)"
        ),
    );
    assert_eq!(
        stage(&mut watcher, "a"),
        "copy",
        "it went on without the rows of the task"
    );
    run(&mut worker, &["ROLLBACK"]);
    let mut backfill = call.join().expect("the leader goes on");
    assert_eq!(finish(&mut backfill, "a"), super::ROWS);
}

#[test]
fn what_a_terminated_worker_leaves_is_done_by_the_leader() {
    let database = database_with_workers("terminated");
    let (mut backfill, mut other) = (database.connect(), database.connect());
    capture_many(&mut backfill);
    let mut holder = hold_a_partition(&database);
    let call = call_with_workers(backfill, "100");
    until(&mut other, WORKER_HELD);
    run(
        &mut other,
        &["SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = 'partition_router backfill'"],
    );
    until(&mut other, NO_WORKER);
    run(&mut holder, &["COMMIT"]);
    let (mut backfill, result) = call.join().expect("the session lives");
    assert_eq!(result, Ok(()));
    assert_eq!(finish(&mut backfill, "a"), MANY);
}

#[test]
fn workers_end_with_a_leader_that_is_cancelled_or_terminated() {
    // Who is terminated may find the connection closed before the reason is read.
    for (end, codes) in [
        ("pg_cancel_backend", &["57014"][..]),
        ("pg_terminate_backend", &["57P01", "08006"]),
    ] {
        let database = database_with_workers("leader");
        let (mut backfill, mut other) = (database.connect(), database.connect());
        capture_many(&mut backfill);
        let mut holder = hold_a_partition(&database);
        let leader = pid(&mut backfill);
        let call = call_with_workers(backfill, "100");
        until(&mut other, WORKER_HELD);
        run(&mut other, &[&format!("SELECT {end}({leader})")]);
        // They are still kept out of the partition: they end, they do not go on.
        until(&mut other, NO_WORKER);
        run(&mut holder, &["COMMIT"]);
        let (_, result) = call.join().expect("the thread ends");
        let code = result.expect_err(end);
        assert!(codes.contains(&code.as_str()), "{end}: {code}");
        let mut again = database.connect();
        assert_eq!(finish(&mut again, "a"), MANY);
    }
}

#[test]
fn workers_end_with_a_call_that_ran_for_max_duration() {
    let database = database_with_workers("duration");
    let (mut backfill, mut other) = (database.connect(), database.connect());
    capture_many(&mut backfill);
    for _ in 0..3 {
        let call = call_with_workers(backfill, "100, max_duration => '1ms'");
        let (client, result) = call.join().expect("the session lives");
        backfill = client;
        assert_eq!(result, Ok(()));
        assert_eq!(one::<i64>(&mut other, WORKERS), 0, "a worker outlives the call");
    }
    assert_ne!(stage(&mut other, "a"), "done");
    assert_eq!(finish(&mut backfill, "a"), MANY);
}

#[test]
fn without_free_workers_the_session_does_it_alone_and_says_so() {
    // One is the launcher's of logical replication.
    let cluster = Arc::new(Cluster::start(&["max_worker_processes=1"]));
    let database = Database::on(cluster, "no_slots");
    let (mut backfill, notices) = database.connect_hearing();
    super::capture(&mut backfill, "a");
    run(&mut backfill, &["SET partition_router.backfill_workers = 4"]);
    assert_eq!(finish(&mut backfill, "a"), super::ROWS);
    let told: Vec<String> = notices.try_iter().collect();
    assert_eq!(
        told.iter().filter(|n| n.contains("1 of 4 processes")).count(),
        1,
        "{told:?}"
    );
}

#[test]
fn a_rewrite_while_workers_copy_starts_the_copy_again() {
    let database = database_with_workers("rewrite");
    let (mut backfill, mut other) = (database.connect(), database.connect());
    capture_many(&mut backfill);
    let call = call_with_workers(backfill, "100, '50ms'");
    for rewrite in [
        "VACUUM FULL a",
        "ALTER TABLE a ALTER COLUMN n TYPE int USING n + 0",
        "CLUSTER a USING a_pkey",
    ] {
        until(
            &mut other,
            "SELECT EXISTS (SELECT FROM partition_router.copy_state WHERE next_block > 0 AND stage = 'copy')",
        );
        run(
            &mut other,
            &[rewrite, "UPDATE a SET n = -1, d = d + 1 WHERE id % 1000 = 0"],
        );
    }
    let (mut backfill, result) = call.join().expect("the session lives");
    assert_eq!(result, Ok(()));
    assert_eq!(finish(&mut backfill, "a"), MANY);
    assert!(
        one::<i64>(
            &mut backfill,
            "SELECT count(*) FROM partition_router.run_log WHERE stage = 'RESTART'"
        ) > 0
    );
}

#[test]
fn of_two_calls_with_workers_one_goes_on_and_the_other_is_refused() {
    let database = database_with_workers("two_calls");
    let (mut backfill, second) = (database.connect(), database.connect());
    capture_many(&mut backfill);
    let calls = [
        call_with_workers(backfill, "100"),
        call_with_workers(second, "100"),
    ];
    let results: Vec<_> = calls
        .into_iter()
        .map(|call| call.join().expect("the session lives").1)
        .collect();
    assert!(results.contains(&Ok(())), "{results:?}");
    assert!(
        results
            .iter()
            .all(|r| r.is_ok() || *r == Err("55006".to_string())),
        "{results:?}"
    );
    let mut client = database.connect();
    assert_eq!(one::<i64>(&mut client, WORKERS), 0);
    assert_eq!(finish(&mut client, "a"), MANY);
}

#[test]
fn an_error_that_stops_a_worker_is_met_by_the_leader() {
    let database = database_with_workers("error");
    let (mut backfill, mut other) = (database.connect(), database.connect());
    capture_many(&mut backfill);
    run(&mut backfill, &["SET partition_router.backfill_workers = 3"]);
    run(
        &mut other,
        &[
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE a ADD COLUMN extra int",
        ],
    );
    assert_eq!(
        sqlstate(&mut backfill, "CALL partition_router.backfill('a', 100)"),
        "PR015"
    );
    until(&mut other, NO_WORKER);
    run(&mut other, &["ALTER TABLE a_partitioned ADD COLUMN extra int"]);
    assert_eq!(finish(&mut backfill, "a"), MANY);
}

#[test]
fn workers_work_as_the_role_that_calls_with_its_settings() {
    let database = database_with_workers("roles");
    let (mut admin, mut other) = (database.connect(), database.connect());
    let role = format!("owner_{}", database.name);
    run(
        &mut admin,
        &[
            &format!("CREATE ROLE \"{role}\" LOGIN"),
            &format!("GRANT ALL ON SCHEMA public TO \"{role}\""),
            &format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partition_router TO \"{role}\""),
            &format!("GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA partition_router TO \"{role}\""),
        ],
    );
    let mut owner = database.connect_as(&role);
    capture_many(&mut owner);
    let mut holder = hold_a_partition(&database);
    run(&mut owner, &["SET application_name = 'the move'"]);
    let call = call_with_workers(owner, "100");
    until(&mut other, WORKER_HELD);
    let who: String = one(
        &mut other,
        "SELECT string_agg(DISTINCT usename || ': ' || application_name, ',') FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'partition_router backfill' AND wait_event_type = 'Lock'",
    );
    assert_eq!(who, format!("{role}: the move"));
    run(&mut holder, &["COMMIT"]);
    let (owner, result) = call.join().expect("the session lives");
    assert_eq!(result, Ok(()));
    drop(owner);
    assert_eq!(finish(&mut admin, "a"), MANY);
    run(
        &mut admin,
        &[
            "SELECT partition_router.abandon('a')",
            &format!("DROP OWNED BY \"{role}\" CASCADE"),
            &format!("DROP ROLE \"{role}\""),
        ],
    );
}
